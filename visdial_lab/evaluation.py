"""An evaluated run in full: beside baselines and other runs, in parts, and as a page that stands alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visdial_lab import __version__, baselines, plots
from visdial_lab.errors import counted, naming
from visdial_lab.files import read_json, write_text
from visdial_lab.metrics import breakdowns, compare, evaluate, round_values, summarise
from visdial_lab.text_metrics import polarity
from visdial_lab.views import render
from visdial_lab.visdial import Dialog, Round, VisDial

_OPTIONS = 10  # of a round on the page, best first


def evaluate_run(
    dialogs: Sequence[Dialog],
    runs: Mapping[str, list],
    train: Sequence[Dialog] | None = None,
    truth: Mapping[tuple[int, int], Mapping[str, Any]] | None = None,
    allow_partial: bool = False,
) -> dict[str, Any]:
    """`evaluate` the first of the runs {name: predictions}, and all that puts its numbers in their place.

    → its result with "beside" {name: result} of the baselines (with `train` dialogs also the priors) and the
    other runs, "comparisons" {name: `compare` with that run}, "breakdowns" (`truth` as there), and "dialogs"
    {image id: its MRR}, best first. Raises UserError, naming the run, where its predictions do not fit.
    """
    dialogs, columns = list(dialogs), {}
    for name, entries in runs.items():
        with naming(name):
            columns[name] = round_values(dialogs, entries, allow_partial=allow_partial)
    (name, values), *others = columns.items()
    owner = values["dialog"]
    scorers = {"random": baselines.constant_scores, "position only": baselines.position_scores}
    if train is not None:
        scorers["answer prior"] = baselines.answer_prior(train)
        scorers["question prior"] = baselines.question_prior(train)
    chosen = [dialogs[i] for i in np.unique(owner)]
    mean = {dialogs[i].image_id: float(values["mrr"][owner == i].mean()) for i in np.unique(owner)}
    return evaluate(dialogs, runs[name], allow_partial=allow_partial) | {
        "beside": {name: evaluate(chosen, scorer(chosen)) for name, scorer in scorers.items()}
        | {name: summarise(theirs) for name, theirs in others},
        "comparisons": {name: compare(values, theirs) for name, theirs in others},
        "breakdowns": breakdowns(values, dialogs, truth),
        "dialogs": dict(sorted(mean.items(), key=lambda item: -item[1])),
    }


def without(dialogs: Sequence[Dialog], predictions: Any) -> Any:
    """Predictions less those of these dialogs: a list of all can be judged on the first few (--limit)."""
    left_out = {dialog.image_id for dialog in dialogs}
    if not left_out or not isinstance(predictions, list):
        return predictions
    return [e for e in predictions if not isinstance(e, dict) or e.get("image_id") not in left_out]


def read_truth(dialogs: VisDial) -> dict[tuple[int, int], dict[str, Any]]:
    """{(image_id, round_id): {"kind", "needs_history"}}, if truth_{split}.json is beside the dialogs."""
    path = dialogs.path.parent / f"truth_{dialogs.split}.json"
    notes = read_json(path, "truth file") if path.is_file() else []
    return {(note["image_id"], n): turn for note in notes for n, turn in enumerate(note["rounds"], 1)}


def _probability(improved: float) -> str:
    """P(better) as far as the thousand resamples of `compare` tell it: all of them are not yet certainty."""
    return "> 0.999" if improved > 0.999 else "< 0.001" if improved < 0.001 else f"{improved:.3f}"


def _tables(result: Mapping[str, Any], verbose: bool) -> Iterator[tuple[str, tuple[str, ...], list[tuple]]]:
    """What was evaluated as (title, columns, rows)."""
    title = f"{counted(result['n_rounds'], 'round')} of {counted(len(result['dialogs']), 'dialog')}"
    title += f", {result['n_dense']:,} of them with dense annotations" if result["n_dense"] else ""
    rows = [(key, value, result["intervals"].get(key)) for key, value in result["metrics"].items()]
    yield title, ("metric", "value", "95 % interval"), rows
    keys = [key for key in result["metrics"] if key in plots.METRICS]
    rows = [(name, *map(other["metrics"].get, keys)) for name, other in result["beside"].items()]
    yield "beside it (mean: the mean rank, lower is better)", ("run", *keys), rows
    for other, found in result["comparisons"].items():
        rows = [
            (key, one["difference"], one["interval"], _probability(one["improved"]))
            for key, one in found.items()
        ]
        yield f"compared with {other}", ("metric", "difference", "95 % interval", "P(better)"), rows
    if verbose:
        for by, parts in result["breakdowns"].items():
            rows = [(name, part["n_rounds"], *map(part["metrics"].get, keys)) for name, part in parts.items()]
            yield f"by {by}", (by, "rounds", *keys), rows
        dialogs = [(str(image_id), mrr) for image_id, mrr in result["dialogs"].items()]
        yield "best dialogs", ("image", "mrr"), dialogs[:5]
        yield "worst dialogs", ("image", "mrr"), dialogs[:-6:-1]


def print_tables(result: Mapping[str, Any], verbose: bool = False) -> None:
    """Print what `evaluate_run` found; verbose: also by round and type, best and worst dialogs."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    def cell(value: Any) -> str:
        if isinstance(value, list):
            return " to ".join(map(cell, value))
        return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    for title, columns, rows in _tables(result, verbose):
        table = Table(box=box.SIMPLE_HEAD)
        for n, column in enumerate(columns):
            table.add_column(column, justify="right" if n else "left", no_wrap=n > 0, overflow="fold")
        for row in rows:
            table.add_row(*map(cell, row))
        print(title)
        Console(highlight=False, markup=False).print(table)


