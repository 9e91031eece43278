"""An evaluated run in full: beside baselines and other runs, in parts, and as a page that stands alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visdial_lab import __version__, baselines, plots
from visdial_lab.errors import UserError
from visdial_lab.files import read_json, write_text
from visdial_lab.metrics import breakdowns, compare, evaluate, round_values
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

    → its result with "baselines" {name: result} (with `train` dialogs also the priors), "comparisons" {name:
    `compare` with that run} of the others, "breakdowns" (`truth` as there), "dialogs" {image id: its MRR},
    best first. Raises UserError, naming the run, where its predictions do not fit.
    """
    dialogs, columns = list(dialogs), {}
    for name, entries in runs.items():
        try:
            columns[name] = round_values(dialogs, entries, allow_partial=allow_partial)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    (name, values), *others = columns.items()
    owner = values["dialog"]
    scorers = {"random": baselines.constant_scores, "position only": baselines.position_scores}
    if train is not None:
        scorers["answer prior"] = baselines.answer_prior(train)
        scorers["question prior"] = baselines.question_prior(train)
    chosen = [dialogs[i] for i in np.unique(owner)]
    mean = {dialogs[i].image_id: float(values["mrr"][owner == i].mean()) for i in np.unique(owner)}
    return evaluate(dialogs, runs[name], allow_partial=allow_partial) | {
        "baselines": {name: evaluate(chosen, scorer(chosen)) for name, scorer in scorers.items()},
        "comparisons": {name: compare(values, theirs) for name, theirs in others},
        "breakdowns": breakdowns(values, dialogs, truth),
        "dialogs": dict(sorted(mean.items(), key=lambda item: -item[1])),
    }


def read_truth(dialogs: VisDial) -> dict[tuple[int, int], dict[str, Any]]:
    """{(image_id, round_id): {"kind", "needs_history"}}, if truth_{split}.json is beside the dialogs."""
    path = dialogs.path.parent / f"truth_{dialogs.split}.json"
    notes = read_json(path, "truth file") if path.is_file() else []
    return {(note["image_id"], n): turn for note in notes for n, turn in enumerate(note["rounds"], 1)}


def write_page(
    path: Path,
    title: str,
    dialogs: Sequence[Dialog],
    predictions: list,
    result: Mapping[str, Any],
    chosen: Mapping[str, Sequence[int]],
) -> None:
    """Write what `evaluate_run` found as one HTML page with plots. chosen: {heading: image ids} to browse."""
    by_id = {dialog.image_id: dialog for dialog in dialogs}
    entries = {(entry["image_id"], entry["round_id"]): entry for entry in predictions}
    browser = {
        heading: [(by_id[i], _ranked(by_id[i], entries)) for i in ids] for heading, ids in chosen.items()
    }
    figures = list(_figures(list(by_id.values()), entries, result))
    page = {"title": title, "result": result, "figures": figures, "browser": browser, "version": __version__}
    write_text(path, render("evaluation.html", **page))


def _ranked(dialog: Dialog, entries: Mapping[tuple[int, int], Mapping]) -> list[tuple[Round, Mapping, list]]:
    """(round, its entry, [(rank, option's place)]) of every round: the ten best options and the human one."""
    found = []
    for turn in dialog.rounds:
        if entry := entries.get((dialog.image_id, turn.round_id)):
            order = sorted((rank, place) for place, rank in enumerate(entry["ranks"]))
            found.append((turn, entry, [o for o in order if o[0] <= _OPTIONS or o[1] == turn.gt_index]))
    return found


def _figures(dialogs: list[Dialog], entries: Mapping, result: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """Every figure with what it shows in a sentence."""
    values = round_values(dialogs, list(entries.values()), allow_partial=True)
    first, ten = (f"{result['metrics'][key]:.0%}" for key in ("r@1", "r@10"))
    yield (
        plots.rank_cdf({"this run": values["mean"]}),
        f"First in {first} of rounds, among ten in {ten}.",
    )
    rounds = result["breakdowns"]["round"]
    ends = [
        (place, f"{rounds[place]['metrics']['mrr']:.2f}")
        for place in (min(rounds, key=int), max(rounds, key=int))
    ]
    yield (
        plots.round_curves(rounds),
        "MRR: " + ", ".join(f"{mrr} in round {place}" for place, mrr in ends) + ".",
    )
    counts = {said: {"yes": 0, "no": 0, "something else": 0} for said in ("yes", "no")}
    for dialog in dialogs:
        for turn in dialog.rounds:
            said, entry = polarity(turn.answer or ""), entries.get((dialog.image_id, turn.round_id))
            if said and entry:
                counts[said][polarity(turn.options[entry["ranks"].index(1)]) or "something else"] += 1
    if total := sum(sum(row.values()) for row in counts.values()):
        right = counts["yes"]["yes"] + counts["no"]["no"]
        yield (
            plots.confusion(counts),
            f"Right in {right:,} of {total:,} rounds that a person answered yes or no.",
        )
    dense = np.flatnonzero(~np.isnan(values.get("ndcg", np.array([np.nan]))))
    if len(dense):
        mrr = [result["dialogs"][dialogs[i].image_id] for i in values["dialog"][dense]]
        apart = sum(gain >= 0.8 and own <= 0.4 for gain, own in zip(values["ndcg"][dense], mrr, strict=True))
        yield (
            plots.agreement(mrr, values["ndcg"][dense]),
            f"{apart:,} of {len(dense):,} dialogs have an NDCG of 0.8 or more and an MRR of 0.4 or less.",
        )
