"""An OpenAI-compatible server on this machine that answers from a rule and misbehaves as told.

What it answers, and how it misbehaves, depends only on what it is asked, so that a run that was killed and
taken up again must end as one that was not.
"""

import base64
import hashlib
import io
import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler

from PIL import Image

GOOD = "<reminder>it = the {word} in the picture</reminder> {answer}"
ONCE = ("429", "500", "cut", "empty body", "no json", "wrong json", "no text", "late", "no form", "oversized")
ALWAYS = ("always 500", "always no json", "always no form", "always oversized", "always empty")


class Chat:
    """faults: the share of the samples that meet one, half of them a fault of ONCE, half of ALWAYS.

    A sample is known by the text of its first user message. `requests` holds what was asked for each, and
    when; `together` is how many requests were at work at once, at most.
    """

    def __init__(self, faults: float = 0.0, delay: float = 0.0, models=("gemma3:27b", "other:1b")):
        self.faults, self.delay, self.models = faults, delay, list(models)
        self.lock, self.requests, self.bodies, self.keys = threading.Lock(), {}, [], set()
        self.together = self.now = 0
        self.reply = None  # a text to answer everything with
        self.status = None  # (status, message, headers) to answer everything with
        self.usage = True
        self.raw = None  # bytes of a body to answer everything with

    def fault(self, sample: str) -> str | None:
        """The fault that this sample meets."""
        rng = random.Random(hashlib.sha256(sample.encode()).hexdigest())
        return rng.choice(rng.choice((ONCE, ALWAYS))) if rng.random() < self.faults else None

    def answer(self, sample: str) -> str:
        word = hashlib.sha256(sample.encode()).hexdigest()[:6]
        answers = "yes", "no", f"it is number {int(word, 16) % 150}"
        return GOOD.format(word=word, answer=answers[len(sample) % 3])


def sample_of(messages: list[dict]) -> str:
    """The text of the first user message."""
    content = next(message["content"] for message in messages if message["role"] == "user")
    return content if isinstance(content, str) else content[-1]["text"]


def handler_of(chat: Chat) -> type:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else headers and body would wait for each other, 40 ms a request

        def log_message(self, *_):
            pass

        def do_GET(self):
            if chat.status:
                return self.send(chat.status[0], self.error(chat.status[1]), chat.status[2])
            models = [{"id": name, "object": "model"} for name in chat.models]
            self.send(200, {"object": "list", "data": models})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with chat.lock:
                chat.now += 1
                chat.together = max(chat.together, chat.now)
                chat.bodies.append(body)
                chat.keys.add(self.headers.get("Authorization"))
            try:
                self.chat(body)
            finally:
                with chat.lock:
                    chat.now -= 1

        def chat(self, body):
            time.sleep(chat.delay)
            if chat.status:
                return self.send(chat.status[0], self.error(chat.status[1]), chat.status[2])
            if body["model"] not in chat.models:
                return self.send(404, self.error(f"model {body['model']!r} not found, try pulling it first"))
            sample = sample_of(body["messages"])
            with chat.lock:
                times = chat.requests.setdefault(sample, [])
                times.append(time.monotonic())
            if chat.raw is not None:
                return self.send(200, chat.raw)
            fault = chat.fault(sample)
            fault = fault if len(times) == 1 else fault and fault.startswith("always") and fault
            self.misbehave((fault or "").removeprefix("always "), chat.reply or chat.answer(sample), body)

        def misbehave(self, fault, text, body):
            if fault == "429":
                return self.send(429, self.error("too many requests"), {"Retry-After": "1"})
            if fault == "500":
                return self.send(500, self.error("out of luck"))
            if fault in ("no json", "empty body"):
                return self.send(200, b'{"choices": [' if fault == "no json" else b"")
            if fault == "wrong json":
                return self.send(200, {"answer": text})
            text = {
                "no form": text.replace("</reminder>", ""),
                "oversized": text + " and so on" * 100_000,
                "no text": None,
                "empty": "",
            }.get(fault, text)
            if fault in ("late", "very late"):
                time.sleep(0.3 if fault == "late" else 2)
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            said = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
            said |= {"choices": [choice]}
            if chat.usage:
                said["usage"] = {"prompt_tokens": 300, "completion_tokens": 20, "total_tokens": 320}
            self.send(200, said, cut=fault == "cut", dribble=fault == "dribble")

        def error(self, message):
            return {"error": {"message": message, "type": "error", "code": None, "param": None}}

        def send(self, status, body, headers=None, cut=False, dribble=False):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})
            for name, value in headers.items():
                self.send_header(name, value)
            self.close_connection = self.close_connection or cut
            self.end_headers()
            for byte in data[:30] if dribble else b"":
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)
            self.wfile.write(data[: len(data) // 2] if cut else data[30 * dribble :])

    return Handler


def pictures(body: dict) -> list:
    """The pictures in a request, opened."""
    urls = [
        part["image_url"]["url"]
        for message in body["messages"]
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def kinds(chat: Chat) -> Counter:
    """How many of the samples that were asked for meet each fault."""
    return Counter(chat.fault(sample) for sample in chat.requests)
