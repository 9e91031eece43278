"""Widgets: thin wrappers that let a hand move what `views` can draw, by core ipywidgets of the 7.7 API alone.

A widget never draws: a function from plain values to HTML does, and is tested without a browser. Here its
arguments get controls. Where nobody can move anything (GitHub, a page made from the notebook, a run without
a browser) the first picture is shown, as HTML.
"""

from collections.abc import Callable, Mapping
from typing import Any

from visdial_lab.views import training_plot


class Live:
    """What a notebook shows for a cell: controls over HTML where they work, the first HTML elsewhere.

    Both travel in one output: a viewer that knows Jupyter's widgets takes those, any other the HTML.
    box: the ipywidgets box on the screen; html: its HTML widget, whose value is what is seen now.
    """

    def __init__(self, box: Any, html: Any, first: str) -> None:
        self.box, self.html, self._first = box, html, first

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        return {
            "text/plain": "a widget: run the cell in Jupyter to move it",
            "text/html": self._first,
            "application/vnd.jupyter.widget-view+json": view,
        }


def live(draw: Callable[..., str], controls: Mapping[str, Any]) -> Live:
    """Show draw(**values of the controls) as HTML, anew whenever one of them changes.

    draw: plain values in, HTML out, such as the functions of `views`; what it raises is shown in its place.
    controls: {name of an argument: an ipywidgets control}, in the order in which they are to stand.
    """
    import ipywidgets
    from markupsafe import escape

    def drawn() -> str:
        try:
            return draw(**{name: control.value for name, control in controls.items()})
        except Exception as error:  # of a student's function, say: the widget lives on
            return f"<p role='alert'><b>{escape(type(error).__name__)}</b>: {escape(error)}</p>"

    html = ipywidgets.HTML(drawn())

    def redraw(change: Any) -> None:
        html.value = drawn()

    for control in controls.values():
        control.observe(redraw, names="value")
    return Live(ipywidgets.VBox([*controls.values(), html]), html, html.value)


def live_loss() -> tuple[Live, Callable[[int, int, float, float, float], None]]:
    """A loss curve that grows while training: (what to show before it begins, `on_log` for `finetune`).

    Elsewhere it stays empty, and says so: what a finished training has left, `plots.loss_curve` draws.
    """
    import ipywidgets

    rows: list[dict[str, float]] = []
    html = ipywidgets.HTML(training_plot(rows), layout=ipywidgets.Layout(width="100%"))

    def on_log(step: int, total: int, loss: float, learning_rate: float, seconds_left: float) -> None:
        rows.append({"step": step, "loss": loss, "learning_rate": learning_rate})
        html.value = training_plot(rows, total, seconds_left)

    return Live(
        ipywidgets.VBox([html]), html, "<p><i>Here, in Jupyter, the loss is drawn while it falls.</i></p>"
    ), on_log
