"""Grading a pile of submissions: each in a sandbox of its own, results kept by content, grades and pages.

What a result was made from (the submission's bytes, the problem set, this library, the limits) is hashed; a
second run grades only what has changed.
"""

import csv
import dataclasses
import datetime
import hashlib
import io
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from visdial_lab import __version__
from visdial_lab.errors import UserError, WorkFailed, listed
from visdial_lab.files import check_replaceable, read_json, write_json, write_text
from visdial_lab.grading.feedback import write_pages
from visdial_lab.grading.problem_sets import (
    TEXT_STUB,
    ProblemSet,
    exercise_of,
    load,
    of_another,
    overlay,
    stub,
)
from visdial_lab.grading.sandbox import choose
from visdial_lab.grading.scoring import Sessions, score
from visdial_lab.grading.similarity import similar_pairs
from visdial_lab.grading.submissions import Submission, cells_of, collect
from visdial_lab.grading.walls import PACKAGE, Limits
from visdial_lab.progress import Progress, quiet

_MAX_CELLS = 500
_OURS = {"results", "grades.csv", "grades.json", "index.html", "feedback"}
_Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Lateness:
    """Handed in after `due`: so many days are free, every further one begun costs `penalty` percent."""

    due: datetime.datetime | None = None
    free_days: int = 0
    penalty: float = 0.0

    def days(self, handed_in: datetime.datetime | None) -> int:
        """Days late, each one begun counted."""
        if self.due is None or handed_in is None:
            return 0
        return max(0, math.ceil((handed_in - self.due) / datetime.timedelta(days=1)))

    def factor(self, days: int) -> float:
        """What is left of the score."""
        return max(0.0, 1 - self.penalty / 100 * max(0, days - self.free_days))


def grade(
    source: Path,
    assignment: str,
    output: Path,
    jobs: int = 1,
    resume: bool = True,
    rung: str | None = None,
    unsafe: bool = False,
    limits: Limits | None = None,
    lateness: Lateness | None = None,
    solutions: Path | None = None,
    marks: dict[str, dict[str, _Result]] | None = None,
    progress: Progress = quiet,
) -> list[_Result]:
    """Grade everything in `source`; writes grades.csv, grades.json, index.html and feedback/ into `output`.

    marks: what was given by hand, from `gradebook.marks_by_hand`. Returns the results, sorted by student.
    Raises UserError when there is nothing to grade, no sandbox that holds and not `unsafe`, or `output` holds
    other things than an earlier grading; WorkFailed when the reference solution itself fails.
    """
    given, limits, lateness = load(assignment, solutions), limits or Limits(), lateness or Lateness()
    found = collect(source, assignment)
    _check_output(output)
    made_from = _made_from(given, limits)
    kept = {entry.student: _kept(output, entry, made_from) if resume else None for entry in found}
    missing = [entry for entry in found if kept[entry.student] is None]
    if any(entry.problem is None for entry in missing):
        secret = tuple(path.resolve() for path in (source, output, given.folder.parent))
        rung = choose(rung, unsafe, secret)
    progress(len(found) - len(missing), len(found))
    for entry, result, slow in _graded(given, missing, rung, limits, jobs):
        if entry is not None:
            if not result.pop("again", False):
                write_json(_place(output, entry), {"made_from": _key(made_from, entry), "result": result})
            kept[entry.student] = result
        progress(sum(one is not None for one in kept.values()), len(found), slow)
    results = [_with_lateness(kept[entry.student], entry, lateness, marks or {}) for entry in found]
    _write(given, results, output)
    return results


