"""A problem set as its author wrote it: the notebook in solutions/psN, its tests, its planted wrong answers.

Students' notebooks are laid over it: their answers count, every other cell is the author's.
"""

import importlib.util
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from visdial_lab.errors import UserError
from visdial_lab.exercises import Mutant, Test
from visdial_lab.files import course_root, read_text

# What stands in place of a solution and of a text; nbgrader_config.py says the same.
STUB, TEXT_STUB = "raise NotImplementedError", "*Write your answer here.*"
_SOLUTION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION.*?^[ \t]*### END SOLUTION[^\n]*", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Cell:
    """A cell of the source: what it is for, its text with the solution, points."""

    id: str
    role: str  # "answer" (code by the student), "check", "open" (marked by hand), "given"
    type: str
    source: str
    points: float = 0.0


@dataclass(frozen=True)
class ProblemSet:
    """cells: those with a grade_id, in order. exercises: {name: points}; open: {grade_id: points}."""

    name: str
    folder: Path
    cells: tuple[Cell, ...]
    tests: tuple[Test, ...]
    mutants: tuple[Mutant, ...]

    @property
    def exercises(self) -> dict[str, float]:
        return {exercise_of(cell): cell.points for cell in self.cells if cell.role == "check"}

    @property
    def open(self) -> dict[str, float]:
        return {cell.id: cell.points for cell in self.cells if cell.role == "open"}

    @property
    def source(self) -> Path:
        return self.folder / f"{self.name}.ipynb"


def exercise_of(cell: Cell) -> str:
    """ps2-mask and ps2-mask-code belong to ps2.mask."""
    return cell.id.removesuffix("-code").replace("-", ".", 1)


def stub(source: str) -> str:
    """An answer cell as students get it (the same text that nbgrader makes)."""
    return _SOLUTION.sub(lambda match: match[1] + STUB, source)


