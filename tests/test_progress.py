"""Lines when there is news, a bar on a terminal."""

import sys

from visdial_lab import progress as module
from visdial_lab.progress import progress


def test_a_line_for_news_and_for_the_end_only(capsys, monkeypatch):
    monkeypatch.setattr(module.time, "monotonic", iter([0, 1, 2, 3, 14, 15, 16]).__next__)
    with progress("counting") as update:
        for done, note in ((1, ""), (2, ""), (3, "odd"), (4, "odd"), (5, "odd"), (5, "odd")):
            update(done, 5, note)
    assert capsys.readouterr().err.splitlines() == [
        "counting: 1 of 5, 1 s",
        "counting: 3 of 5, 3 s, 2 s to go, odd",
        "counting: 4 of 5, 14 s, 4 s to go, odd",
        "counting: 5 of 5, 15 s, odd",
    ]


def test_the_log_repeats_itself_when_there_is_no_other_news(capsys, monkeypatch):
    clock = iter([0.0, 100.0, 101.0, 102.0, 131.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("pipeline") as update:
        update(3, 9, "04_inference")
        update(3, 9, "04_inference")  # too soon
        update(3, 9, "04_inference: 40 of 150 dialogs")
        update(3, 9, "04_inference: 40 of 150 dialogs")  # half a minute later
    assert capsys.readouterr().err.splitlines() == [
        "pipeline: 3 of 9, 100 s, 04_inference",
        "pipeline: 3 of 9, 102 s, 04_inference: 40 of 150 dialogs",
        "pipeline: 3 of 9, 131 s, 04_inference: 40 of 150 dialogs",
    ]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("counting") as update:
        update(2, 3, "note [x]")
    seen = capsys.readouterr()
    assert "counting" in seen.err and "2/3" in seen.err and "note [x]" in seen.err and not seen.out
