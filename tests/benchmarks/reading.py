"""Reading at the size of VisDial's training file: time and peak memory, as ratios to bare JSON parsers.

    python tests/benchmarks/reading.py [--dialogs 123287] [--repeat 2] [--folder /tmp/somewhere]

Makes a synthetic file of the training split's size (it and its cache need 2 GB of disk, the bare parsers
up to 10 GB of memory), measures every reader in a process of its own, prints JSON, and removes the file.
"""

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

QUESTIONS, ANSWERS = 376_593, 337_527  # entries of the string tables of the real file, about
WORDS = "is the a any what color how many people dog table white tree there in can you see no yes"

READER = """
import os, resource, sys, time
from pathlib import Path
path, how = Path(sys.argv[1]), sys.argv[2]
if how == "VisDial":
    from visdial_lab.visdial import VisDial
else:
    module = __import__({"json": "json", "orjson": "orjson", "msgspec": "msgspec.json"}[how], fromlist=["x"])
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
if how == "VisDial":
    read = VisDial.load(path)
else:
    read = getattr(module, "loads", None) or module.decode
    read = read(path.read_bytes())
seconds = time.perf_counter() - began
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) * 1024, flush=True)
os._exit(0)  # taking 100 million objects apart again is nobody's business here
"""


def write_synthetic(path: Path, dialogs: int, seed: int = 0) -> None:
    """Random dialogs in the official format, written as json.dump does, ten rounds of 100 options each."""
    rng, words = np.random.default_rng(seed), random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        file.write('{"version": "1.0", "split": "train", "data": {"dialogs": [')
        for n in range(dialogs):
            options, gt = rng.integers(0, ANSWERS, (10, 100)).tolist(), rng.integers(0, 100, 10).tolist()
            turns = [
                {"answer": row[g], "gt_index": g, "question": q, "answer_options": row}
                for row, g, q in zip(options, gt, rng.integers(0, QUESTIONS, 10).tolist(), strict=True)
            ]
            caption = " ".join(words.choices(WORDS.split(), k=11))
            entry = {"image_id": 4 * n + 9, "caption": caption, "dialog": turns}
            file.write((", " if n else "") + json.dumps(entry))
        tables = {
            "questions": [" ".join(words.choices(WORDS.split(), k=6)) + f" {n}" for n in range(QUESTIONS)],
            "answers": [" ".join(words.choices(WORDS.split(), k=3)) + f" {n}" for n in range(ANSWERS)],
        }
        file.write("], " + json.dumps(tables)[1:] + "}")


def measure(path: Path, how: str) -> tuple[float, float]:
    """(seconds, bytes of peak memory beyond the idle interpreter with its imports) in a fresh process."""
    run = subprocess.run(
        [sys.executable, "-c", READER, str(path), how], capture_output=True, text=True, check=True
    )
    seconds, peak = run.stdout.split()
    return float(seconds), float(peak)


def benchmark(folder: Path, dialogs: int, repeat: int) -> dict:
    path = folder / "visdial_1.0_train.json"
    write_synthetic(path, dialogs)
    size = path.stat().st_size
    results: dict[str, list[tuple[float, float]]] = {}
    for _ in range(repeat):  # in turn, so that what else the machine does hits all alike
        for name, how in (
            *((how, how) for how in ("json", "orjson", "msgspec")),
            ("first open", "VisDial"),
            ("second open", "VisDial"),
        ):
            results.setdefault(name, []).append(measure(path, how))
        cache = path.with_suffix(".cache")
        cached = sum(file.stat().st_size for file in cache.iterdir()) if cache.is_dir() else 0
        for file in cache.glob("*"):
            file.unlink()
    best = {name: tuple(map(min, zip(*runs, strict=True))) for name, runs in results.items()}
    fastest = min(("json", "orjson", "msgspec"), key=lambda name: best[name][0])
    return {
        "file_bytes": size,
        "dialogs": dialogs,
        "cache_bytes": cached,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "seconds": {name: round(seconds, 2) for name, (seconds, _) in best.items()},
        "peak_bytes_per_file_byte": {name: round(peak / size, 2) for name, (_, peak) in best.items()},
        "fastest_parser": fastest,
        "first_open_per_fastest_parser": round(best["first open"][0] / best[fastest][0], 2),
        "second_open_seconds": round(best["second open"][0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dialogs", type=int, default=123_287)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--folder", help="where to put the file; default: the temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(json.dumps(benchmark(Path(folder), given.dialogs, given.repeat), indent=1))


if __name__ == "__main__":
    main()
