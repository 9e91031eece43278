"""Diagrams: what they say comes from what they were given, whatever its size."""

import pytest
from conftest import drawn
from PIL import Image

from visdial_lab import diagrams
from visdial_lab.chat import END, START
from visdial_lab.diagrams import PICTURE_TOKEN, folded
from visdial_lab.plots import ACCENT


def tokens(*words, learnt=False):
    return [(word, learnt) for word in words]


def turn(question, answer):
    return [
        *tokens(START, "user", "\n", *question, END, "\n", START, "model", "\n"),
        *tokens(answer, END, learnt=True),
        *tokens("\n"),
    ]


def a_dialog(pieces=16, rounds=3):
    first = tokens("<bos>", START, "user", "\n")
    picture = tokens("\n\n", "<start_of_image>", *[PICTURE_TOKEN] * pieces, "<end_of_image>", "\n\n")
    first += (picture if pieces else []) + tokens("a", " dog", "\n")
    return first + turn(["red"], "yes")[3:] + turn(["why"], "no") * (rounds - 1)


@pytest.mark.parametrize("number", [None, 1, 3, 5])
def test_the_flow_of_data_with_one_notebook_marked(number):
    figure = diagrams.data_flow(number)
    text = drawn(figure)
    for word in ("VisDial JSON", "records", "adapter", "metrics", *diagrams.NOTEBOOKS.values()):
        assert word in text
    bold = [one.get_text() for one in figure.axes[0].texts if one.get_color() == ACCENT]
    assert bold == ([diagrams.NOTEBOOKS[number]] if number else [])


def test_a_notebook_that_does_not_exist():
    with pytest.raises(ValueError, match="no notebook 6"):
        diagrams.data_flow(6)


def test_tokens_are_laid_out_a_line_a_round():
    pairs = a_dialog(pieces=16, rounds=3)
    text = drawn(diagrams.token_layout(pairs, Image.new("RGB", (30, 20)))).split("\n")
    assert f"16 × {PICTURE_TOKEN}" in text and text.count(END) == 6
    assert [name for name in text if name[:6] in ("pictur", "captio", "round ")] == [
        *("picture", "caption", "round 1", "round 2", "round 3")
    ]
    assert "16 tokens: the picture, piece by piece, row by row" in text
    assert f"6 tokens carry loss, {6 / len(pairs):.0%} of all {len(pairs)}" in text
    assert f"{len(pairs) - 22} tokens are read only" in text


def test_positions_count_every_token_of_the_picture():
    lines = list(diagrams._token_lines(a_dialog(pieces=16, rounds=3)))
    assert [(name, position) for name, position, _ in lines] == [
        *(("picture", 0), ("caption", 24), ("round 1", 27), ("round 2", 36), ("round 3", 48))
    ]
    kinds = [kind for *_, boxes in lines for *_, kind in boxes]
    assert kinds.count("picture") == 1 and kinds.count("loss") == 6


def test_long_turns_go_on_in_the_next_line():
    pairs = a_dialog(pieces=0, rounds=1) + turn([f" word{n}" for n in range(60)], "well")
    lines = list(diagrams._token_lines(pairs))
    assert [name for name, *_ in lines][:2] == ["round 1", "round 2"] and lines[-1][0] == ""
    assert sum(len(boxes) for *_, boxes in lines) == len(pairs)
    for _, position, boxes in lines:
        assert pairs[position][0].strip(" ").replace("\n", "↵") == boxes[0][2]
        assert max(x + width for x, width, *_ in boxes) <= diagrams.LONGEST


def test_text_only_models_odd_pictures_and_signs_of_mathematics():
    text = drawn(diagrams.token_layout(a_dialog(pieces=0) + turn(["$5", " or", " $6", " "], "$"), None))
    assert "piece by piece" not in text and "$5" in text
    drawn(diagrams.token_layout(a_dialog(pieces=7), Image.new("RGB", (9, 30))))  # 7 is no square: no grid
    drawn(diagrams.token_layout([]))


def test_only_long_runs_are_folded():
    pairs = [("a", False)] * 3 + [("b", False)] * 4 + [("b", True)]
    assert list(folded(pairs)) == [
        *((n, "a", 1, False) for n in range(3)),
        (3, "b", 4, False),
        (7, "b", 1, True),
    ]
