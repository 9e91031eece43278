"""report.html: what a run did, on one page that needs nothing else. Every number is read from the run.

How the page looks is in templates/report.html.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visdial_lab import __version__, plots
from visdial_lab.config import Config, config_to_yaml, load_config
from visdial_lab.errors import UserError
from visdial_lab.files import portable, read_json, resolve, sha256, write_text
from visdial_lab.views import render
from visdial_lab.visdial import Dialog, VisDial, load_dialogs

_PICTURES = 6  # shown of the training data
_Rounds = dict[tuple[int, int], Any]  # something for each (image_id, round_id)


def write_report(run: Path) -> Path:
    """Write run/report.html from metrics.json, history.json, the adapter's notes, predictions and answers.

    Raises UserError when one of these is missing or does not hold what the notebooks put there.
    """
    config = load_config(run / "config.yaml")
    metrics = read_json(run / "metrics.json", "metrics file")
    try:
        mrr = [metrics["runs"][name]["metrics"]["mrr"] for name in ("before", "after")]
    except (KeyError, TypeError):
        raise UserError(
            f"{run / 'metrics.json'}: no results of before and after; run notebook 05 again"
        ) from None
    notes = read_json(run / "adapter" / "lab.json", "adapter's notes")
    history = read_json(run / "history.json", "training history")
    losses = [row.get("answer_loss", row["loss"]) for row in history if "loss" in row]
    if not losses:
        raise UserError("history.json holds no loss; run notebook 03 again")
    train, val = load_dialogs(config), load_dialogs(config, config.data.val_split)
    ranks = {name: _ranks(run, name, val) for name in ("before", "after")}
    answers = {name: _answers(run, name) for name in ranks}
    kinds, follow_ups = _questions(config, train)
    histogram = plots.rank_histogram({name: list(own.values()) for name, own in ranks.items()})
    page = render(
        "report.html",
        config=config,
        metrics=metrics,
        notes=notes,
        headline=_headline(notes, *mrr),
        time=_duration(notes["seconds"]),
        gains=_gains(metrics["runs"]),
        splits=[_counts(train), _counts(val)],
        kinds=_narrow(kinds),
        follow_ups=follow_ups,
        pictures=train[:_PICTURES],
        losses=losses,
        loss_curve=_narrow(plots.loss_curve(history)),
        histogram=_narrow(histogram, 5.8),
        firsts={name: sum(rank == 1 for rank in own.values()) / len(own) for name, own in ranks.items()},
        examples=[(d, _columns(d, answers, ranks)) for d in val[: config.evaluation.examples]],
        command=f"visdial-lab pipeline --config {portable(run / 'config.yaml')} --output runs/again",
        yaml=config_to_yaml(config),
        versions={"visdial-lab": __version__} | notes["versions"],
        fingerprints=_fingerprints(run, notes),
    )
    write_text(run / "report.html", page)
    return run / "report.html"


def _headline(notes: Mapping[str, Any], before: float, after: float) -> str:
    """ "In 3 minutes on a CPU, MRR rose from 0.31 to 0.64"; it says "fell" when it did."""
    verb = "rose" if after > before else "fell" if after < before else "stayed"
    change = f"{verb} from {before:.2f} to {after:.2f}" if after != before else f"stayed at {after:.2f}"
    machine = {"cpu": "on a CPU", "cuda": "on a GPU"}.get(notes.get("device", ""), "of training")
    return f"In {_duration(notes['seconds'])} {machine}, MRR {change}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _gains(runs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What before, after and the oracle reached in MRR and NDCG, where before and after have it.

    "closed": how much of the way from before to the oracle was gone, 1 = all of it, None without an oracle;
    "apart": whether the whole interval of after lies above that of before.
    """
    gains = []
    for key in ("mrr", "ndcg"):
        before, after, oracle = (
            runs.get(name, {}).get("metrics", {}).get(key) for name in ("before", "after", "oracle")
        )
        if before is None or after is None:
            continue
        closed = None
        if oracle is not None and oracle > before:
            closed = max(0.0, (after - before) / (oracle - before))
        ends = [runs[name].get("intervals", {}).get(key) for name in ("before", "after")]
        apart = None not in ends and ends[1][0] > ends[0][1]
        values = {"before": before, "after": after, "oracle": oracle}
        gains.append(values | {"name": plots.METRICS[key], "closed": closed, "apart": apart})
    return gains


def _counts(part: VisDial) -> dict[str, Any]:
    turns = [turn for dialog in part for turn in dialog.rounds]
    return {
        "split": part.split,
        "dialogs": len(part),
        "rounds": len(turns),
        "questions": len({turn.question for turn in turns}),
        "answers": len({turn.answer for turn in turns}),
    }


def _questions(config: Config, train: VisDial) -> tuple[Any, float | None]:
    """(figure of the kinds of questions, share that needs earlier rounds or None), from the data's card."""
    path = resolve(config.data.root) / "card.json"
    card = read_json(path, "dataset card") if path.is_file() else {}
    kinds = card.get("question_kinds")
    if not kinds:
        return plots.question_kinds(train), card.get("follow_ups")
    ordered = dict(sorted(kinds.items(), key=lambda item: -item[1]))
    return plots.counts(ordered, "kinds of questions"), card.get("follow_ups")


def _narrow(figure: Any, width: float = 4.7) -> Any:
    """The figure drawn narrow (in inches), so that its letters can be read on a phone too."""
    figure.set_size_inches(width, figure.get_size_inches()[1])
    return figure


def _ranks(run: Path, name: str, val: VisDial) -> _Rounds:
    """The rank that this run gave the human answer, for each round of val."""
    path = run / f"predictions_{name}.json"
    entries = read_json(path, "predictions file")
    human = {(d.image_id, t.round_id): t.gt_index for d in val for t in d.rounds if t.gt_index is not None}
    try:
        given = {(entry["image_id"], entry["round_id"]): entry["ranks"] for entry in entries}
        return {key: given[key][place] for key, place in human.items()}
    except (KeyError, TypeError, IndexError):
        raise UserError(f"{path} does not fit the val dialogs; run notebook 04 again") from None


def _answers(run: Path, name: str) -> _Rounds:
    path = run / f"answers_{name}.json"
    rows = read_json(path, "answers file") if path.is_file() else []
    said = ("answer", "reminder")
    return {(row["image_id"], row["round_id"]): {key: row[key] for key in said if key in row} for row in rows}


def _columns(dialog: Dialog, answers: dict[str, _Rounds], ranks: dict[str, _Rounds]) -> dict[str, dict]:
    """What `dialog_card` shows: {run: {round_id: {"answer", "reminder" if there is one, "rank"}}}."""
    keys = [(dialog.image_id, turn.round_id) for turn in dialog.rounds]
    return {
        name: {key[1]: answers[name].get(key, {}) | {"rank": ranks[name].get(key)} for key in keys}
        for name in ranks
    }


def _fingerprints(run: Path, notes: Mapping[str, Any]) -> dict[str, str]:
    names = ("records.jsonl", "adapter", "predictions_before.json", "predictions_after.json")
    files = {name: sha256(run / name) for name in names if (run / name).exists()}
    return files | {f"base model {notes['base_model']}": notes["base_model_sha256"] or "from the hub"}
