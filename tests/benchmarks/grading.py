"""Time to grade harmless submissions of a problem set, against nbgrader's autograde on the same ones.

Both in this run: ours with two jobs in the sandbox, and once more with everything kept; nbgrader as its users
run it, one notebook after the other. Prints JSON.

    python tests/benchmarks/grading.py --assignment ps5 --count 60 --jobs 2
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from visdial_lab.files import course_root
from visdial_lab.grading.pile import grade
from visdial_lab.grading.problem_sets import exercise_of, load, stub


def make_submissions(name: str, count: int, folder: Path) -> None:
    """submitted/STUDENT/psN/psN.ipynb: correct answers, each planted mistake, some exercises not begun."""
    given = load(name)
    exercises = list(given.exercises)
    released = json.loads((course_root() / "assignments" / name / f"{name}.ipynb").read_text())
    for number in range(count):
        answers = {exercise_of(c): c.source for c in given.cells if c.role == "answer"}
        if number % 3 == 1:
            mutant = given.mutants[number // 3 % len(given.mutants)]
            answers[mutant.exercise] = mutant.code
        elif number % 3 == 2:
            missing = exercises[number // 3 % len(exercises)]
            answers[missing] = stub(answers[missing])
        notebook = json.loads(json.dumps(released))
        for cell in notebook["cells"]:
            marks = cell["metadata"].get("nbgrader", {})
            if marks.get("solution") and not marks["grade"]:
                source = answers[marks["grade_id"].removesuffix("-code").replace("-", ".", 1)]
                cell["source"] = f"{source}\n# student {number}"
        path = folder / f"student{number:02d}" / name / f"{name}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook))


def time_nbgrader(name: str, course: Path) -> float:
    """Seconds of `nbgrader autograde` in a course folder made for it; making the release is not counted."""
    shutil.copytree(course_root() / "solutions" / name, course / "solutions" / name)
    shutil.copy(course_root() / "nbgrader_config.py", course)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "VISDIAL_LAB_ROOT": str(course_root()),
        "PYTHONPATH": os.pathsep.join([str(course_root()), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "nbgrader"]
    run = {"cwd": course, "env": environment, "check": True, "capture_output": True}
    subprocess.run([*command, "generate_assignment", name, "--force"], **run)
    began = time.perf_counter()
    subprocess.run([*command, "autograde", name], **run)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assignment", default="ps5")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sandbox", default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        course = Path(temporary)
        make_submissions(given.assignment, given.count, course / "submitted")
        output, seconds = course / "grades", []
        for _ in range(2):
            began = time.perf_counter()
            results = grade(course / "submitted", given.assignment, output, given.jobs, rung=given.sandbox)
            seconds.append(time.perf_counter() - began)
        nbgrader = time_nbgrader(given.assignment, course)
        scores = [result["earned"] for result in results]
    print(
        json.dumps(
            {
                "assignment": given.assignment,
                "submissions": given.count,
                "jobs": given.jobs,
                "sandbox": results[0]["rung"],
                "mean_score": round(sum(scores) / len(scores), 2),
                "seconds": round(seconds[0], 1),
                "seconds_again": round(seconds[1], 2),
                "seconds_nbgrader": round(nbgrader, 1),
                "ratio_to_nbgrader": round(seconds[0] / nbgrader, 3),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
