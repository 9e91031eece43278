"""Making training data: base records at the size of VisDial's training file, API records at full concurrency.

    python tests/benchmarks/generation.py [--dialogs 123287] [--records 50000] [--requests 1600]

Base records: a synthetic training file (1.1 GB, and its cache as much again) is opened, then the records are
written; beside it `json.dump` of the very same records, which is what writing alone costs. API records: a
server on this machine that answers every request after --latency; the ideal rate is concurrency / latency.
Beside ours, a bare httpx client that sends the same bodies and throws the replies away.
Prints JSON, removes what it made.
"""

import argparse
import asyncio
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reading import write_synthetic

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the test server and its data

from chat_server import Chat, handler_of
from conftest import make_dataset
from web_server import serving

BASE = """
import json, os, psutil, resource, sys, time
from pathlib import Path
from visdial_lab.generation import read_records, write_records
from visdial_lab.visdial import VisDial
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
path, count, how = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
visdial = VisDial.load(path)
visdial[0]
loaded, began = psutil.Process().memory_info().rss, time.perf_counter()
busy = time.process_time()
if how == "json.dump":  # the records are there already: only writing is timed
    rows = [json.loads(line) for line in open(path.with_name("base.jsonl"))]
    began, busy = time.perf_counter(), time.process_time()
    with open(path.with_name("dumped.jsonl"), "w") as file:
        for row in rows:
            json.dump(row, file, ensure_ascii=False)
            file.write("\\n")
else:
    assert write_records(path.with_name("base.jsonl"), visdial, count, **how) == count
print(time.perf_counter() - began, time.process_time() - busy, peak() - loaded, flush=True)
os._exit(0)
"""


def base(folder: Path, dialogs: int, count: int) -> dict:
    path = folder / "visdial_1.0_train.json"
    write_synthetic(path, dialogs)
    results = {}
    for name, how in (
        ("first open", {"rounds": "all"}),  # makes the cache; not counted
        ("all rounds", {"rounds": "all"}),
        ("json.dump of these", "json.dump"),
        ("one random round", {"rounds": "random"}),
        ("one round, stratified", {"rounds": "random", "stratify": "question-type"}),
    ):
        run = [sys.executable, "-c", BASE, str(path), str(count), json.dumps(how)]
        said = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
        seconds, busy, memory = map(float, said)
        results[name] = {"seconds": round(seconds, 2), "cpu_seconds": round(busy, 2)}
        results[name]["mb_beyond_loaded"] = round(memory / 1e6)
    del results["first open"], results["json.dump of these"]["mb_beyond_loaded"]
    bare = results["json.dump of these"]["cpu_seconds"]
    results["all rounds per json.dump, cpu"] = round(results["all rounds"]["cpu_seconds"] / bare, 2)
    return {"dialogs": dialogs, "records": count} | results


def serve(delay: float, pipe) -> None:
    """A server in a process of its own, until something is said through the pipe; then the times it saw."""
    chat = Chat(delay=delay)
    with serving(chat, handler_of) as url:
        pipe.send(url)
        pipe.recv()
    times = [when for sample in chat.requests.values() for when in sample]
    pipe.send((len(times), max(times) - min(times) + delay, chat.together))


def at_server(delay: float, job) -> tuple[int, float, int, float]:
    """Run job(url) → (requests, seconds from the first to the last reply, most at once, our CPU seconds)."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(delay, there), daemon=True)
    process.start()
    url, busy = here.recv(), time.process_time()
    job(f"{url}/v1")
    busy = time.process_time() - busy
    here.send("enough")
    found = here.recv()
    process.join()
    return *found, busy


async def bare(url: str, bodies: list[dict], concurrency: int) -> None:
    import httpx

    queue = iter(bodies)

    async def worker(client):
        for body in queue:
            (await client.post(f"{url}/chat/completions", json=body)).raise_for_status()

    async with httpx.AsyncClient(timeout=60) as client:
        await asyncio.gather(*(worker(client) for _ in range(concurrency)))


def api(folder: Path, requests: int, concurrency: int = 16, delay: float = 0.2) -> dict:
    from visdial_lab.api_client import Server
    from visdial_lab.api_data import Recipe, generate, samples
    from visdial_lab.api_prompt import prompt
    from visdial_lab.visdial import VisDial

    train = VisDial.load(make_dataset(folder / "data", dialogs=-(-requests // 10), rounds=10), "train")
    recipe = Recipe("gemma3:27b", rounds="all")

    def ours(url: str) -> None:
        generate(train, folder / "out.jsonl", recipe, Server(url), requests, concurrency)

    bodies = [
        {"model": "gemma3:27b", "max_tokens": 200, "messages": prompt(train[place], round_id)}
        for place, round_id in samples(train, "all")[:requests]
    ]
    ideal, results = concurrency / delay, {}
    for name, job in (
        ("bare httpx", lambda url: asyncio.run(bare(url, bodies, concurrency))),
        ("ours", ours),
    ):
        count, asking, together, busy = at_server(delay, job)
        results[name] = {"per_second": round(count / asking, 1), "of_ideal": round(count / asking / ideal, 3)}
        results[name] |= {"most_at_once": together, "cpu_ms_a_request": round(1000 * busy / count, 1)}
    return {"requests": requests, "concurrency": concurrency, "latency_ms": 1000 * delay} | results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dialogs", type=int, default=123_287)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=1600)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds that the server takes")
    parser.add_argument("--only", choices=("base", "api"))
    parser.add_argument("--folder", help="where to put the file; default: the temporary folder")
    given = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        if given.only != "api":
            results["base"] = base(Path(folder), given.dialogs, given.records)
        if given.only != "base":
            results["api"] = api(Path(folder), given.requests, delay=given.latency)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
