"""Scoring one notebook: its cells run in a sandbox, and every test asks the same of it and of the reference.

A cell that crashes, hangs or runs over a limit costs that cell: the sandbox is started again, the cells
before it are replayed, it is left out, and the others go on.
"""

import builtins
import contextlib
import dataclasses
import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any

from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.exercises import Test, compare, decode, draw, encode_call
from visdial_lab.grading.problem_sets import ProblemSet, with_answers
from visdial_lab.grading.sandbox import Sandbox, Stopped
from visdial_lab.grading.submissions import writable
from visdial_lab.grading.walls import Limits

_RESTARTS = 12  # of one submission
_FOR_EVER = 1e6  # seconds: the reference runs as long as there are submissions
_START_SECONDS = 120  # for the executor to be there; no code of a student runs in this time


class Session:
    """A notebook's namespace that survives crashes; a context manager. `problems`: {cell: what is wrong}."""

    def __init__(self, cells: Sequence[tuple[str, str]], rung: str, limits: Limits):
        self._cells, self._rung, self._limits = cells, rung, limits
        self._cancelled = False
        self._box: Sandbox | None = None
        self._starts, self._spent = 0, 0.0
        self._left_out: set[str] = set()
        self.problems: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def cancel(self) -> None:
        """End it from another thread."""
        self._cancelled = True
        self._stop()

    def call(self, command: dict[str, Any]) -> dict[str, Any]:
        """The reply to a call, {"value" or "error", "bytes"}. Raises Stopped when it ends the sandbox."""
        self.start()
        return self._ask(command, self._limits.call)

    def frozen(self) -> contextlib.AbstractContextManager:
        """Nothing of it runs within."""
        return self._box.frozen() if self._box else contextlib.nullcontext()

    def start(self) -> None:
        """Have all cells run, if they have not: again and again without the one that ends the sandbox."""
        while self._box is None:
            self._starts += 1
            if self._starts > _RESTARTS or self._cancelled:
                raise Stopped(f"ended its process {_RESTARTS} times")
            self._box = Sandbox(self._rung, self._limits)
            try:
                self._box.ask({"run": "", "name": "start"}, _START_SECONDS)
            except Stopped as stopped:
                words = self._box.last_words.decode(errors="replace").strip()[-300:]
                self._stop()
                raise WorkFailed(f"the sandbox does not start: {stopped} {words}") from None
            for name, code in self._cells:
                if name in self._left_out:
                    continue
                try:
                    reply = self._ask({"run": code, "name": name}, self._limits.cell)
                except Stopped as stopped:
                    self._left_out.add(name)
                    self.problems[name] = {"type": "stopped", "message": str(stopped), "line": None}
                    break
                if error := _error(reply):
                    self.problems[name] = {key: error[key] for key in ("type", "message", "line")}
                else:
                    self.problems.pop(name, None)

    def _ask(self, command: dict[str, Any], seconds: float) -> dict[str, Any]:
        left, began = self._limits.total - self._spent, time.monotonic()
        if left <= 0:
            self._stop()
            raise Stopped(f"the whole notebook took longer than {self._limits.total:g} s")
        try:
            return self._box.ask(command, min(seconds, left))
        except BaseException:
            self._stop()
            raise
        finally:
            self._spent += time.monotonic() - began

    def _stop(self) -> None:
        box, self._box = self._box, None
        if box is not None:
            box.close()


def _error(reply: dict[str, Any]) -> dict[str, Any] | None:
    """The error in a reply, cut to what we can show: strings of a stranger."""
    error = reply.get("error")
    if not isinstance(error, dict):
        return None
    line = error.get("line")
    kind, message = (writable(str(error.get(key)))[:size] for key, size in (("type", 100), ("message", 1000)))
    where = {"line": line if type(line) is int else None}
    return {"type": kind, "message": message, "returned": error.get("returned") is True} | where


def score(given: ProblemSet, student: Session, reference: Session, seed: str) -> list[dict[str, Any]]:
    """Every test's result: what it earned, what the student is told (`said`), the instructor (`detail`)."""
    results = {}
    # Visible ones first: what they say is shown in full, so they must not know of hidden inputs.
    for test in sorted(given.tests, key=lambda test: not test.visible):
        detail, said = _run_test(test, student, reference, "visible" if test.visible else seed)
        said = detail if test.visible else said
        results[test.exercise, test.name] = {
            "exercise": test.exercise,
            "name": test.name,
            "goal": test.goal,
            "points": test.points,
            "earned": 0.0 if detail else test.points,
            "visible": test.visible,
            "said": said,
            "detail": detail,
        }
    return [results[test.exercise, test.name] for test in given.tests]