def write_page(
    path: Path, title: str, dialogs: Sequence[Dialog], predictions: list, result: Mapping[str, Any]
) -> None:
    """Write what `evaluate_run` found as one HTML page: plots, the best and the worst dialogs."""
    dialogs = list(dialogs)
    values = round_values(dialogs, predictions, allow_partial=True)
    entries = {(entry["image_id"], entry["round_id"]): entry for entry in predictions}
    by_id = {dialog.image_id: dialog for dialog in dialogs}
    ranked = [by_id[image_id] for image_id in result["dialogs"]]  # best first
    chosen = {"Best dialogs": ranked[:4], "Worst dialogs": ranked[:-5:-1]}
    browser = {heading: [(d, _ranked(d, entries)) for d in own] for heading, own in chosen.items()}
    counts = {said: dict.fromkeys(("yes", "no", "something else"), 0) for said in ("yes", "no")}
    for dialog in dialogs:
        for turn, entry, _ in _ranked(dialog, entries):
            if said := polarity(turn.answer):
                counts[said][polarity(turn.options[entry["ranks"].index(1)]) or "something else"] += 1
    figures = {
        "ranks": plots.rank_cdf({"this run": values["mean"]}),
        "rounds": plots.round_curves(result["breakdowns"]["round"]),
        "yes or no": plots.confusion(counts),
    }
    if "ndcg" in values:
        dense = ~np.isnan(values["ndcg"])
        mrr = [result["dialogs"][dialogs[i].image_id] for i in values["dialog"][dense]]
        figures["agreement"] = plots.agreement(mrr, values["ndcg"][dense])
    page = {"title": title, "result": result, "figures": figures, "counts": counts, "browser": browser}
    write_text(path, render("evaluation.html", version=__version__, probability=_probability, **page))


def _ranked(dialog: Dialog, entries: Mapping[tuple[int, int], Mapping]) -> list[tuple[Round, Mapping, list]]:
    """(round, its entry, [(rank, option's place)]) of every round: the ten best options and the human one."""
    found = []
    for turn in dialog.rounds:
        if entry := entries.get((dialog.image_id, turn.round_id)):
            order = sorted((rank, place) for place, rank in enumerate(entry["ranks"]))
            found.append((turn, entry, [o for o in order if o[0] <= _OPTIONS or o[1] == turn.gt_index]))
    return found
