"""Views: plain data in, a piece of HTML out. Escaped, without scripts, the same in a notebook and the report.

The HTML itself is in templates/*.html (Jinja2, which escapes whatever it is given); here is what it shows.
"""

import base64
import functools
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from visdial_lab.diagrams import folded
from visdial_lab.errors import counted
from visdial_lab.metrics import exact_match, ndcg, ranks_from_scores
from visdial_lab.plots import METRICS, OTHER_RUN, RUNS
from visdial_lab.visdial import Dialog, Round, thumbnail_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def metric_table(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a run with its metrics, 95 % intervals in small print, bars for MRR and NDCG.

    runs: {name: {"metrics": {key: value}, "intervals": {key: [low, high]}}}; what is missing is left out.
    """
    names = [name for name in RUNS if name in runs] + [name for name in runs if name not in RUNS]
    keys = [key for key in METRICS if any(key in run["metrics"] for run in runs.values())]
    return render("metric_table.html", runs={name: runs[name] for name in names}, keys=keys)


def dialog_card(dialog: Dialog, columns: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """A dialog with its picture; for each round what the human and each model said, and where the human
    answer ranked.

    columns: {"before": {round_id: {"answer": text, "rank": from 1, "reminder": text}}, "after": …}; each may
    be missing.
    """
    return render("dialog_card.html", dialog=dialog, columns=columns)


def chat_card(
    dialog: Dialog, columns: Mapping[str, Iterable[tuple[str, str]]], problem: str | None = None
) -> str:
    """A picture, and beside it what each model was asked about it so far and said.

    columns: {"before": [(question, answer), …], …}. problem: what went wrong with the last question, if so.
    """
    return render("chat_card.html", dialog=dialog, columns=columns, problem=problem)


def ranking_card(
    turn: Round,
    scores: Mapping[str, np.ndarray],
    usual: Mapping[str, np.ndarray] | None = None,
    changed: str = "",
    top: int = 5,
) -> str:
    """The best candidates of a round as each model sorts them, and where it puts the human answer.

    scores: {run: [options], higher = better}. usual: the same before something was `changed` (in words, such
    as "no picture"); every candidate then says how many places it moved.
    """
    columns = {}
    for name, own in scores.items():
        ranks = ranks_from_scores(own)
        before = ranks if usual is None else ranks_from_scores(usual[name])
        share = np.exp(own - np.max(own))
        share /= share.sum()
        shown = np.argsort(ranks)[:top].tolist()
        if turn.gt_index not in shown:
            shown.append(turn.gt_index)
        columns[name] = {
            "rank": ranks[turn.gt_index],
            "before": before[turn.gt_index],
            "rows": [
                {
                    "option": turn.options[i],
                    "rank": ranks[i],
                    "moved": int(before[i] - ranks[i]),
                    "share": share[i],
                    "human": i == turn.gt_index,
                    "apart": ranks[i] > top + 1,
                }
                for i in shown
            ],
        }
    return render("ranking_card.html", turn=turn, columns=columns, changed=changed)


def two_metrics_card(turn: Round, ranks: Sequence[int]) -> str:
    """What MRR and what NDCG says about one ranking of an annotated round, and the places that they look at.

    ranks: from 1, of each option. Shown are all places that count for NDCG and the human answer's.
    """
    order, human = np.argsort(ranks), turn.gt_index
    k = int(np.count_nonzero(turn.relevance))
    shown = order[: k + 1].tolist()
    shown += [human] * (human not in shown)
    rows = [
        {"place": ranks[i], "option": turn.options[i], "relevance": turn.relevance[i], "human": i == human}
        for i in shown
    ]
    value = ndcg(-np.asarray(ranks)[None], [turn.relevance])
    places = sorted(np.asarray(ranks)[np.flatnonzero(turn.relevance)].tolist())
    return render("two_metrics.html", turn=turn, rank=ranks[human], ndcg=value, places=places, rows=rows)


def token_strip(pairs: Iterable[tuple[str, bool]]) -> str:
    """Tokens one after the other, those that carry loss on a blue ground. pairs: (token, does it?).

    A picture's many tokens are one box, which says how many they are.
    """
    return render("token_strip.html", boxes=folded(pairs))


def turn_card(
    pairs: Iterable[tuple[str, bool]], typed: Sequence[tuple[str, bool]], passed: Sequence[tuple[str, bool]]
) -> str:
    """A turn that somebody typed: all its tokens, and what became of control tokens in the question.

    pairs: (token, does it carry loss?) of the whole turn. typed, passed: (token, is it a control token?) of
    the question as it was typed, and as it is passed on to the model.
    """
    return render("turn_card.html", pairs=list(pairs), typed=typed, passed=passed)


def guess_card(dialog: Dialog, round_id: int, find: str = "", reveal: bool = False) -> str:
    """A dialog up to a question whose answer is to be guessed among the round's candidates.

    round_id: counts from 1; one beyond the dialog's end is its last. find: shows only the candidates that
    hold it. reveal: marks the human answer, and where relevance is known sorts by it and shows it.
    """
    turn = dialog.rounds[min(max(round_id, 1), len(dialog.rounds)) - 1]
    words = " ".join(find.casefold().split())
    candidates = [
        {
            "place": place,
            "text": option,
            "human": reveal and place == turn.gt_index,
            "relevance": turn.relevance[place] if reveal and turn.relevance else None,
        }
        for place, option in enumerate(turn.options or ())
        if words in option.casefold()
    ]
    candidates.sort(key=lambda one: -(one["relevance"] or 0.0))  # stable: else as in the file
    return render(
        "guess_card.html", dialog=dialog, turn=turn, candidates=candidates, find=find.strip(), reveal=reveal
    )


def training_plot(rows: Sequence[Mapping[str, float]], total: int = 0, seconds_left: float = 0.0) -> str:
    """Training as it goes on: the loss on a logarithmic scale, the learning rate, how far, how long still.

    rows: of `finetune`'s history so far, with "step", "loss" and "learning_rate"; total: steps in all.
    """
    rows = [row for row in rows if "loss" in row]
    width, height = 600.0, 150.0  # of the plot, in the drawing's own units
    losses = [max(row["loss"], 1e-3) for row in rows]
    low, high = min([0.5, *losses]) / 1.2, max([2.0, *losses]) * 1.2
    end = max([1, total, *(row["step"] for row in rows)])
    top_rate = max([1e-12, *(row["learning_rate"] for row in rows)])

    def level(loss: float) -> float:
        return height * math.log(high / loss) / math.log(high / low)

    across = [width * row["step"] / end for row in rows]
    marks = [mark for mark in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= mark <= high]
    return render(
        "training_plot.html",
        width=width,
        height=height,
        points=list(zip(across, map(level, losses), strict=True)),
        rates=[
            (x, height * (1 - row["learning_rate"] / top_rate)) for x, row in zip(across, rows, strict=True)
        ],
        marks=[(mark, level(mark)) for mark in marks],
        last=rows[-1] if rows else None,
        total=total,
        seconds_left=seconds_left,
    )


def figure_html(figure: "Figure", alt: str) -> str:
    """A figure as a picture inside the page (SVG, so sharp at any size and the same bytes every time)."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "visdial-lab"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    source = f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return str(Markup('<img alt="{}" src="{}" style="max-width:100%;height:auto">').format(alt, source))


def render(template: str, **values: Any) -> str:
    """Fill in one of templates/*.html; a value that the template needs and is not given is an error."""
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("visdial_lab"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(METRICS=METRICS, RUNS=RUNS, OTHER_RUN=OTHER_RUN, exact_match=exact_match)
    environment.filters["counted"] = counted
    for view in (metric_table, dialog_card, figure_html, thumbnail_html, token_strip):
        # they have escaped what they show
        environment.filters[view.__name__] = lambda *values, view=view: Markup(view(*values))
    return environment