def _graded(
    given: ProblemSet, entries: list[Submission], rung: str | None, limits: Limits, jobs: int
) -> Iterator[tuple[Submission | None, _Result | None, str]]:
    """Give (submission, result, who is slow) as they are finished, `jobs` at a time, each worker with a
    reference; (None, None, who is slow) for every second in which none was."""
    began: dict[str, float] = {}  # student → when the work on it began, as long as it goes on

    def work(entry: Submission) -> _Result:
        began[entry.student] = time.monotonic()
        try:
            return grade_one(given, entry, sessions)
        finally:
            del began[entry.student]

    with Sessions(given, rung, limits) as sessions:
        pool = ThreadPoolExecutor(jobs)
        try:
            futures = {pool.submit(work, entry): entry for entry in entries}
            while futures:
                finished, _ = wait(futures, timeout=1, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield futures.pop(future), future.result(), _slow(began)
                if not finished:
                    yield None, None, _slow(began)
        finally:  # also when interrupted: nothing inside may outlive us
            pool.shutdown(wait=False, cancel_futures=True)


def _slow(began: dict[str, float]) -> str:
    """Whose notebooks have taken ten seconds or more, and how many so far: tens are enough for a log."""
    tens = {student: int(time.monotonic() - start) // 10 * 10 for student, start in began.copy().items()}
    told = [f"{student} ({seconds} s)" for student, seconds in tens.items() if seconds]
    return f"at work on {listed(told, 3)}" if told else ""


def grade_one(given: ProblemSet, entry: Submission, sessions: Sessions) -> _Result:
    """The result of one submission; whatever it does is its own affair alone."""
    if entry.problem is not None:
        return _ungraded(given, entry, entry.problem)
    reference = sessions.reference()
    try:
        cells = cells_of(entry.data)
        if len(cells) > _MAX_CELLS:
            raise UserError(f"has {len(cells):,} cells; more than {_MAX_CELLS} are not graded")
        if other := of_another(given, cells):
            raise UserError(f"is a notebook of {other}, not of {given.name}")
    except UserError as error:
        return _ungraded(given, entry, str(error))
    to_run, notes = overlay(given, cells)
    try:
        with sessions.student(to_run) as student:
            tests = score(given, student, reference, f"{given.name} {entry.student}")
            problems = student.problems
    except WorkFailed as failed:  # the machine's fault, not the student's
        return _ungraded(given, entry, f"could not be graded: {failed}") | {"again": True}
    return _result(given, entry, tests, notes) | {
        "rung": sessions.rung,
        "cells": [{"cell": name, **problem} for name, problem in problems.items()],
        "answers": {exercise_of(c): dict(to_run)[c.id] for c in given.cells if c.role == "answer"},
        "open": _open(given, cells),
    }


def _open(given: ProblemSet, cells: list[_Result]) -> list[_Result]:
    """The open questions: what each is worth, and whether there is something to mark."""
    written = {cell["id"] for cell in cells if cell["source"].strip() not in ("", TEXT_STUB)}
    return [{"id": n, "points": points, "answered": n in written} for n, points in given.open.items()]


def _ungraded(given: ProblemSet, entry: Submission, problem: str) -> _Result:
    said = {"earned": 0.0, "said": "was not run", "detail": "was not run"}
    fields = ("exercise", "name", "goal", "points", "visible")
    tests = [{key: getattr(test, key) for key in fields} | said for test in given.tests]
    blank = {"rung": None, "cells": [], "answers": {}, "open": _open(given, [])}
    return _result(given, entry, tests, []) | blank | {"problem": problem}


def _result(given: ProblemSet, entry: Submission, tests: list[_Result], notes: list[str]) -> _Result:
    return {
        "student": entry.student,
        "file": entry.file_name,
        "assignment": given.name,
        "problem": None,
        "notes": [*entry.notes, *notes],
        "earned": sum(test["earned"] for test in tests),
        "max": sum(given.exercises.values()),
        "tests": tests,
    }


# ---- what is kept


def _made_from(given: ProblemSet, limits: Limits) -> str:
    digest = hashlib.sha256(json.dumps([__version__, dataclasses.asdict(limits)]).encode())
    for path in (given.source, given.folder / "hidden.py", *sorted(PACKAGE.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _key(made_from: str, entry: Submission) -> str:
    what = json.dumps([made_from, entry.student, entry.problem, entry.notes])
    return hashlib.sha256(what.encode() + entry.data).hexdigest()


def _place(output: Path, entry: Submission) -> Path:
    return output / "results" / f"{entry.file_name}.json"


def _kept(output: Path, entry: Submission, made_from: str) -> _Result | None:
    path = _place(output, entry)
    try:
        kept = read_json(path) if path.is_file() else {}
    except UserError:  # damaged: grade again
        return None
    return kept["result"] if kept.get("made_from") == _key(made_from, entry) else None


def _check_output(output: Path) -> None:
    """Raise UserError unless a folder that is there is empty or an earlier grading, be it one that was
    stopped: that one has left results, and nothing that is not ours."""
    if output.is_dir():
        names = {path.name for path in output.iterdir() if not path.name.startswith(".")}
        if not names or ("results" in names and names <= _OURS):
            return
    check_replaceable(output, "grades.json")


# ---- what is written


def _with_lateness(
    result: _Result, entry: Submission, lateness: Lateness, marks: dict[str, dict[str, _Result]]
) -> _Result:
    """The result with what is left after late days, and with the marks given by hand, once all are there."""
    days = lateness.days(entry.handed_in)
    factor = lateness.factor(days)
    handed_in = entry.handed_in and entry.handed_in.isoformat(timespec="seconds")
    given = marks.get(result["file"], {})
    opened = [part | given.get(part["id"], {"mark": None, "comment": None}) for part in result["open"]]
    marked = [part["mark"] for part in opened if part["mark"] is not None]
    by_hand = round(sum(marked) * factor, 4) if len(marked) == len(opened) else None
    score = round(result["earned"] * factor, 4)
    late = {"days_late": days, "score": score, "by_hand": by_hand, "handed_in": handed_in}
    return result | late | {"open": opened}


def _write(given: ProblemSet, results: list[_Result], output: Path) -> None:
    answers = {result["student"]: result["answers"] for result in results}
    known = {
        exercise_of(cell): (cell.source, stub(cell.source)) for cell in given.cells if cell.role == "answer"
    }
    pairs = similar_pairs(answers, known)
    write_text(output / "grades.csv", _table(results))
    document = {"assignment": given.name, "visdial_lab": __version__, "similar": pairs}
    told = [{key: value for key, value in result.items() if key != "answers"} for result in results]
    write_json(output / "grades.json", document | {"results": told})
    write_pages(output, given.name, results, pairs)


def _table(results: list[_Result]) -> str:
    """grades.csv. The mark at its start is for spreadsheets; what they take for a formula is quoted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["student", "score", "max", "percent", "open", "open max", "total", "days late", "note"]
    writer.writerow(head)
    for result in results:
        percent = 100 * result["score"] / result["max"] if result["max"] else 0
        note = result["problem"] or "; ".join(result["notes"])
        row = [result["student"], f"{result['score']:g}", f"{result['max']:g}", f"{percent:.1f}"]
        by_hand = result["by_hand"]  # None: not marked yet
        row += ["" if by_hand is None else f"{by_hand:g}", f"{sum(p['points'] for p in result['open']):g}"]
        row += ["" if by_hand is None else f"{result['score'] + by_hand:g}", result["days_late"], note]
        writer.writerow([f"'{cell}" if str(cell)[:1] in tuple("=+-@\t\r") else cell for cell in row])
    return "\ufeff" + text.getvalue()
