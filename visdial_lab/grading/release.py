"""From solutions/psN to assignments/psN, and the proofs that what is released is fit to be graded.

nbgrader makes the students' notebook (solutions and outputs cleared, checksums added); checks.json beside it
holds the visible tests as data, with the results that the reference solution gives.
"""

import io
import json
import logging
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat

from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.files import course_root, read_text, write_text
from visdial_lab.grading.problem_sets import ProblemSet, exercise_of, load, stub, with_answers
from visdial_lab.grading.scoring import Sessions, drawn, encoded, reference_session, score
from visdial_lab.grading.submissions import cells_of
from visdial_lab.grading.walls import PLAIN, Limits


def release(name: str, output: Path | None = None, solutions: Path | None = None) -> Path:
    """Write OUTPUT/NAME (default: assignments/NAME): the notebook for students and its checks.json.

    Raises UserError for a problem set that does not hold together, or when nbgrader is not installed.
    """
    given = load(name, solutions)
    folder = (output or course_root() / "assignments") / name
    with tempfile.TemporaryDirectory() as temporary:
        made = _students_notebook(given, Path(temporary))
        checks = visible_checks(given)  # while nothing of the old release is touched
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if old.name not in (f"{name}.ipynb", "checks.json"):
                raise UserError(f"{old} was not made by release: put it into solutions/{name}, or remove it")
        write_text(folder / f"{name}.ipynb", _without_timings(read_text(made)))
        lines = ",\n".join(f'"{exercise}": {json.dumps(entry)}' for exercise, entry in checks.items())
        write_text(folder / "checks.json", f'{{"assignment": "{name}", "exercises": {{\n{lines}\n}}}}\n')
    return folder


def _without_timings(text: str) -> str:
    """Without when the author's own run of each cell began and ended, which Jupyter may have noted."""
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return nbformat.writes(notebook) + "\n"


def _students_notebook(given: ProblemSet, temporary: Path) -> Path:
    """What nbgrader's generate_assignment makes of the source."""
    try:
        from nbgrader.converters import GenerateAssignment
        from nbgrader.converters.base import NbGraderException
        from nbgrader.coursedir import CourseDirectory
        from traitlets.config import PyFileConfigLoader
    except ImportError:
        raise UserError("release needs nbgrader: pip install 'visdial-lab[instructor]'") from None
    config = PyFileConfigLoader("nbgrader_config.py", str(course_root())).load_config()
    course = config.CourseDirectory
    course.root, course.source_directory = str(given.folder.parent.parent), given.folder.parent.name
    course.release_directory, course.assignment_id = str(temporary), given.name
    config.GenerateAssignment.no_database = True  # `grade` fills the gradebook
    config.SaveCells.enabled = False
    maker = GenerateAssignment(coursedir=CourseDirectory(config=config), config=config)
    said = io.StringIO()
    maker.log = logging.Logger("nbgrader", logging.ERROR)
    maker.log.addHandler(logging.StreamHandler(said))
    try:
        maker.start()
    except (NbGraderException, SystemExit):
        reason = said.getvalue().strip().splitlines()
        why = next((line for line in reversed(reason) if "Error: " in line), reason[-1] if reason else "")
        raise WorkFailed(f"nbgrader could not release {given.name}: {why}") from None
    return temporary / given.name / f"{given.name}.ipynb"


def visible_checks(given: ProblemSet) -> dict[str, Any]:
    """{exercise: what checks.json says}: visible tests with the reference's answers, how many others."""
    exercises: dict[str, Any] = {}
    with reference_session(given, PLAIN, Limits()) as reference:  # the author's own code
        for exercise, points in given.exercises.items():
            own = [test for test in given.tests if test.exercise == exercise]
            shown = []
            for test in (test for test in own if test.visible):
                calls = []
                for entry in (encoded(test, entry) for entry in drawn(test, "visible")):
                    reply = reference.call(entry)
                    answer = (
                        {"expected": reply["value"]}
                        if "value" in reply
                        else {"raises": reply["error"]["type"]}
                    )
                    calls.append(entry | answer)
                about = {"name": test.name, "goal": test.goal, "points": test.points}
                shown.append(about | {"rtol": test.rtol, "atol": test.atol, "calls": calls})
            exercises[exercise] = {"points": points, "hidden": len(own) - len(shown), "tests": shown}
    return exercises


