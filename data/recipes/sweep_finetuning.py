"""Train the scenes profile again and again, one setting changed at a time; measure each on val.

    python data/recipes/sweep_finetuning.py --output data/sweeps/finetuning.json

Every configuration has a file of its own in the work folder, and one that is there is not trained again: stop
and start as you like. Several processes share the work by `--part 1/4`, `--part 2/4` …; whoever is called
when all is measured (without `--part`, if you like) writes the output. One training of each configuration,
but the profile's own five times, with other seeds: what those differ by, no setting should be praised for.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from visdial_lab import VisDial, __version__, load_model, score_dialogs
from visdial_lab.config import Config, load_config
from visdial_lab.files import atomic_path, read_json, resolve, sha256, write_json
from visdial_lab.finetune import finetune
from visdial_lab.generation import records
from visdial_lab.metrics import compare, round_values, summarise

OURS = {"training.backend": "peft", "training.save_steps": None}  # nothing here is worth a checkpoint
SEEDS = (1, 2, 3, 4)  # besides the profile's
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
METRICS = ("mrr", "ndcg", "r@1")
RUN_NOTES = ("trainable", "steps", "loss", "seconds", "ranking seconds")


def configurations() -> dict[str, dict[str, Any]]:
    """{name: {"sweep", "value", "overrides", "trained"}}; the profile itself is the one without overrides."""
    profile = load_config("scenes")
    found: dict[str, dict[str, Any]] = {}

    def add(sweep: str, value: Any, trained: bool = True, **overrides: Any) -> None:
        named = {key.replace("__", "."): chosen for key, chosen in overrides.items()}
        name = f"{sweep}-{value}" if named else "profile"
        found[name] = {"sweep": sweep, "value": value, "trained": trained, "overrides": named}

    add("seed", profile.training.seed)
    for seed in SEEDS:
        add("seed", seed, training__seed=seed)
    scale = profile.peft.lora_alpha // profile.peft.r  # stays, so that the rank alone changes
    for r in (1, 2, 4, 8, 32, 64):
        add("rank", r, peft__r=r, peft__lora_alpha=scale * r)
    for factor in (1 / 8, 1 / 4, 1 / 2, 2, 4):
        rate = profile.training.learning_rate * factor
        add("learning rate", f"{rate:g}", training__learning_rate=rate)
    add("modules", "attention", peft__finetune_mlp_modules=False)
    add("modules", "mlp", peft__finetune_attention_modules=False)
    add("modules", "both and vision", peft__finetune_vision_layers=True)
    add("modules", "vision alone", peft__finetune_vision_layers=True, peft__finetune_language_layers=False)
    add("precision", "base in 4 bits", trained=False, model__load_in_4bit=True)
    add("precision", "base in full", trained=False, model__load_in_4bit=False)
    add("precision", "tuned in full", model__load_in_4bit=False)
    for seed in SEEDS:
        add("precision", f"tuned in full, seed {seed}", model__load_in_4bit=False, training__seed=seed)
    for dialogs in (50, 100, 200, 400):  # equally many steps: a small set is read again
        add("dialogs", dialogs, data__num_train_dialogs=dialogs, training__max_steps=profile_steps())
    return found


@cache
def profile_steps() -> int:
    """How many steps the profile trains."""
    config, dialogs = load_config("scenes"), len(VisDial.load("data/scenes", "train"))
    training = config.training
    a_step = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return round(training.num_train_epochs * dialogs / a_step)


@cache
def rows_of(dialogs: int | None, style: str) -> tuple[list[dict], str]:
    """The training records of the first so many dialogs, and their sha256."""
    rows = list(records(VisDial.load("data/scenes", "train")[:dialogs], style=style))
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False)
    return rows, hashlib.sha256(text.encode()).hexdigest()


def measure(name: str, chosen: Mapping[str, Any], work: Path, limit: int | None) -> dict:
    """Train a configuration and let it rank val, unless its file is there, made from the same."""
    limited = {} if limit is None else {"training.max_steps": limit, "training.logging_steps": 1}
    config = load_config("scenes", {**OURS, **chosen["overrides"], **limited})
    rows, digest = rows_of(config.data.num_train_dialogs, config.generation.style)
    made_from = {
        "config": config.model_dump(exclude={"name", "notebooks"}),
        "base model": sha256(resolve(config.model.name)),
        "records": digest,
        "val dialogs": limit,
    }
    path = file_of(name, work)
    if path.is_file() and (before := read_json(path))["made from"] == json.loads(json.dumps(made_from)):
        return before
    print(f"{name}: begins", flush=True)
    found: dict[str, Any] = {"made from": made_from, "device": device(), "versions": versions()}
    adapter = work / path.stem
    if chosen["trained"]:
        found |= train(name, config, rows, adapter)
        model, processor = load_model(adapter)
    else:
        model, processor = load_model(config.model.name, config.model.load_in_4bit)
    dialogs, began = list(VisDial.load("data/scenes", "val")[:limit]), time.monotonic()
    scores = []
    for start in range(0, len(dialogs), 50):  # few at a time: on a GPU, compiling would take longer
        scores += score_dialogs(model, processor, dialogs[start : start + 50])
    found["ranking seconds"] = round(time.monotonic() - began, 1)
    values = round_values(dialogs, scores)
    with atomic_path(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **values)
    write_json(path, found)
    print(f"{name}: MRR {np.mean(values['mrr']):.3f}", flush=True)
    return found


def train(name: str, config: Config, rows: list[dict], adapter: Path) -> dict[str, Any]:
    """Train one; what its notes say. The last 30 steps' loss: a single line of the log is too noisy."""
    tell = lambda *line: print(f"{name}: step {line[0]} of {line[1]}, {line[4]:.0f} s left", flush=True)  # noqa: E731
    history = finetune(config, rows, adapter, on_log=tell, replace=True)["history"]
    notes, losses = read_json(adapter / "lab.json"), [row["loss"] for row in history if "loss" in row]
    return {
        "trainable": numbers_in(adapter / "adapter_model.safetensors"),
        "steps": notes["steps"],
        "loss": rounded(np.mean(losses[-max(1, 30 // config.training.logging_steps) :])),
        "seconds": notes["seconds"],
    }


def numbers_in(path: Path) -> int:
    """How many numbers a file of weights holds."""
    from safetensors.numpy import load_file

    return sum(matrix.size for matrix in load_file(path).values())


def device() -> str:
    """What computes: the name of the GPU, or the CPU with its threads."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    return {"visdial-lab": __version__} | {package: version(package) for package in PACKAGES}


def file_of(name: str, work: Path) -> Path:
    return work / f"{name.replace(' ', '_')}.json"


def summary(names: list[str], work: Path, limit: int | None) -> dict[str, Any]:
    """All that was measured as one document: metrics with intervals, and each run paired with the profile."""
    chosen, profile = configurations(), load_config("scenes")
    found = {name: read_json(file_of(name, work)) for name in names}
    values = {name: dict(np.load(file_of(name, work).with_suffix(".npz"))) for name in names}
    runs = {}
    for name in names:
        run = {key: chosen[name][key] for key in ("sweep", "value", "overrides")}
        run |= {key: found[name][key] for key in RUN_NOTES if key in found[name]}
        measured = summarise(values[name])
        for part in ("metrics", "intervals"):
            run[part] = {key: rounded(measured[part][key]) for key in METRICS}
        if "profile" in values and name != "profile":
            gain = compare(values[name], values["profile"])
            run["minus profile"] = {
                metric: {key: rounded(value) for key, value in gain[metric].items()} for metric in METRICS
            }
        runs[name] = run
    rows, digest = rows_of(None, profile.generation.style)
    owner = next(iter(values.values()))["dialog"]
    return {
        "made by": "python data/recipes/sweep_finetuning.py" + (f" --limit {limit}" if limit else ""),
        "device": ", ".join(sorted({one["device"] for one in found.values()})),
        "versions": found[names[0]]["versions"],
        "records": {"count": len(rows), "sha256": digest},
        "base model": {"name": profile.model.name, "sha256": sha256(resolve(profile.model.name))},
        "val": {"dialogs": len(np.unique(owner)), "rounds": len(owner)},
        "profile": profile.model_dump(include={"model", "peft", "training", "generation"}),
        "runs": runs,
    }


def rounded(value: Any) -> Any:
    """A number, or a list of them, to four places: more is noise."""
    return np.round(value, 4).tolist()


def main() -> None:
    every = configurations()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/sweeps"))
    parser.add_argument("--output", type=Path, default=Path("data/sweeps/finetuning.json"))
    parser.add_argument(
        "--only", nargs="+", choices=list(every), metavar="NAME", help=f"of {', '.join(every)}"
    )
    parser.add_argument(
        "--part", default="1/1", metavar="I/N", help="every N-th configuration, from the I-th"
    )
    parser.add_argument("--limit", type=int, help="a trial: so many steps, and so many dialogs of val")
    arguments = parser.parse_args()
    wanted = arguments.only or list(every)
    part, parts = map(int, arguments.part.split("/"))
    for name in wanted[part - 1 :: parts]:
        measure(name, every[name], arguments.work, arguments.limit)
    lacking = [name for name in wanted if not file_of(name, arguments.work).is_file()]
    if lacking:
        print(f"still to measure, by other parts: {', '.join(lacking)}", flush=True)
    else:
        write_json(arguments.output, summary(wanted, arguments.work, arguments.limit))


if __name__ == "__main__":
    main()