def load(name: str, solutions: Path | None = None) -> ProblemSet:
    """Read solutions/NAME. Raises UserError when it is not there or does not hold together."""
    home = solutions or course_root() / "solutions"
    folder = home / name
    path = folder / f"{name}.ipynb"
    known = sorted(found.parent.name for found in home.glob("*/hidden.py"))
    if not path.is_file() or folder.parent != home:
        meant = next((f", for instance {one}" for one in known if one in name.lower()), "")
        raise UserError(
            f"no problem set {name!r} in {home}: give a name{meant}; there are {', '.join(known) or 'none'}"
        )
    try:
        notebook = nbformat.reads(read_text(path, "notebook"), as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{path} is not a notebook of format 4: {reason}") from None
    _marked_well(path, notebook)
    cells = []
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader")
        if marks is None:
            continue
        grade, solution = marks.get("grade", False), marks.get("solution", False)
        role = ("open" if grade else "answer") if solution else ("check" if grade else "given")
        cells.append(
            Cell(marks["grade_id"], role, cell.cell_type, cell.source, float(marks.get("points", 0)))
        )
    hidden, planted = _run_file(folder / "hidden.py"), _run_file(folder / "mutants.py")
    made = ProblemSet(name, folder, tuple(cells), tuple(hidden["TESTS"]), tuple(planted.get("MUTANTS", ())))
    if problems := _problems(made):
        raise UserError(f"{path}: {'; '.join(problems)}")
    return made


def _marked_well(path: Path, notebook: Any) -> None:
    """Refuse a cell with a solution whose beginning or end is not marked: it would go out to students."""
    for cell in notebook.cells:
        marks = [line.strip() for line in cell.source.splitlines() if "SOLUTION" in line and "#" in line]
        if marks not in ([], ["### BEGIN SOLUTION", "### END SOLUTION"] * (len(marks) // 2)):
            name = (cell.metadata.get("nbgrader") or {}).get("grade_id", cell.get("id"))
            raise UserError(
                f"{path}: cell {name} has the marks {', '.join(map(repr, marks))}; a solution stands between "
                "'### BEGIN SOLUTION' and '### END SOLUTION'"
            )


def _run_file(path: Path) -> dict[str, Any]:
    """The names that an author's file defines."""
    if not path.is_file():
        raise UserError(f"{path} is missing")
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}") from None
    return vars(module)


def _problems(given: ProblemSet) -> list[str]:
    """What does not hold together."""
    problems = [
        f"grade_id {name} stands twice" for name, n in Counter(c.id for c in given.cells).items() if n > 1
    ]
    answers = {exercise_of(cell) for cell in given.cells if cell.role == "answer"}
    for exercise, points in given.exercises.items():
        own = [test for test in given.tests if test.exercise == exercise]
        if sum(test.points for test in own) != points:
            problems.append(
                f"{exercise}: the tests' points are {sum(t.points for t in own)}, the cell's {points}"
            )
        if exercise not in answers:
            problems.append(f"{exercise}: no answer cell {exercise.replace('.', '-')}-code")
        if any(test.visible and test.faster_than for test in own):
            problems.append(f"{exercise}: a test of speed cannot be visible")
    names = Counter((test.exercise, test.name) for test in given.tests)
    problems += [f"{e}: two tests are called “{n}”" for (e, n), count in names.items() if count > 1]
    unknown = {t.exercise for t in (*given.tests, *given.mutants)} - set(given.exercises)
    return problems + [f"{exercise} has tests or mutants but no check cell" for exercise in sorted(unknown)]


def of_another(given: ProblemSet, student: Sequence[dict[str, Any]]) -> str | None:
    """The name of the problem set that a notebook belongs to, when it is another one: no cell is of this."""
    ids = [cell["id"] for cell in student if cell["id"] is not None]
    known = {cell.id for cell in given.cells}
    others = Counter(match[1] for name in ids if (match := re.match(r"(ps\d+)-", name)))
    others.pop(given.name, None)
    return max(others, key=others.get) if others and not known.intersection(ids) else None


def overlay(given: ProblemSet, student: Sequence[dict[str, Any]]) -> tuple[list[tuple[str, str]], list[str]]:
    """([(name, code)] to run, notes): the student's answers and own cells, the author's cells as they were.

    Cells are known by their grade_id alone. A locked cell is the author's whatever became of it; one that is
    gone comes back; of an answer that stands several times the last one with something in it counts; a cell
    with an unknown id is one of the student's own and runs where it stands. Checks do not run.
    """
    known = {cell.id: cell for cell in given.cells}
    answers: dict[str, list[str]] = defaultdict(list)
    own: dict[str | None, list[str]] = defaultdict(list)  # the student's cells after each known one
    changed, seen, place = [], set(), None
    for cell in student:
        name = cell["id"]
        if name not in known:
            if cell["type"] == "code" and cell["source"].strip():
                own[place].append(cell["source"])
            continue
        place = name
        seen.add(name)
        if known[name].role == "answer" and cell["type"] == "code":
            answers[name].append(cell["source"])
        elif known[name].role in ("given", "check") and cell["source"].strip() != known[name].source.strip():
            changed.append(name)
    notes = [f"locked cell {name} was changed; the original was used" for name in dict.fromkeys(changed)]
    notes += [
        f"locked cell {c.id} was gone; it was put back"
        for c in given.cells
        if c.role == "given" and c.id not in seen
    ]
    to_run = [(f"own cell {n}", code) for n, code in enumerate(own[None], 1)]
    for cell in given.cells:
        if cell.role == "answer":
            texts = [text for text in answers[cell.id] if text.strip() != stub(cell.source).strip()]
            if len(answers[cell.id]) > 1:
                notes.append(
                    f"{exercise_of(cell)} was answered in {len(answers[cell.id])} cells; the last counts"
                )
            elif not answers[cell.id]:
                notes.append(f"the answer cell of {exercise_of(cell)} is missing; other cells count")
            text = (texts or answers[cell.id] or [""])[-1]
            to_run.append((cell.id, text))
        elif cell.role == "given" and cell.type == "code":
            to_run.append((cell.id, cell.source))
        to_run += [(f"own cell {n} after {cell.id}", code) for n, code in enumerate(own[cell.id], 1)]
    return to_run, notes


def with_answers(given: ProblemSet, answers: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """[(name, code)] of the reference solution, or with other answers: {exercise: code}."""
    answers = answers or {}
    chosen = {cell.id: answers.get(exercise_of(cell)) for cell in given.cells if cell.role == "answer"}
    student = [
        {"type": cell.type, "source": chosen.get(cell.id) or cell.source, "id": cell.id}
        for cell in given.cells
    ]
    return overlay(given, student)[0]
