"""Widgets without a browser: a control moved in Python redraws; what cannot move shows its first picture."""

import ipywidgets as widgets

from visdial_lab.widgets import chat, live, live_loss, stacked


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


def talk(reply, first=""):
    """A chat with two models that draws what it was told as plain text."""
    scene = widgets.IntSlider(max=9)
    shown = chat(lambda *told: repr(told), reply, ["before", "after"], scene, first)
    _, field, anew = shown.controls
    return shown, scene, field, anew


def test_each_model_has_a_history_of_its_own():
    shown, _, field, _ = talk(lambda name, scene, turns: f"{name} {len(turns)}")
    field.value = "is it red"
    field.value = " and now "
    assert field.value == "", "ready for the next question"
    told = {name: [("is it red", f"{name} 1"), ("and now", f"{name} 2")] for name in ("before", "after")}
    assert shown.html.value == repr((0, told, None))


def test_the_same_question_can_be_asked_again_and_nothing_is_no_question():
    shown, _, field, _ = talk(lambda name, scene, turns: "yes")
    for text in ("why", "why", "   "):
        field.value = text
    assert shown.html.value.count("why") == 4, "twice, two models"


def test_a_new_scene_and_the_button_begin_anew():
    shown, scene, field, anew = talk(lambda name, place, turns: f"{place}", first="who is it")
    assert shown.html.value.count("who is it") == 2 and shown._first == shown.html.value
    scene.value = 3
    empty = {"before": [], "after": []}
    assert shown.html.value == repr((3, empty, None))
    field.value = "who"
    assert "('who', '3')" in shown.html.value
    anew.click()
    assert shown.html.value == repr((3, empty, None))


def test_a_question_that_fails_is_told_and_leaves_no_trace():
    def reply(name, scene, turns):
        if turns[-1][0] == "boom" and name == "after":
            raise ValueError("too <long>")
        return "fine"

    shown, _, field, _ = talk(reply)
    field.value = "boom"
    assert shown.html.value == repr((0, {"before": [], "after": []}, "ValueError: too <long>"))
    field.value = "hello"
    assert "None)" in shown.html.value and shown.html.value.count("fine") == 2


def test_stacked_parts_share_a_control_and_a_static_picture():
    scene, number = widgets.IntSlider(max=9), widgets.IntSlider(max=3)
    upper = live(lambda scene: f"<b>{scene}</b>", {"scene": scene})
    lower = live(lambda scene, number: f"<i>{scene + number}</i>", {"scene": scene, "number": number})
    both = stacked(upper, lower)
    assert list(both.box.children) == [scene, upper.html, number, lower.html]
    scene.value = 4
    assert (upper.html.value, lower.html.value) == ("<b>4</b>", "<i>4</i>")
    assert both._repr_mimebundle_()["text/html"] == "<b>0</b><i>0</i>"


def test_the_loss_is_drawn_as_training_tells_of_it():
    plot, on_log = live_loss()
    assert "waiting" in plot.html.value
    on_log(10, 40, 5.0, 1e-3, 30.0)
    on_log(20, 40, 0.5, 5e-4, 20.0)
    assert "step 20 of 40" in plot.html.value and plot.html.value.count("<circle") == 2
    assert plot._repr_mimebundle_()["text/html"].startswith("<p>")
    again, _ = live_loss()
    assert "waiting" in again.html.value, "each training has a plot of its own"