# ---- proofs


def prove(given: ProblemSet, rung: str, limits: Limits | None = None) -> list[str]:
    """What is wrong: the solution must score everything, stubs nothing, each mutant what it declares."""
    full = sum(given.exercises.values())
    answers = {exercise_of(cell): cell.source for cell in given.cells if cell.role == "answer"}
    cases = [("the solution", with_answers(given), full)]
    cases.append(("untouched stubs", with_answers(given, {e: stub(code) for e, code in answers.items()}), 0))
    for mutant in given.mutants:
        cases.append(
            (f"mutant “{mutant.name}”", with_answers(given, {mutant.exercise: mutant.code}), mutant.points)
        )
    with Sessions(given, rung, limits or Limits()) as sessions, ThreadPoolExecutor(2) as pool:

        def results_of(cells: list[tuple[str, str]]) -> list[dict[str, Any]]:
            with sessions.student(cells) as student:
                return score(given, student, sessions.reference(), "proof")

        scored = list(pool.map(results_of, [cells for _, cells, _ in cases]))
    problems = []
    for (name, _, points), results in zip(cases, scored, strict=True):
        got = sum(result["earned"] for result in results)
        if got != points:
            lost = [f"{r['exercise']} “{r['name']}”: {r['detail']}" for r in results if r["detail"]]
            problems.append(f"{name} scores {got:g}, not {points:g} ({'; '.join(lost[:3])})")
    return problems


def leaks(given: ProblemSet, folder: Path) -> list[str]:
    """What a released folder must not hold: solutions, outputs, hidden tests, other files."""
    names = {f"{given.name}.ipynb", "checks.json"}
    problems = [f"{path.name} should not be there" for path in folder.iterdir() if path.name not in names]
    text = read_text(folder / f"{given.name}.ipynb", "released notebook")
    if any(cell.get("outputs") or cell.get("execution_count") for cell in json.loads(text)["cells"]):
        problems.append("the notebook has outputs")
    cells = cells_of(text.encode())
    released = {cell["id"]: cell["source"] for cell in cells}
    for cell in given.cells:
        expected = stub(cell.source) if cell.role == "answer" else cell.source
        if cell.role != "open" and released.get(cell.id) != expected:
            problems.append(f"cell {cell.id} is not what it should be")
    checks = read_text(folder / "checks.json", "checks")
    everything = "\n".join(cell["source"] for cell in cells) + checks
    told = "\n".join(stub(cell.source) for cell in given.cells if cell.role != "open")
    for cell in given.cells:
        secret = set(map(str.strip, cell.source.splitlines())) - set(map(str.strip, told.splitlines()))
        found = [line for line in secret if len(line) > 12 and line in everything and line not in told]
        problems += [f"{cell.id}: {line!r} is from the solution" for line in found if cell.role != "given"]
    problems += [
        f"hidden test “{t.name}” is named" for t in given.tests if not t.visible and f'"{t.name}"' in checks
    ]
    return problems


def out_of_sync(name: str, assignments: Path, solutions: Path | None = None) -> list[str]:
    """Released files that differ from what the source makes now."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = release(name, Path(temporary), solutions)
        return [
            f"{name}/{path.name} is not what solutions/{name} makes; run visdial-lab release {name}"
            for path in sorted(fresh.iterdir())
            if not (assignments / name / path.name).is_file()
            or (assignments / name / path.name).read_bytes() != path.read_bytes()
        ]
