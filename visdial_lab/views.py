"""Views: plain data in, a piece of HTML out. Escaped, without scripts, the same in a notebook and the report.

The HTML itself is in templates/*.html (Jinja2, which escapes whatever it is given); here is what it shows.
"""

import base64
import functools
import io
from collections.abc import Iterable, Mapping
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
