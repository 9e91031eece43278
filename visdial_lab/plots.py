"""Figures: plain data in, a matplotlib Figure out. Nothing is shown or saved here; pyplot is never touched.

Every figure has a white face, so that it reads the same on a light page and on a dark one.
"""

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from visdial_lab.visdial import Dialog

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

INK, FAINT, ACCENT = "#2b303a", "#9aa3b2", "#2f6fde"
RUN_COLORS = {  # the same run has the same colour in every figure and table
    "before": "#8d99ae",
    "after": ACCENT,
    "blind": "#e08e45",
    "random": "#d5d9e0",
    "answer prior": "#c3c9d4",
    "question prior": "#b0b8c6",
    "oracle": "#3a9d6e",
}
METRICS = {"mrr": "MRR", "ndcg": "NDCG", "r@1": "R@1", "r@5": "R@5", "r@10": "R@10", "mean": "mean rank"}


def _axes(width: float, height: float, columns: int = 1, **options: Any) -> tuple["Figure", list]:
    """A figure of width by height inches with `columns` quiet axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")
    panels = list(figure.subplots(1, columns, squeeze=False, **options)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=INK, labelsize=9, length=3)
        for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
            label.set_color(INK)
            label.set_fontsize(10)
    return figure, panels


def _barh(axes: Any, counts: Mapping[str, float], color: str = ACCENT) -> None:
    """Horizontal bars, the first on top, each with its number at the end (fractions as per cent)."""
    names, values = list(counts), list(counts.values())
    bars = axes.barh(names, values, color=color, height=0.72)
    whole = all(isinstance(value, int) for value in values)
    axes.bar_label(bars, [f"{v:,.0f}" if whole else f"{v:.1%}" for v in values], padding=3, fontsize=8.5)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="both", length=0)
    axes.set_xticks([])


def counts(values: Mapping[str, float], title: str = "") -> "Figure":
    """Named numbers as horizontal bars, in the order given; floats are fractions and written as per cent."""
    figure, (axes,) = _axes(6.4, 0.5 + 0.27 * len(values))
    _barh(axes, values)
    axes.set_title(title, loc="left", fontsize=10)
    return figure


def question_kinds(dialogs: Iterable[Dialog], top: int = 14) -> "Figure":
    """How questions begin: share of the `top` commonest first two words. Works for any VisDial data."""
    openings = collections.Counter(
        " ".join(turn.question.split()[:2]) for dialog in dialogs for turn in dialog.rounds
    )
    total = sum(openings.values())
    shares = {f"{words} …": count / total for words, count in openings.most_common(top)}
    return counts(shares, f"how the {total:,} questions begin")


def lengths(dialogs: Iterable[Dialog]) -> "Figure":
    """Words a caption, a question, an answer: three histograms on one scale."""
    words: dict[str, list[int]] = {"caption": [], "question": [], "answer": []}
    for dialog in dialogs:
        words["caption"].append(len(dialog.caption.split()))
        for turn in dialog.rounds:
            words["question"].append(len(turn.question.split()))
            if turn.answer is not None:
                words["answer"].append(len(turn.answer.split()))
    longest = max(max(values) for values in words.values())
    edges = [n - 0.5 for n in range(1, longest + 2)]
    figure, panels = _axes(8.4, 2.4, columns=3, sharex=True)
    for axes, (name, values), color in zip(panels, words.items(), (FAINT, ACCENT, "#3a9d6e"), strict=True):
        axes.hist(values, bins=edges, weights=[1 / len(values)] * len(values), color=color, rwidth=0.86)
        axes.set_title(f"{name}: {sum(values) / len(values):.1f} on average", loc="left")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("words")
    return figure


def answer_popularity(dialogs: Iterable[Dialog], top: int = 14) -> "Figure":
    """The commonest answers, and how much of all answers the k commonest cover."""
    tally = collections.Counter(
        turn.answer for dialog in dialogs for turn in dialog.rounds if turn.answer is not None
    )
    total, covered = sum(tally.values()), [0]
    for _, count in tally.most_common():
        covered.append(covered[-1] + count)
    figure, (left, right) = _axes(8.4, 3.4, columns=2)
    _barh(left, {answer: count / total for answer, count in tally.most_common(top)})
    left.set_title(f"commonest of {len(tally):,} different answers", loc="left")
    right.plot(range(len(covered)), [value / total for value in covered], color=ACCENT, lw=2)
    right.set_xscale("symlog", linthresh=1)
    right.set_xticks([1, 10, 100, len(tally)], ["1", "10", "100", f"{len(tally):,}"])
    right.set_ylim(0, 1.02)
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    right.set_xlabel("k commonest answers")
    right.set_title("share of all answers that they cover", loc="left")
    right.grid(axis="y", color="#e6e9ee", lw=0.8)
    return figure


def loss_curve(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Training loss (and validation loss where it was measured) over the steps. history: rows of `finetune`.

    Each row has "step" and "loss" or "eval_loss": mean of -log p a supervised token, in nats.
    """
    figure, (axes,) = _axes(6.8, 3.0)
    for key, label, style in (
        ("loss", "training", {"color": ACCENT, "marker": "o", "ms": 3}),
        ("eval_loss", "validation", {"color": "#e08e45", "marker": "s", "ms": 5, "ls": "--"}),
    ):
        rows = [row for row in history if key in row]
        if rows:
            axes.plot([row["step"] for row in rows], [row[key] for row in rows], lw=2, label=label, **style)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a token)")
    axes.grid(axis="y", color="#e6e9ee", lw=0.8)
    if axes.lines:  # a run shorter than logging_steps has none
        axes.legend(frameon=False, fontsize=9)
    return figure


