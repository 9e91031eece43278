"""Making training data: base records at the size of VisDial's training file, API records at full concurrency.

    python tests/benchmarks/generation.py [--dialogs 123287] [--records 50000] [--requests 1600]

Base records: a synthetic training file (1.1 GB, and its cache as much again) is opened, then the records are
written; beside it `json.dump` of the very same records, which is what writing alone costs. API records: a
server on this machine that answers every request after 200 ms; the ideal rate is concurrency / latency.
Prints JSON, removes what it made.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from reading import write_synthetic

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
if how == "json.dump":  # the records are there already: only writing is timed
    rows = [json.loads(line) for line in open(path.with_name("base.jsonl"))]
    began = time.perf_counter()
    with open(path.with_name("dumped.jsonl"), "w") as file:
        for row in rows:
            json.dump(row, file, ensure_ascii=False)
            file.write("\\n")
else:
    assert write_records(path.with_name("base.jsonl"), visdial, count, **how) == count
print(time.perf_counter() - began, peak() - loaded, flush=True)
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
        seconds, memory = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
        results[name] = {"seconds": round(float(seconds), 2), "mb_beyond_loaded": round(float(memory) / 1e6)}
    del results["first open"], results["json.dump of these"]["mb_beyond_loaded"]
    bare = results["json.dump of these"]["seconds"]
    results["all rounds per json.dump"] = round(results["all rounds"]["seconds"] / bare, 2)
    return {"dialogs": dialogs, "records": count} | results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dialogs", type=int, default=123_287)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--folder", help="where to put the file; default: the temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(json.dumps({"base": base(Path(folder), given.dialogs, given.records)}, indent=1))


if __name__ == "__main__":
    main()
