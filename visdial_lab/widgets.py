"""Widgets: thin wrappers that let a hand move what `views` can draw, by core ipywidgets of the 7.7 API alone.

A widget never draws: a function from plain values to HTML does, and is tested without a browser. Here its
arguments get controls. Where nobody can move anything (GitHub, a page made from the notebook, a run without
a browser) the first picture is shown, as HTML.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from visdial_lab.views import training_plot


class Live:
    """What a notebook shows for a cell: controls over HTML where they work, the first HTML elsewhere.

    Both travel in one output: a viewer that knows Jupyter's widgets takes those, any other the HTML.
    controls: what can be moved, in their order; html: the HTML widget below, whose value is what is seen now;
    box: the ipywidgets box that holds them. still: what is shown elsewhere in the place of the first HTML.
    """

    def __init__(self, controls: Sequence[Any], html: Any, still: str | None = None) -> None:
        import ipywidgets

        self.controls, self.html, self._first = list(controls), html, still or html.value
        self.box = ipywidgets.VBox([*self.controls, html])

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
    return Live(list(controls.values()), html)


def chat(
    draw: Callable[..., str], reply: Callable[..., str], names: Sequence[str], scene: Any, first: str = ""
) -> Live:
    """Talk to several models at once about the scene that is chosen; each has its own answers as history.

    draw(scene, said, problem): HTML, such as `views.chat_card` makes, from {name: [(question, answer), …]}
    and what went wrong with the last question (None: nothing). reply(name, scene, turns): a model's answer to
    the last of the pairs, whose answer is None. scene: a control; another value begins a new conversation.
    first: a question that is asked at once, so that there is something to see.
    """
    import ipywidgets

    said: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    field = ipywidgets.Text(
        description="question", placeholder="ask, then press Enter", continuous_update=False
    )
    anew = ipywidgets.Button(description="start anew", tooltip="forget what was said")
    html = ipywidgets.HTML()

    def ask(question: str) -> str | None:
        try:
            turns = {name: [*own, (question, None)] for name, own in said.items()}
            answers = {name: reply(name, scene.value, own) for name, own in turns.items()}
        except Exception as error:  # a question that the model cannot read, say: the conversation goes on
            return f"{type(error).__name__}: {error}"
        for name, answer in answers.items():
            said[name].append((question, answer))
        return None

    def asked(change: Any) -> None:
        if question := change["new"].strip():
            html.value = draw(scene.value, said, ask(question))
            field.value = ""  # the same question can be asked again

    def begin(_: Any = None) -> None:
        for own in said.values():
            own.clear()
        html.value = draw(scene.value, said, None)

    html.value = draw(scene.value, said, ask(first) if first else None)
    field.observe(asked, names="value")
    scene.observe(begin, names="value")
    anew.on_click(begin)
    return Live([scene, field, anew], html)


def stacked(*parts: Live) -> Live:
    """Several of them as one output, one below the other; a control that they share stands there once."""
    import ipywidgets

    whole = Live([], ipywidgets.HTML())
    rows: list[Any] = []
    for part in parts:
        rows += [control for control in part.controls if control not in rows] + [part.html]
        whole.controls += [control for control in part.controls if control not in whole.controls]
    whole.box.children, whole._first = rows, "".join(part._first for part in parts)
    return whole


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

    still = "<p><i>Here, in Jupyter, the loss is drawn while it falls.</i></p>"
    return Live([], html, still), on_log
