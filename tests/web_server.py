"""A web server on this machine that serves bytes from memory and misbehaves as told, for test_download."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """files: {path: bytes}. faults: {path: [one for each request to come]}; without any, all is well.

    A fault is a status (404, 429 …), or: "cut" (half of the rest, then the connection is closed), "long"
    (announces more than it sends), "short" (announces and sends less), "no ranges", "wrong range", "html",
    "silent cut" (half, with no length announced). always: {path: fault} once these are used up.
    """

    def __init__(self, files: dict[str, bytes]):
        self.files, self.faults, self.always, self.requests = files, {}, {}, []
        self.retry_after = "0"
        self.lock, self.delay = threading.Lock(), 0.0

    def next_fault(self, path: str):
        with self.lock:
            todo = self.faults.get(path)
            return todo.pop(0) if todo else self.always.get(path)


def handler_of(site: Site) -> type:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            path = self.path.partition("?")[0].lstrip("/")
            wanted = self.headers.get("Range")
            with site.lock:
                site.requests.append((path, wanted))
            fault, data = site.next_fault(path), site.files.get(path)
            if data is None and fault is None:
                fault = 404
            if isinstance(fault, int):
                return self.answer(fault, b"<html>sorry</html>", {"Retry-After": site.retry_after})
            if fault == "html":
                return self.answer(
                    200, b"<html>too many people want this file</html>", {"Content-Type": "text/html"}
                )
            start = int(wanted[6:].partition("-")[0]) if wanted and fault != "no ranges" else 0
            if start and start >= len(data):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            body, headers = data[start:], {"Content-Type": "application/binary"}
            if start:
                first = start + 5 if fault == "wrong range" else start
                headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self.answer(206 if start else 200, body, headers, fault)

        def answer(self, status, body, headers, fault=None):
            sent = body[: len(body) // 2] if fault in ("cut", "short", "silent cut") else body
            announced = len(sent) if fault == "short" else len(body) + 1000 * (fault == "long")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if fault != "silent cut":
                self.send_header("Content-Length", str(announced))
            if fault in ("cut", "long", "silent cut"):
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            for at in range(0, len(sent), 4096):
                self.wfile.write(sent[at : at + 4096])
                if site.delay:
                    threading.Event().wait(site.delay)

    return Handler


@contextlib.contextmanager
def serving(site: Site, handler_of=handler_of):
    """Give the address of the site while it is up."""
    server = type("Server", (ThreadingHTTPServer,), {"request_queue_size": 128})(
        ("127.0.0.1", 0), handler_of(site)
    )
    server.handle_error = lambda *_: None  # a client that was killed is part of the game
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