def _run_test(test: Test, student: Session, reference: Session, seed: str) -> tuple[str | None, str | None]:
    """(what is wrong in full, what is wrong without giving anything away), or (None, None)."""
    ours, theirs = [], []
    for entry in drawn(test, seed):
        command = encoded(test, entry)
        expected = _expected(reference, command)
        missing = _error(expected)
        if missing is not None and missing["type"] == "NameError":
            raise WorkFailed(f"{test.exercise} “{test.name}” in the reference: {missing['message']}")
        if test.faster_than:
            with student.frozen():
                began = time.perf_counter()
                slow = _expected(reference, command | {"function": test.faster_than})
                theirs.append(time.perf_counter() - began)
            if "value" not in slow:
                raise WorkFailed(f"{test.exercise} “{test.name}”: {test.faster_than} fails in the reference")
        try:
            student.start()
            began = time.perf_counter()
            got = student.call(command)
            ours.append(time.perf_counter() - began)
        except Stopped as stopped:
            return f"{entry.function}(…) {stopped}", str(stopped).split(" (")[0]
        if problem := _differs(test, expected, got):
            return f"{entry.function}(…): {problem[0]}", problem[1]
    if test.faster_than:
        ratio = statistics.median(theirs) / statistics.median(ours)
        if ratio < test.by:
            said = f"{ratio:.1f} times as fast as {test.faster_than}; asked for {test.by:g}"
            return said, said
    return None, None


def drawn(test: Test, seed: str) -> list[Any]:
    """The calls of a test. Raises WorkFailed, with the test's name, when the author's code for them fails."""
    try:
        return list(draw(test, seed))
    except UserError:  # says it already
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise WorkFailed(f"{test.exercise} “{test.name}”: drawing its inputs fails: {why}") from error


def encoded(test: Test, entry: Any) -> dict[str, Any]:
    """A call as JSON. Raises WorkFailed, with the test's name, for arguments that are not plain data."""
    try:
        return encode_call(entry)
    except TypeError as error:
        raise WorkFailed(f"{test.exercise} “{test.name}” passes {error}, which is not plain data") from error


def _expected(reference: Session, command: dict[str, Any]) -> dict[str, Any]:
    try:
        return reference.call(command)
    except Stopped as stopped:
        raise WorkFailed(f"the reference solution's {command['function']}(…) {stopped}") from None


def _differs(test: Test, expected: dict[str, Any], got: dict[str, Any]) -> tuple[str, str] | None:
    """A reply against the reference's: None, or what is wrong in full and in short."""
    wanted, error = _error(expected), _error(got)
    if error is not None:
        if error["returned"]:  # it came to an end, with something that is not plain data
            return error["message"], "returned something that is not plain data"
        if error["type"] == "NotImplementedError" and (wanted is None or wanted["type"] != error["type"]):
            return "not implemented yet", "not implemented yet"
        if wanted is not None and wanted["type"] == error["type"]:
            return None
        # An exit code or the name of a class of one's own could carry the hidden input out.
        named = error["type"] if hasattr(builtins, error["type"]) else "an exception of its own"
        instead = f", expected {wanted['type']}" if wanted else ""
        return f"raised {error['type']}{instead}: {error['message']}", f"raised {named}{instead}"
    if wanted is not None:
        said = f"expected {wanted['type']} to be raised"
        return said, said
    # A stranger's value is looked at only if it is about as large as what is expected.
    if got["bytes"] > 16 * expected["bytes"] + (1 << 16):
        return ("returned far more than expected",) * 2
    try:
        problem = compare(decode(expected["value"]), decode(got.get("value")), test.rtol, test.atol)
    except Exception as failed:  # made by hand to break us
        return f"returned something that cannot be read ({type(failed).__name__})", "the result differs"
    return (problem, "the result differs from what is expected") if problem else None


class Sessions:
    """The sessions of several threads, the reference's and the students'; all end when it is left."""

    def __init__(self, given: ProblemSet, rung: str, limits: Limits):
        self._given, self.rung, self.limits = given, rung, limits
        self._own, self._opened = threading.local(), []

    def __enter__(self) -> "Sessions":
        return self

    def __exit__(self, *_: object) -> None:
        for session in self._opened:
            session.cancel()

    def student(self, cells: Sequence[tuple[str, str]]) -> Session:
        """A new one, for these cells."""
        self._opened.append(Session(cells, self.rung, self.limits))
        return self._opened[-1]

    def reference(self) -> Session:
        """The one of this thread, its cells run. Raises WorkFailed when one of them fails."""
        if not hasattr(self._own, "reference"):
            self._own.reference = reference_session(self._given, self.rung, self.limits)
            self._opened.append(self._own.reference)
        return self._own.reference


def reference_session(given: ProblemSet, rung: str, limits: Limits) -> Session:
    """The reference solution with its cells run. Raises WorkFailed when one of them fails."""
    session = Session(with_answers(given), rung, dataclasses.replace(limits, total=_FOR_EVER))
    session.start()
    for name, problem in session.problems.items():
        session.cancel()
        raise WorkFailed(f"the reference solution fails in cell {name}: {problem['message']}")
    return session
