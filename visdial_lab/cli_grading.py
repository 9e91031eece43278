"""The instructor's commands: release and grade."""

import datetime
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from visdial_lab.errors import UserError, WorkFailed, counted
from visdial_lab.progress import progress, say


def add_commands(app: typer.Typer) -> None:
    """Add both to the command line."""
    app.command()(release)
    app.command()(grade)


def release(
    names: Annotated[list[str], Argument(help="Problem sets: ps1 …", metavar="PSN…")],
    prove: Annotated[
        bool, Option("--prove", help="Also: solution scores all, stubs nothing, mutants as declared.")
    ] = False,
) -> None:
    """Make assignments/psN, what students get, from solutions/psN."""
    from visdial_lab.grading import release as making
    from visdial_lab.grading.problem_sets import load
    from visdial_lab.grading.walls import PLAIN

    for name in names:
        given = load(name)
        # nothing is written before; and it is the author's own code that runs
        problems = making.prove(given, PLAIN) if prove else []
        if problems:
            raise WorkFailed(f"{name} is as it was: {'; '.join(problems)}")
        folder = making.release(name)
        if problems := making.leaks(given, folder):
            raise WorkFailed(f"{folder} must not go out: {'; '.join(problems)}")
        full = sum(given.exercises.values())
        proofs = f"the solution scores {full:g} of {full:g}, untouched stubs 0"
        proofs += f", {len(given.mutants)} planted mistakes as declared"
        print(f"{folder}{f': {proofs}' if prove else ''}")


def grade(
    submissions: Annotated[Path, Argument(help="A folder, a platform's zip, or one notebook.")],
    assignment: Annotated[str, Option(help="The problem set: ps1 …")],
    output: Annotated[Path | None, Option(help="Folder to write; default: runs/grades/psN.")] = None,
    jobs: Annotated[int, Option("--jobs", "-j", min=1, help="Submissions graded at once.")] = 1,
    resume: Annotated[bool, Option(help="Keep results whose inputs have not changed, or grade anew.")] = True,
    sandbox: Annotated[
        str | None, Option(help="container, bubblewrap, unshare; default: the first that holds.")
    ] = None,
    unsafe: Annotated[bool, Option("--unsafe", help="Run without any wall if none holds here.")] = False,
    cell_seconds: Annotated[float, Option(min=1, help="For one cell.")] = 60,
    total_seconds: Annotated[float, Option(min=1, help="For one submission.")] = 600,
    memory_gb: Annotated[float, Option(min=0.5, help="For one submission.")] = 4,
    due: Annotated[str | None, Option(help="When it was due: 2026-10-01T23:59+02:00.")] = None,
    free_days: Annotated[int, Option(min=0, help="Late days that cost nothing.")] = 0,
    late_penalty: Annotated[
        float, Option(min=0, max=100, help="Percent off for each further day begun.")
    ] = 0,
    gradebook: Annotated[
        bool, Option("--gradebook", help="Also fill nbgrader's gradebook.db and autograded/.")
    ] = False,
) -> None:
    """Grade submissions that you need not trust; writes grades.csv, grades.json, index.html and feedback/."""
    from visdial_lab.files import course_root
    from visdial_lab.grading.gradebook import marks_by_hand
    from visdial_lab.grading.pile import Lateness
    from visdial_lab.grading.pile import grade as grade_all
    from visdial_lab.grading.walls import Limits

    limits = Limits(cell=cell_seconds, total=total_seconds, memory=int(memory_gb * 2**30))
    if due is None and (free_days or late_penalty):
        raise UserError("--free-days and --late-penalty count from --due: give it, as 2026-10-01T23:59+02:00")
    lateness = Lateness(_moment(due), free_days, late_penalty)
    folder = output or Path("runs") / "grades" / assignment
    marks = marks_by_hand(assignment, course_root())
    with progress(f"grading {assignment}") as update:
        results = grade_all(
            submissions,
            assignment,
            folder,
            jobs,
            resume,
            sandbox,
            unsafe,
            limits,
            lateness,
            marks=marks,
            progress=update,
        )
    if gradebook:
        _fill_gradebook(assignment, submissions, results)
    problems = [result for result in results if result["problem"]]
    for result in problems:
        say(f"{result['student']}: {result['problem']}")
    late = [result for result in results if result["days_late"]]
    if late:
        say(f"{len(late)} handed in late: days are in grades.csv")
    marked = sum(any(part["mark"] is not None for part in result["open"]) for result in results)
    if marked:
        say(f"marked by hand: {marked} of {len(results)}; in grades.csv and on the pages")
    rungs = sorted({result["rung"] for result in results if result["rung"]})
    mean = sum(result["score"] for result in results) / len(results)
    print(f"{counted(len(results), 'submission')}, mean {mean:.2f} of {results[0]['max']:g}")
    print(f"sandbox: {', '.join(rungs) or 'none needed'}")
    print(f"{folder / 'index.html'}")


def _fill_gradebook(assignment: str, submissions: Path, results: list[dict]) -> None:
    from visdial_lab.files import course_root
    from visdial_lab.grading.gradebook import import_results
    from visdial_lab.grading.problem_sets import load
    from visdial_lab.grading.submissions import collect

    notebooks = {entry.student: entry.data for entry in collect(submissions, assignment)}
    count = import_results(load(assignment), results, notebooks, course_root())
    next_step = "mark the open questions in formgrader, then give this command again"
    say(f"{counted(count, 'student')} in gradebook.db; {next_step}")


def _moment(text: str | None) -> datetime.datetime | None:
    """A point in time; in this machine's zone where it names none. A mere day would mean its first second."""
    if text is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):  # the latter: out of the calendar in another zone
        raise UserError(f"--due {text!r} is no time: write it as 2026-10-01T23:59+02:00") from None
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        return moment
    raise UserError(f"--due {text} says no time of day: write --due {day}T23:59")
