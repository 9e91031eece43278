"""Widgets without a browser: a control moved in Python redraws; what cannot move shows its first picture."""

import pytest

from visdial_lab.widgets import live, live_loss

widgets = pytest.importorskip("ipywidgets")


def test_moving_a_control_redraws():
    slider = widgets.IntSlider(max=9)
    shown = live(lambda n: f"<b>{n}</b>", {"n": slider})
    assert shown.html.value == "<b>0</b>"
    slider.value = 7
    assert shown.html.value == "<b>7</b>"


def test_one_output_holds_the_widget_and_a_static_picture():
    slider = widgets.IntSlider(max=9)
    shown = live(lambda n: f"<b>{n}</b>", {"n": slider})
    slider.value = 3
    bundle = shown._repr_mimebundle_()
    assert bundle["text/html"] == "<b>0</b>"
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.box.model_id


def test_a_failing_drawing_is_said_and_escaped_and_the_widget_lives_on():
    slider = widgets.IntSlider(max=9)

    def draw(n: int) -> str:
        if n == 1:
            raise ValueError("no <b>one</b>")
        return str(n)

    shown = live(draw, {"n": slider})
    slider.value = 1
    assert "ValueError" in shown.html.value and "&lt;b&gt;one" in shown.html.value
    slider.value = 2
    assert shown.html.value == "2"


def test_the_loss_is_drawn_as_training_tells_of_it():
    plot, on_log = live_loss()
    assert "waiting" in plot.html.value
    on_log(10, 40, 5.0, 1e-3, 30.0)
    on_log(20, 40, 0.5, 5e-4, 20.0)
    assert "step 20 of 40" in plot.html.value and plot.html.value.count("<circle") == 2
    assert plot._repr_mimebundle_()["text/html"].startswith("<p>")
    again, _ = live_loss()
    assert "waiting" in again.html.value, "each training has a plot of its own"
