"""Figures: plain data in, a matplotlib Figure out. Nothing is shown or saved here; pyplot is never touched.

Every figure has a white face, so that it reads the same on a light page and on a dark one.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from visdial_lab.visdial import Dialog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#2b303a", "#9aa3b2", "#e6e9ee"
ACCENT, ORANGE, GREEN, PURPLE = "#2f6fde", "#e08e45", "#3a9d6e", "#8e6bbf"
RUNS = {  # each run in the order of tables: its colour in every figure and table, and what it means
    "random": ("#d5d9e0", "all candidates in random order"),
    "position only": ("#ccd1da", "by place in the list, which in VisDial leaks popularity"),
    "answer prior": ("#c3c9d4", "the commonest answers first, whatever is asked"),
    "question prior": ("#b0b8c6", "the commonest answers to questions that begin alike"),
    "before": ("#8d99ae", "the base model, not fine-tuned"),
    "blind": (ORANGE, "fine-tuned, but shown a gray picture"),
    "forgetful": (PURPLE, "fine-tuned, but not shown the rounds before"),
    "after": (ACCENT, "fine-tuned with QLoRA"),
    "this run": (ACCENT, ""),
    "oracle": (GREEN, "knows what is in the scene, not which wording this person chose"),
}
OTHER_RUN = (FAINT, "")
METRICS = {"mrr": "MRR", "ndcg": "NDCG", "r@1": "R@1", "r@5": "R@5", "r@10": "R@10", "mean": "mean rank"}


def new_figure(
    width: float, height: float, *titles: str, rows: int = 1, **options: Any
) -> tuple["Figure", list]:
    """A figure of width by height inches with a quiet panel for each title, side by side or in rows.

    options: as for matplotlib's `subplots`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")
    panels = list(figure.subplots(rows, -(-len(titles) // rows), squeeze=False, **options).flat)
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=INK, labelsize=9, length=3)
        axes.xaxis.label.set(color=INK, fontsize=10)
        axes.yaxis.label.set(color=INK, fontsize=10)
    return figure, panels


def counts(values: Mapping[str, float], title: str = "", axes: Any = None) -> "Figure":
    """Named numbers as horizontal bars, in the order given; floats are fractions and written as per cent.

    axes: draw there instead of in a figure of its own.
    """
    if axes is None:
        _, (axes,) = new_figure(6.4, 0.5 + 0.27 * len(values), title)
    whole = all(isinstance(value, int) for value in values.values())
    bars = axes.barh(list(values), list(values.values()), color=ACCENT, height=0.72)
    axes.bar_label(bars, fmt="{:,.0f}" if whole else "{:.1%}", padding=3, fontsize=8.5)
    axes.invert_yaxis()  # the first on top
    axes.set(xmargin=0.14, xticks=[])
    axes.tick_params(length=0)
    axes.spines.bottom.set_visible(False)
    return axes.figure


def question_kinds(dialogs: Iterable[Dialog], top: int = 14) -> "Figure":
    """How questions begin: share of the `top` commonest first two words. Works for any VisDial data."""
    openings = Counter(" ".join(turn.question.split()[:2]) for d in dialogs for turn in d.rounds)
    total = openings.total()
    shares = {f"{words} …": count / total for words, count in openings.most_common(top)}
    return counts(shares, f"how the {total:,} questions begin")


def lengths(dialogs: Iterable[Dialog]) -> "Figure":
    """Words a caption, a question, an answer: three histograms on one scale."""
    texts: dict[str, list[str]] = {"caption": [], "question": [], "answer": []}
    for dialog in dialogs:
        texts["caption"].append(dialog.caption)
        texts["question"] += [turn.question for turn in dialog.rounds]
        texts["answer"] += [turn.answer for turn in dialog.rounds if turn.answer is not None]
    return word_counts(texts)


def word_counts(texts: Mapping[str, Sequence[str]]) -> "Figure":
    """Histograms of how many words texts have, on one scale. texts: {name: texts}, up to three names."""
    words = {name: [len(text.split()) for text in own] for name, own in texts.items()}
    titles = [f"{name}: {np.mean(values):.1f} on average" for name, values in words.items()]
    figure, panels = new_figure(2.8 * len(words), 2.4, *titles, sharex=True)
    edges = np.arange(0.5, max(map(max, words.values())) + 1)
    for axes, values, color in zip(panels, words.values(), (FAINT, ACCENT, GREEN), strict=False):
        axes.hist(values, bins=edges, weights=np.full(len(values), 1 / len(values)), color=color, rwidth=0.86)
        axes.set(xlabel="words")
        axes.yaxis.set_major_formatter("{x:.0%}")
    return figure


def answer_popularity(dialogs: Iterable[Dialog], top: int = 14) -> "Figure":
    """The commonest answers, and how much of all answers the k commonest cover."""
    tally = Counter(turn.answer for d in dialogs for turn in d.rounds if turn.answer is not None)
    shares = {answer: count / tally.total() for answer, count in tally.most_common()}
    different = len(shares)
    titles = f"commonest of {different:,} different answers", "share of all answers that they cover"
    figure, (left, right) = new_figure(8.4, 3.4, *titles)
    counts(dict(itertools.islice(shares.items(), top)), axes=left)
    right.plot(np.cumsum([0, *shares.values()]), color=ACCENT, lw=2)
    right.set_xscale("symlog", linthresh=1)
    right.set_xticks([1, 10, 100, different], ["1", "10", "100", f"{different:,}"])
    right.set(xlabel="k commonest answers", ylim=(0, 1.02))
    right.yaxis.set_major_formatter("{x:.0%}")
    right.grid(axis="y", color=GRID)
    return figure


def loss_curve(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Training loss (and validation loss where it was measured) over the steps. history: rows of `finetune`.

    Each row has "step" and "loss" or "eval_loss": mean of -log p a supervised token, in nats. The scale is
    logarithmic: the first steps' cliff would hide all that comes after it. With `training.negatives` that
    part is its "answer_loss", and "contrastive_loss" is drawn beside it.
    """
    figure, (axes,) = new_figure(6.8, 3.0, "")
    history = [row | {"loss": row["answer_loss"]} if "answer_loss" in row else row for row in history]
    kinds = ("loss", "training", "o-", ACCENT), ("eval_loss", "validation", "s--", ORANGE)
    for key, label, style, color in (*kinds, ("contrastive_loss", "contrastive, a round", "^:", GREEN)):
        if points := [(row["step"], row[key]) for row in history if key in row]:
            axes.plot(*zip(*points, strict=True), style, color=color, lw=2, ms=4, label=label)
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if axes.lines:  # a run shorter than logging_steps has none
        axes.set_yscale("log")
        low, high = min(line.get_ydata().min() for line in axes.lines), axes.get_ylim()[1]
        marks = [mark for mark in (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10) if low / 2 <= mark <= high]
        axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=9)
    axes.grid(axis="y", color=GRID)
    return figure


def sweeps(runs: Mapping[str, Mapping[str, Any]], own: Mapping[str, str], key: str = "mrr") -> "Figure":
    """What a profile's settings do to a metric: a panel a setting, a point a value, the profile's filled.

    runs: of data/sweeps/finetuning.json, {name: {"sweep", "value", "trainable", "metrics", "minus profile"}},
    with the profile's own as "profile". own: {a sweep: the value that the profile has}, a panel each. Values
    that are no numbers stand in the order of how many numbers are trained.
    Whiskers: 95 % interval of the difference from the profile, in pairs. Band: from the worst to the best of
    the runs that differ from the profile in their seed alone. What falls below three quarters of the profile
    would flatten all else: it stands at the bottom with its number.
    """
    figure, panels = new_figure(8.6, 2.6 * -(-len(own) // 2), *own, rows=-(-len(own) // 2), sharey=True)
    middle = runs["profile"]["metrics"][key]
    seeds = [run["metrics"][key] for run in runs.values() if run["sweep"] == "seed"]
    for axes, (sweep, value) in zip(panels, own.items(), strict=False):
        points = {str(run["value"]): run for run in runs.values() if run["sweep"] == sweep}
        points[value] = runs["profile"]
        names = sorted(points, key=lambda name: (_number(name), points[name]["trainable"]))
        measured = np.array([points[name]["metrics"][key] for name in names])
        heights = np.maximum(measured, 0.75 * middle)
        gains = [points[name].get("minus profile", {}).get(key, {}).get("interval", [0, 0]) for name in names]
        whiskers = np.abs(np.transpose(gains) + middle - heights)
        whiskers[:, (heights > measured) | (np.array(names) == value)] = 0  # the profile has none from itself
        axes.axhspan(min(seeds), max(seeds), color=GREEN, alpha=0.16, lw=0)
        places = range(len(names))
        axes.errorbar(
            places, heights, whiskers, fmt="o", ms=6, color=ACCENT, mfc="white", ecolor=FAINT, lw=1.5
        )
        axes.plot(names.index(value), middle, "o", ms=7, color=ACCENT, zorder=3)
        for place in np.flatnonzero(heights > measured):
            axes.annotate(
                f"↓ {measured[place]:.2f}",
                (place, heights[place]),
                (9, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
            )
        axes.set_xticks(places, [name.replace(" and ", "\nand ") for name in names])
        axes.tick_params(axis="x", labelsize=8)
        axes.margins(x=0.1)
        axes.grid(axis="y", color=GRID)
    for axes in panels[::2]:
        axes.set_ylabel(METRICS[key])
    return figure


def _number(text: str) -> float:
    return float(text) if text.replace(".", "", 1).isdigit() else 0.0


def metric_bars(runs: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """MRR and NDCG of every run, with intervals as whiskers and the oracle as a line.

    runs: {name: {"metrics": {key: value}, "intervals": {key: [low, high]}}}; what is missing is left out.
    """
    names = [name for name in runs if name != "oracle"]
    colors = [RUNS.get(name, OTHER_RUN)[0] for name in names]
    figure, panels = new_figure(8.4, 0.9 + 0.36 * len(names), "MRR", "NDCG", sharey=True)
    for axes, key in zip(panels, ("mrr", "ndcg"), strict=True):
        values = np.array([runs[name]["metrics"].get(key, np.nan) for name in names])
        ends = [runs[name].get("intervals", {}).get(key, [np.nan] * 2) for name in names]
        whiskers = np.abs(np.transpose(ends) - values)
        bars = axes.barh(names, values, 0.7, color=colors, xerr=whiskers, ecolor=INK)
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the oracle's line
        axes.bar_label(bars, fmt="%.3f", padding=4, fontsize=8.5, color=INK, bbox=ground)
        if oracle := runs.get("oracle", {}).get("metrics", {}).get(key):
            above = axes.get_xaxis_transform()
            axes.axvline(oracle, color=GREEN, lw=1.6, ls="--")
            axes.text(oracle, 1.02, f"oracle {oracle:.3f}", color=GREEN, transform=above, ha="center")
        axes.set(xlim=(0, 1.1))
    panels[0].invert_yaxis()
    return figure


def rank_histogram(ranks: Mapping[str, Sequence[int]]) -> "Figure":
    """Where the human answer lands among the 100 options: share of rounds at each rank, a colour a run.

    ranks: {name of the run: ranks from 1}. The ranks are grouped in ever wider bins.
    """
    edges = (1, 2, 3, 4, 6, 11, 21, 51, 101)
    names = [f"{a}" if b == a + 1 else f"{a}–{b - 1}" for a, b in itertools.pairwise(edges)]
    figure, (axes,) = new_figure(7.6, 3.0, "")
    width = 0.82 / max(1, len(ranks))
    for place, (name, values) in enumerate(ranks.items()):
        share = np.histogram(values, bins=edges)[0] / len(values)
        left = np.arange(len(names)) + (place - (len(ranks) - 1) / 2) * width
        axes.bar(left, share, width=width * 0.94, label=name, color=RUNS.get(name, OTHER_RUN)[0])
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="rank of the human answer", ylabel="share of rounds")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(frameon=False, fontsize=9)
    return figure


def quantisation(weights: np.ndarray, levels: Sequence[float]) -> "Figure":
    """4-bit weights in two pictures: the weights' histogram over the levels, and the rounding as stairs.

    weights: any shape, each block divided by its largest absolute value, so in -1 … 1; levels: 16 numbers.
    """
    levels = np.sort(levels)
    titles = "weights, and the 16 numbers that 4 bits can name", "every weight becomes its nearest level"
    figure, (left, right) = new_figure(8.6, 3.0, *titles)
    left.hist(np.ravel(weights), bins=80, range=(-1, 1), color="#b9cdf3", density=True)
    left.vlines(levels, 0, left.get_ylim()[1], color=ACCENT, lw=1.1)
    left.set(xlabel="weight / largest of its block", yticks=[])
    edges = [-1, *(levels[1:] + levels[:-1]) / 2, 1]
    right.plot([-1, 1], [-1, 1], color=FAINT, lw=1, label="as it was")
    right.stairs(levels, edges, color=ACCENT, lw=1.8, baseline=None, label="stored in 4 bits")
    right.set(xlabel="weight before", ylabel="weight after")
    right.legend(frameon=False, fontsize=9)
    return figure


def matrices(parts: Mapping[str, np.ndarray]) -> "Figure":
    """Matrices side by side as colours (blue below 0, red above), each on a scale of its own."""
    titles = [f"{name}\n{matrix.shape[0]} by {matrix.shape[1]}" for name, matrix in parts.items()]
    figure, panels = new_figure(2.7 * len(parts), 2.9, *titles)
    for axes, matrix in zip(panels, parts.values(), strict=True):
        limit = float(np.abs(matrix).max()) or 1.0
        axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axes.axis("off")
    return figure


def pictures(dialogs: Sequence[Dialog], columns: int = 6) -> "Figure":
    """The dialogs' pictures side by side, each with its image id."""
    rows = -(-len(dialogs) // columns)
    figure, panels = new_figure(1.6 * columns, 1.75 * rows, *(str(d.image_id) for d in dialogs), rows=rows)
    for axes, dialog in itertools.zip_longest(panels, dialogs):
        axes.axis("off")
        if dialog is not None:
            axes.imshow(dialog.image())
    return figure


def rank_cdf(ranks: Mapping[str, np.ndarray]) -> "Figure":
    """Share of rounds whose human answer is among the first k of 100, for every k. ranks: {run: from 1}."""
    figure, (axes,) = new_figure(4.7, 3.0, "human answer among the first k")
    places = np.arange(1, 101)
    axes.plot(places, places / 100, color=FAINT, lw=1.5, ls="--", label="random")
    for name, values in ranks.items():
        share = np.searchsorted(np.sort(values), places, side="right") / len(values)
        axes.plot(places, share, lw=2, color=RUNS.get(name, OTHER_RUN)[0], label=name)
    axes.set(xscale="log", xlabel="k", ylim=(0, 1.02))
    axes.minorticks_off()
    axes.set_xticks([1, 5, 10, 50, 100], ["1", "5", "10", "50", "100"])
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(color=GRID, lw=0.8)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def agreement(mrr: np.ndarray, ndcg: np.ndarray) -> "Figure":
    """Each dialog as a dot: its MRR against its NDCG, both [dialogs]. Far from the corners, look closer."""
    figure, (axes,) = new_figure(4.7, 3.0, "every dialog: NDCG against MRR")
    axes.scatter(mrr, ndcg, s=26, color=ACCENT, alpha=0.4, lw=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05), xlabel="MRR", ylabel="NDCG of the annotated round")
    axes.grid(color=GRID, lw=0.8)
    return figure


def round_curves(rounds: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """MRR and R@1 along the dialog, with intervals. rounds: {"1": {"metrics", "intervals"}, "2": …}."""
    figure, (axes,) = new_figure(4.7, 3.0, "round by round")
    places = [int(place) for place in rounds]
    for key, color in (("mrr", ACCENT), ("r@1", ORANGE)):
        low, high = zip(*(part["intervals"][key] for part in rounds.values()), strict=True)
        axes.fill_between(places, low, high, color=color, alpha=0.18, lw=0)
        values = [part["metrics"][key] for part in rounds.values()]
        axes.plot(places, values, color=color, lw=2, marker="o", ms=4, label=METRICS[key])
    axes.set(xticks=places, ylim=(0, 1), xlabel="round")
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.legend(frameon=False, fontsize=9)
    return figure


def confusion(tally: Mapping[str, Mapping[str, int]]) -> "Figure":
    """What people said (rows) against what ranked first (columns), as counts on shades."""
    rows, columns = list(tally), list(next(iter(tally.values())))
    table = np.array([[tally[row][column] for column in columns] for row in rows])
    share = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    figure, (axes,) = new_figure(4.7, 3.0, "yes or no: what ranked first")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
    for (i, j), count in np.ndenumerate(table):
        color = "white" if share[i, j] > 0.65 else INK
        axes.text(j, i, f"{count:,}\n{share[i, j]:.0%}", ha="center", va="center", fontsize=9, color=color)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), [f"human: {row}" for row in rows])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure
