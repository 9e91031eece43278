"""Results into nbgrader's gradebook, so that formgrader can be used to mark the open questions.

formgrader shows what lies in autograded/STUDENT/psN and what the gradebook says of it. Nothing is run here.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from visdial_lab.errors import UserError
from visdial_lab.files import write_text
from visdial_lab.grading.problem_sets import ProblemSet
from visdial_lab.grading.submissions import cells_of


def import_results(
    given: ProblemSet, results: list[dict[str, Any]], notebooks: dict[str, bytes], course: Path
) -> int:
    """Write scores into course/gradebook.db and notebooks into course/autograded; return how many students.

    notebooks: {student: the bytes that were handed in}. A grade given by hand before stays. Raises UserError
    when nbgrader is not installed.
    """
    try:
        from nbgrader.api import Gradebook, MissingEntry
        from nbgrader.apps import NbGraderAPI
        from nbgrader.coursedir import CourseDirectory
    except ImportError:
        raise UserError("the gradebook needs nbgrader: pip install 'visdial-lab[instructor]'") from None
    files = NbGraderAPI(CourseDirectory(root=str(course)))
    done = 0
    with (
        warnings.catch_warnings(),
        _alembic_on_path(),
        Gradebook(f"sqlite:///{course / 'gradebook.db'}", "visdial-lab") as gradebook,
    ):
        warnings.simplefilter("ignore")  # of nbgrader's own use of its database
        _declare(gradebook, given)
        for result in results:
            if result["problem"] is not None:
                continue
            student = result["file"]  # a name without a slash: it becomes a folder
            gradebook.update_or_create_student(student, last_name=result["student"])
            try:
                submission = gradebook.find_submission(given.name, student)
            except MissingEntry:
                submission = gradebook.add_submission(given.name, student)
            handed_in = course / "submitted" / student / given.name
            if not handed_in.exists():  # formgrader lists only whose work lies there
                write_text(
                    handed_in / f"{given.name}.ipynb", notebooks[result["student"]].decode("utf-8-sig")
                )
            submission.timestamp = files.get_submitted_timestamp(given.name, student)
            for exercise in given.exercises:
                name = exercise.replace(".", "-")
                grade = gradebook.find_grade(name, given.name, given.name, student)
                own = [test["earned"] for test in result["tests"] if test["exercise"] == exercise]
                grade.auto_score, grade.needs_manual_grade = sum(own), False
            for part in result["open"]:
                grade = gradebook.find_grade(part["id"], given.name, given.name, student)
                grade.needs_manual_grade = grade.manual_score is None
            folder = course / "autograded" / student / given.name
            write_text(folder / f"{given.name}.ipynb", _restored(given, notebooks[result["student"]]))
            done += 1
        gradebook.db.commit()
    return done


def marks_by_hand(assignment: str, course: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """{student's file name: {grade_id: {"mark": points, "comment": text or None}}} as given in formgrader.

    Empty where there is no gradebook of the course, no such assignment in it, or no nbgrader.
    """
    path = course / "gradebook.db"
    try:
        from nbgrader.api import Gradebook, MissingEntry
    except ImportError:
        return {}
    if not path.is_file():
        return {}
    marks: dict[str, dict[str, dict[str, Any]]] = {}
    with warnings.catch_warnings(), _alembic_on_path(), Gradebook(f"sqlite:///{path}", "visdial-lab") as book:
        warnings.simplefilter("ignore")  # of nbgrader's own use of its database
        try:
            submissions = book.find_assignment(assignment).submissions
        except MissingEntry:
            return {}
        for notebook in (notebook for submission in submissions for notebook in submission.notebooks):
            said = {comment.name: comment.comment or None for comment in notebook.comments}
            for grade in notebook.grades:
                if grade.manual_score is not None:
                    mark = float(grade.manual_score) + float(grade.extra_credit or 0)
                    entry = {"mark": mark, "comment": said.get(grade.name)}
                    marks.setdefault(notebook.student.id, {})[grade.name] = entry
    return marks


def _declare(gradebook: Any, given: ProblemSet) -> None:
    """Have the assignment, its notebook and its cells in the gradebook."""
    from nbgrader.utils import compute_checksum

    gradebook.update_or_create_assignment(given.name)
    gradebook.update_or_create_notebook(given.name, given.name)
    source = nbformat.read(given.source, as_version=4)
    for cell in source.cells:
        marks = cell.metadata.get("nbgrader")
        if marks is None:
            continue
        where, about = (marks["grade_id"], given.name, given.name), {"cell_type": cell.cell_type}
        if marks["grade"]:
            points = {"max_score": float(marks["points"])}
            gradebook.update_or_create_grade_cell(*where, **about, **points)
        if marks["solution"]:
            gradebook.update_or_create_solution_cell(*where)
        checked = {"source": cell.source, "checksum": compute_checksum(cell), "locked": marks["locked"]}
        gradebook.update_or_create_source_cell(*where, **about, **checked)


def _restored(given: ProblemSet, data: bytes) -> str:
    """The student's notebook for reading: outputs dropped, the author's cells and marks put back."""

    def plain(kind: str, source: str, marks: Any = None) -> Any:
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        return make(source, metadata={} if marks is None else {"nbgrader": marks})

    source = nbformat.read(given.source, as_version=4)
    originals = {c.metadata.nbgrader.grade_id: c for c in source.cells if "nbgrader" in c.metadata}
    kept, seen = [], set()
    for cell in cells_of(data):
        original = originals.get(cell["id"])
        if original is None or cell["id"] in seen:  # one's own cell, or a copy of another one
            kept.append(plain(cell["type"], cell["source"]))
            continue
        seen.add(cell["id"])
        marks = original.metadata.nbgrader
        if marks.solution:
            kept.append(plain(cell["type"], cell["source"], marks))
        else:
            kept.append(plain(original.cell_type, original.source, marks))
    for name, original in originals.items():
        marks = original.metadata.nbgrader
        if name not in seen and marks.grade:
            kept.append(plain(original.cell_type, "" if marks.solution else original.source, marks))
    made = nbformat.v4.new_notebook(cells=kept, metadata=source.metadata)
    return nbformat.writes(made) + "\n"


@contextlib.contextmanager
def _alembic_on_path() -> Iterator[None]:
    """nbgrader starts `alembic` by name; it lies beside this Python, which need not be on the path."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