def metric_bars(
    runs: Mapping[str, Mapping[str, Any]],
    keys: Sequence[str] = ("mrr", "ndcg"),
    oracle: Mapping[str, float] | None = None,
) -> "Figure":
    """One panel a metric, one bar a run, with intervals as whiskers and the oracle as a line.

    runs: {name: {"metrics": {key: value}, "intervals": {key: [low, high]}}}; oracle: {key: value}.
    """
    oracle = dict(oracle or runs.get("oracle", {}).get("metrics", {}))
    bars = {name: run for name, run in runs.items() if name != "oracle"}
    figure, panels = _axes(4.2 * len(keys), 0.9 + 0.36 * len(bars), columns=len(keys), sharey=True)
    for axes, key in zip(panels, keys, strict=True):
        for place, (name, run) in enumerate(bars.items()):
            value = run["metrics"].get(key)
            if value is None:
                continue
            low, high = run.get("intervals", {}).get(key, (value, value))
            axes.barh(place, value, color=RUN_COLORS.get(name, FAINT), height=0.7)
            axes.plot([low, high], [place, place], color=INK, lw=1.4, solid_capstyle="butt")
            text = f"{value:.1f}" if key == "mean" else f"{value:.3f}"
            label = {"va": "center", "fontsize": 8.5, "color": INK}
            label["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the oracle's line
            axes.text(max(high, value) + 0.02 * (100 if key == "mean" else 1), place, text, **label)
        if key in oracle:
            axes.axvline(oracle[key], color=RUN_COLORS["oracle"], lw=1.6, ls="--")
            axes.set_title(f"{METRICS.get(key, key)}   (oracle {oracle[key]:.3f})", loc="left")
        else:
            axes.set_title(METRICS.get(key, key), loc="left")
        axes.set_yticks(range(len(bars)), list(bars))
        axes.set_xlim(0, None if key == "mean" else 1.1)
    panels[0].invert_yaxis()
    return figure


def rank_histogram(ranks: Mapping[str, "np.ndarray"], options: int = 100) -> "Figure":
    """Where the human answer lands among the options: share of rounds at each rank, one step line a run.

    ranks: {name of the run: array of ranks from 1}. The ranks are grouped in ever wider bins.
    """
    import numpy as np

    edges = [edge for edge in (1, 2, 3, 4, 6, 11, 21, 51) if edge <= options] + [options + 1]
    names = [f"{a}" if b == a + 1 else f"{a}–{b - 1}" for a, b in itertools.pairwise(edges)]
    figure, (axes,) = _axes(7.6, 3.0)
    width = 0.82 / max(1, len(ranks))
    for place, (name, values) in enumerate(ranks.items()):
        share = np.histogram(values, bins=edges)[0] / len(values)
        left = np.arange(len(names)) + (place - (len(ranks) - 1) / 2) * width
        axes.bar(left, share, width=width * 0.94, label=name, color=RUN_COLORS.get(name, FAINT))
    axes.set_xticks(range(len(names)), names)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("rank of the human answer")
    axes.set_ylabel("share of rounds")
    axes.legend(frameon=False, fontsize=9)
    return figure


def quantisation(weights: "np.ndarray", levels: Sequence[float]) -> "Figure":
    """4-bit weights in two pictures: the weights' histogram over the levels, and the rounding as stairs.

    weights: any shape, each block divided by its largest absolute value, so in -1 … 1; levels: 16 numbers.
    """
    import numpy as np

    levels = np.sort(np.asarray(levels, dtype=float))
    figure, (left, right) = _axes(8.6, 3.0, columns=2)
    left.hist(np.ravel(weights), bins=80, range=(-1, 1), color="#b9cdf3", density=True)
    left.vlines(levels, 0, left.get_ylim()[1], color=ACCENT, lw=1.1)
    left.set_title("weights, and the 16 numbers that 4 bits can name", loc="left")
    left.set_xlabel("weight / largest of its block")
    left.set_yticks([])
    edges = np.concatenate([[-1.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    right.plot([-1, 1], [-1, 1], color=FAINT, lw=1, label="as it was")
    right.stairs(levels, edges, color=ACCENT, lw=1.8, baseline=None, label="stored in 4 bits")
    right.set_title("every weight becomes its nearest level", loc="left")
    right.set_xlabel("weight before")
    right.set_ylabel("weight after")
    right.legend(frameon=False, fontsize=9)
    return figure


def matrices(parts: Mapping[str, "np.ndarray"]) -> "Figure":
    """Matrices side by side as colours (blue below 0, red above), each on a scale of its own."""
    import numpy as np

    figure, panels = _axes(2.7 * len(parts), 2.9, columns=len(parts))
    for axes, (name, matrix) in zip(panels, parts.items(), strict=True):
        limit = float(np.abs(matrix).max()) or 1.0
        axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axes.set_title(f"{name}\n{matrix.shape[0]} by {matrix.shape[1]}", loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    return figure


def pictures(dialogs: Sequence[Dialog], columns: int = 6) -> "Figure":
    """The dialogs' pictures side by side, each with its image id."""
    rows = -(-len(dialogs) // columns)
    figure, _ = _axes(1.6 * columns, 1.75 * rows, columns=1)
    figure.clear()
    for place, dialog in enumerate(dialogs, 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(dialog.image())
        axes.set_title(str(dialog.image_id), fontsize=8, color=INK, pad=2)
        axes.axis("off")
    return figure
