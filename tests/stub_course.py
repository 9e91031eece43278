"""A whole course in little, for the pipeline: a made-up data set and five notebooks that take a second each.

The notebooks pass real-shaped files along, each made from the one before, so that a step that was left out,
or run twice, shows in metrics.json.
"""

from pathlib import Path

import nbformat
from conftest import make_dataset

from visdial_lab.config import load_config

_BEGIN = """
import hashlib, json, os, time
from pathlib import Path
from visdial_lab.config import load_config
from visdial_lab.course import manifest
from visdial_lab.files import course_root, write_json, write_text
from visdial_lab.visdial import VisDial
config, run = load_config(PROFILE), course_root() / OUTPUT
val = VisDial.load(config.data.root, "val")
"""

BODIES = {
    "01_data_exploration": "read, wrote = [val.path], []",
    "02_data_generation": """
write_text(run / "records.jsonl", json.dumps([d.caption for d in val]) + "\\n")
read, wrote = [val.path], ["records.jsonl"]""",
    "03_qlora_finetuning": """
made_from = hashlib.sha256((run / "records.jsonl").read_bytes()).hexdigest()
notes = {"seconds": 75.0, "device": "cpu", "steps": 2, "config": config.model_dump(),
         "versions": {"torch": "2"}, "records": {"count": 4}, "base_model": "data/tiny",
         "base_model_sha256": None, "made_from": made_from}
write_json(run / "adapter" / "lab.json", notes)
write_json(run / "history.json", [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.5}])
read, wrote = ["records.jsonl"], ["adapter", "history.json"]""",
    "04_inference": """
for name, rank in (("before", 40), ("after", 1), ("blind", 20), ("forgetful", 10)):
    rows, answers = [], []
    for d in val:
        for t in d.rounds:
            ranks = list(range(1, 101))
            place = ranks.index(rank)
            ranks[place], ranks[t.gt_index] = ranks[t.gt_index], rank
            rows.append({"image_id": d.image_id, "round_id": t.round_id, "ranks": ranks})
            answers.append({"image_id": d.image_id, "round_id": t.round_id, "answer": f"<i>{name}</i>"})
    write_json(run / f"predictions_{name}.json", rows)
    write_json(run / f"answers_{name}.json", answers)
read, wrote = ["adapter"], [
    f"predictions_{name}.json" for name in ("before", "after", "blind", "forgetful")
]""",
    "05_metrics": """
made_from = hashlib.sha256((run / "predictions_after.json").read_bytes()).hexdigest()
def one(mrr):
    interval = [mrr - 0.01, mrr + 0.01]
    return {"metrics": {"mrr": mrr, "ndcg": mrr}, "intervals": {"mrr": interval, "ndcg": interval}}
runs = {"before": one(0.2), "after": one(0.6), "blind": one(0.3)}
runs["oracle"] = {"metrics": {"mrr": 0.7, "ndcg": 1.0}}
lost = {"mrr": {"difference": 0.2, "interval": [0.15, 0.25]}}
counts = {"n_rounds": 12, "n_dense": 4, "runs": runs, "made_from": made_from}
counts["after_minus"] = {"forgetful": lost}
write_json(run / "metrics.json", one(0.6) | counts)
read, wrote = ["predictions_after.json"], ["metrics.json"]""",
}


def write_notebook(folder: Path, name: str, body: str) -> None:
    """One stub notebook with a parameters cell, its body, and a manifest at the end."""
    texts = (_BEGIN, body, f'manifest(run, "{name}", read, wrote);')
    parameters = nbformat.v4.new_code_cell(
        'PROFILE = "scenes"\nOUTPUT = None', metadata={"tags": ["parameters"]}
    )
    cells = [nbformat.v4.new_markdown_cell(f"# {name}"), parameters, *map(nbformat.v4.new_code_cell, texts)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def make_course(root: Path) -> Path:
    """A course folder with notebooks/ and data/scenes; returns the path of its config."""
    make_dataset(root / "data" / "scenes")
    for name, body in BODIES.items():
        write_notebook(root / "notebooks", name, body)
    config = root / "stub.yaml"
    config.write_text("name: stub\nevaluation: {examples: 2}\nnotebooks: {timeout: 30}\n")
    return config


def stub_config(root: Path):
    return load_config(root / "stub.yaml")
