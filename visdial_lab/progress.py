"""What a command says while it works: a bar on a terminal, plain lines elsewhere, all on standard error."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Progress = Callable[..., None]  # progress(done, total, note=""), called by whatever takes long as it goes on


def quiet(*_: Any) -> None:
    """The Progress of a caller who wants to hear nothing."""


def say(text: str) -> None:
    """Print a message; standard output is kept for results."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Give a Progress that shows how far the work is.

    Of several processes (torchrun, accelerate launch) the first one speaks for all.
    """
    if os.environ.get("RANK", "0") != "0":
        yield quiet
        return
    if not sys.stderr.isatty():
        yield _line_by_line(what)
        return
    from rich import progress as rich
    from rich.console import Console

    counts = rich.MofNCompleteColumn(), rich.TimeElapsedColumn(), rich.TimeRemainingColumn()
    note = rich.TextColumn("{task.fields[note]}", markup=False)
    columns = rich.SpinnerColumn(), "{task.description}", rich.BarColumn(bar_width=24), *counts, note
    with rich.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, note="")
        yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)


def _line_by_line(what: str) -> Progress:
    """An update that speaks when the note changes, when all is done, and otherwise every ten seconds."""
    began, told_at, told = time.monotonic(), 0.0, (-1, None)
    first: tuple[int, float] | None = None  # where this run began: an earlier one may have done a part

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal told_at, told, first
        now = time.monotonic()
        first = first or (done, now)
        news = note != told[1] or done == total != told[0] or now - told_at > 10
        if news:
            left = ""
            if first[0] < done < total:
                left = f", {(now - first[1]) * (total - done) / (done - first[0]):.0f} s to go"
            say(f"{what}: {done} of {total}, {now - began:.0f} s{left}{note and f', {note}'}")
            told_at, told = now, (done, note)

    return update
