"""Views: plain data in, a piece of HTML out. Escaped, without scripts, the same in a notebook and the report.

The HTML itself is in templates/*.html (Jinja2, which escapes whatever it is given); here is what it shows.
"""

import base64
import functools
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from visdial_lab.metrics import exact_match
from visdial_lab.plots import METRICS, OTHER_RUN, RUNS
from visdial_lab.visdial import Dialog, thumbnail_html

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


def token_strip(pairs: Iterable[tuple[str, bool]]) -> str:
    """Tokens one after the other, those that carry loss on a blue ground. pairs: (token, does it?)."""
    return render("token_strip.html", pairs=pairs)


def training_plot(rows: Sequence[Mapping[str, float]], total: int = 0, seconds_left: float = 0.0) -> str:
    """Training as it goes on: the loss on a logarithmic scale, the learning rate, how far, how long still.

    rows: of `finetune`'s history so far, with "step", "loss" and "learning_rate"; total: steps in all.
    """
    rows = [row for row in rows if "loss" in row]
    width, height = 600.0, 150.0  # of the plot, in the drawing's own units
    losses = [max(row["loss"], 1e-3) for row in rows]
    low, high = min([0.5, *losses]) / 1.2, max([2.0, *losses]) * 1.2
    end, top_rate = (
        max([1, total, *(row["step"] for row in rows)]),
        max([1e-12, *(r["learning_rate"] for r in rows)]),
    )

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
    for view in (metric_table, dialog_card, figure_html, thumbnail_html):  # they have escaped what they show
        environment.filters[view.__name__] = lambda *values, view=view: Markup(view(*values))
    return environment
