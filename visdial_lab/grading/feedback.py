"""The pages of a graded assignment: one for each student, one for the instructor. Looks: templates/*.html."""

from pathlib import Path
from typing import Any

from visdial_lab.errors import counted
from visdial_lab.files import write_text
from visdial_lab.views import render


def write_pages(output: Path, assignment: str, results: list[dict[str, Any]], pairs: list[dict]) -> None:
    """Write feedback/STUDENT.html and index.html. A student's page tells of nobody else, shows no source."""
    for result in results:
        page = render("feedback.html", title=f"{assignment}: {result['student']}", **_by_exercise(result))
        write_text(output / "feedback" / f"{result['file']}.html", page)
    page = render(
        "grades.html",
        title=f"{assignment}: {counted(len(results), 'submission')}",
        assignment=assignment,
        results=[_by_exercise(result) for result in results],
        pairs=pairs,
        tests=_tests(results),
        rungs=sorted({result["rung"] for result in results if result["rung"]}),
        groups=_histogram(results),
    )
    write_text(output / "index.html", page)


def _by_exercise(result: dict[str, Any]) -> dict[str, Any]:
    """The result with its tests grouped: "exercises": {name: {"earned", "points", "tests"}}."""
    exercises: dict[str, dict[str, Any]] = {}
    for test in result["tests"]:
        entry = exercises.setdefault(test["exercise"], {"earned": 0.0, "points": 0.0, "tests": []})
        entry["earned"] += test["earned"]
        entry["points"] += test["points"]
        entry["tests"].append(test)
    return result | {"exercises": exercises}


def _tests(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each test with the share of graded submissions that pass it, the hardest first: what to teach again."""
    graded = [result for result in results if result["problem"] is None]
    passed: dict[tuple[str, str], list] = {}
    for result in graded:
        for test in result["tests"]:
            entry = passed.setdefault((test["exercise"], test["name"]), [test, 0])
            entry[1] += test["detail"] is None
    rows = [test | {"share": count / len(graded)} for test, count in passed.values()]
    return sorted(rows, key=lambda row: row["share"])


def _histogram(results: list[dict[str, Any]]) -> list[int]:
    """Submissions by score, in tenths of what can be reached; the last group has those with everything."""
    groups = [0] * 11
    for result in results:
        groups[int(10 * result["score"] / result["max"] + 1e-9) if result["max"] else 0] += 1
    return groups
