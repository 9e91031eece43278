"""Train the scenes profile in plain and in reminder style, let both answer and rank val, compare in pairs.

    python data/recipes/compare_styles.py --work runs/styles --output data/reminders/comparison.json

Both adapters see the same dialogs, equally often, with the same seed; only what stands before the answers
differs. What is in the work folder already is not made again. One training of each: the intervals are over
dialogs, they do not say how much another seed would change.
"""

import argparse
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from visdial_lab import VisDial, answer_dialogs, load_model, score_dialogs
from visdial_lab.chat import message_text, split_reminder, token_count
from visdial_lab.config import load_config
from visdial_lab.evaluation import read_truth
from visdial_lab.files import read_json, write_json
from visdial_lab.finetune import finetune
from visdial_lab.generation import records
from visdial_lab.metrics import compare, evaluate, round_values, summarise
from visdial_lab.predictions import predictions

STYLES = ("plain", "reminder")
REPLAYED = 20  # dialogs whose replies are recorded


def train(style: str, work: Path, epochs: float | None) -> Path:
    """The adapter of a style, trained unless it is there."""
    options = {"generation.style": style} | ({} if epochs is None else {"training.num_train_epochs": epochs})
    config, adapter = load_config("scenes", options), work / style
    if not (adapter / "lab.json").is_file():
        rows = list(records(VisDial.load(config.data.root, "train"), **config.generation.model_dump()))
        finetune(config, rows, adapter, on_log=lambda *line: print(style, *line[:3], flush=True))
    return adapter


def judge(style: str, adapter: Path, dialogs: list, work: Path) -> dict:
    """Its predictions, with answers and reminders, made unless they are there, and what they took."""
    path = work / f"predictions_{style}.json"
    if not path.is_file():
        model, processor = load_model(adapter)
        started = time.monotonic()
        said = answer_dialogs(model, processor, dialogs, style=style, batch_size=16, progress=print)
        answered = time.monotonic()
        scores = []
        for start in range(0, len(dialogs), 50):  # few at a time: on a GPU, compiling would take longer
            part = slice(start, start + 50)
            recalled = said[part] if style == "reminder" else None
            scores += score_dialogs(model, processor, dialogs[part], said=recalled)
        seconds = {"answering": answered - started, "ranking": time.monotonic() - answered}
        lengths = [token_count(processor, row["messages"]) for row in teacher_rows(style)[: len(dialogs)]]
        found = {"predictions": predictions(dialogs, scores, said), "said": said}
        write_json(path, found | {"seconds": seconds, "tokens": lengths})
    return read_json(path)


def teacher_rows(style: str) -> list[dict]:
    return list(records(VisDial.load("data/scenes", "val"), style=style))


def describe(adapter: Path, found: dict, dialogs: list) -> dict:
    """Metrics with intervals, and what it took."""
    notes = read_json(adapter / "lab.json")
    training = {key: notes[key] for key in ("steps", "seconds", "final_loss", "seed", "device")}
    training["epochs"] = notes["config"]["training"]["num_train_epochs"]
    return evaluate(dialogs, found["predictions"]) | {
        "training": training,
        "seconds": {key: round(value, 1) for key, value in found["seconds"].items()},
        "tokens_a_dialog": float(np.mean(found["tokens"])),
    }


def recalled(entries: list[dict]) -> dict[str, float]:
    """How the model's own reminders are: whole ones, and those that say what the teacher would say."""
    taught = [
        split_reminder(message_text(message))[0]
        for row in teacher_rows("reminder")
        for message in row["messages"][1::2]
    ]
    own = [entry.get("reminder") for entry in entries]
    same = [mine == his for mine, his in zip(own, taught, strict=False)]
    return {
        "whole": float(np.mean([text is not None for text in own])),
        "as the teacher": float(np.mean(same)),
    }


def part(values: dict[str, dict], rows: np.ndarray) -> dict:
    """Both runs on some of the rounds, and the paired difference."""
    own = {style: {key: column[rows] for key, column in found.items()} for style, found in values.items()}
    means = {style: summarise(found)["metrics"] for style, found in own.items()}
    gain = compare(own["reminder"], own["plain"])
    return {"n_rounds": int(rows.sum()), **means, "reminder minus plain": gain}


def record(path: Path, adapter: Path, said: list[list[str]], dialogs: list) -> None:
    """Write some replies as they came, for notebook 02 to replay where there is no server."""
    steps = read_json(adapter / "lab.json")["steps"]
    replies = [
        {"image_id": dialog.image_id, "round_id": turn.round_id, "reply": text}
        for dialog, texts in zip(dialogs[:REPLAYED], said, strict=False)
        for turn, text in zip(dialog.rounds, texts, strict=True)
    ]
    origin = f"the embedded model, fine-tuned in reminder style ({steps} steps), on val dialogs"
    write_json(path, {"from": origin, "made by": "data/recipes/compare_styles.py", "replies": replies})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/styles"))
    parser.add_argument("--output", type=Path, default=Path("data/reminders/comparison.json"))
    parser.add_argument("--dialogs", type=int, help="judge on the first so many; default: all of val")
    parser.add_argument("--recorded", type=Path, help="also write some of the replies, for notebook 02")
    parser.add_argument("--epochs", type=float, default=None, help="default: as the profile says")
    arguments = parser.parse_args()
    val = VisDial.load("data/scenes", "val")
    dialogs, truth = list(val[: arguments.dialogs]), read_truth(val)
    result: dict = {"runs": {}}
    values = {}
    for style in STYLES:
        adapter = train(style, arguments.work, arguments.epochs)
        found = judge(style, adapter, dialogs, arguments.work)
        result["runs"][style] = describe(adapter, found, dialogs)
        values[style] = round_values(dialogs, found["predictions"])
        if style == "reminder":
            result["reminders"] = recalled(found["predictions"])
            if arguments.recorded:
                record(arguments.recorded, adapter, found["said"], dialogs)
    ids = [dialogs[place].image_id for place in values["plain"]["dialog"]]
    rounds = zip(ids, values["plain"]["round_id"], strict=True)
    follows = np.array([truth[image_id, n]["needs_history"] for image_id, n in rounds])
    choices = {"all rounds": follows | True, "follow-ups": follows, "other questions": ~follows}
    result["parts"] = {name: part(values, rows) for name, rows in choices.items()}
    given = {"--epochs": arguments.epochs, "--dialogs": arguments.dialogs}
    options = [f"{name} {value:g}" for name, value in given.items() if value is not None]
    packages = ("visdial-lab", "torch", "transformers", "peft", "trl")
    result["made by"] = {
        "command": " ".join(["python data/recipes/compare_styles.py", *options]),
        "versions": {package: version(package) for package in packages},
    }
    write_json(arguments.output, result)


if __name__ == "__main__":
    main()
