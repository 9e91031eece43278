"""Submissions that attack the grader, on every rung of the sandbox that this machine has.

None gains a point, none harms another's grade, none escapes, each gets a readable verdict.
"""

import functools
import json
import socket
import threading

import hostile
import psutil
import pytest
import tiny_problem_set

from visdial_lab.grading.pile import grade
from visdial_lab.grading.release import release
from visdial_lab.grading.sandbox import RUNGS, problem_of
from visdial_lab.grading.walls import Limits

pytestmark = pytest.mark.slow
_LIMITS = Limits(
    cell=5, call=3, total=60, memory=1 << 30, processes=40, output=8 << 20, disk=16 << 20, reply=4 << 20
)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder with solutions/ps0, its release, a gradebook, and a place outside that is writable."""
    folder = tmp_path_factory.mktemp("course")
    folder.chmod(0o777)
    solutions = tiny_problem_set.build(folder)
    release("ps0", folder / "assignments", solutions)
    (folder / "gradebook.db").write_text("a grade")
    (folder / "outside").mkdir(mode=0o777)
    return folder


@functools.cache
def first_rung():
    """Where everything is tried: the fastest rung there is."""
    return next((rung for rung in ("bubblewrap", "unshare", "container") if problem_of(rung) is None), None)


# Attacks that the wall itself stops, or that count processes and bytes: tried on every rung.
_WALL = (
    "fork",
    "threads",
    "memory hog",
    "filler",
    "files",
    "kill",
    "network",
    "socket",
    "reading",
    "secrets",
)
_WALL += ("writing", "changing", "mounting", "raising", "output", "subprocess", "os._exit")


def _attacks(rung):
    return {
        name: attack
        for name, attack in hostile.ATTACKS.items()
        if rung == first_rung() or any(word in name for word in _WALL)
    }


@pytest.fixture(scope="module", params=RUNGS)
def graded(request, course, tmp_path_factory):
    """{name: result} of all attacks and harmless submissions, graded together on one rung."""
    rung = request.param
    if problem := problem_of(rung):
        pytest.skip(f"SKIPPED: rung {rung} is not there: {problem}")
    submissions, output = course / f"submitted-{rung}", tmp_path_factory.mktemp(rung) / "grades"
    submissions.mkdir(mode=0o777)
    knocks = []
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0visdial-lab-test")
        local.listen()

        def listen():
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return
                knocks.append(1)

        threading.Thread(target=listen, daemon=True).start()
        known = {"solutions": course / "solutions", "submissions": submissions, "course": course}
        known |= {"port": server.getsockname()[1], "outside": course / "outside", "cell": _LIMITS.cell}

        def hand_in(name, code):
            for key, value in known.items():
                code = code.replace(f"{{{key}}}", str(value))
            notebook = tiny_problem_set.submission(
                course / "assignments" / "ps0", {"ps0-mean-code": code, "ps0-rows-code": hostile.ROWS}
            )
            (submissions / f"{name}.ipynb").write_text(json.dumps(notebook))

        for name, (code, _, _) in _attacks(rung).items():
            hand_in(name.replace("/", " "), code)
        for name, code in hostile.HARMLESS.items():
            hand_in(name, code)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COURSE_TOKEN", "a-secret-token")
            results = grade(
                submissions, "ps0", output, 2, rung=rung, limits=_LIMITS, solutions=course / "solutions"
            )
    assert not knocks, "a submission reached the network"
    return {result["student"]: result for result in results} | {"output": output, "rung": rung}


@pytest.mark.parametrize("name", hostile.ATTACKS)
def test_an_attack_gains_nothing(graded, name):
    _, score, words = hostile.ATTACKS[name]
    if name not in _attacks(graded["rung"]):
        pytest.skip(f"tried on {first_rung()}: no matter of the wall")
    result = graded[name]
    assert result["problem"] is None, result["problem"]
    assert result["earned"] == score, result
    page = (graded["output"] / "feedback" / f"{result['file']}.html").read_text()
    told = json.dumps([result["cells"], [test["detail"] for test in result["tests"]]])
    assert words in told or words in page, told
    assert any(result["cells"]) or any(test["said"] for test in result["tests"])


@pytest.mark.parametrize("name", hostile.HARMLESS)
def test_a_correct_answer_scores_everything(graded, name):
    result = graded[name]
    assert result["earned"] == result["max"] == 7, (result["cells"], result["tests"])
    assert not [cell for cell in result["cells"]]


def test_nothing_was_written_outside_and_nothing_still_runs(graded, course):
    assert not list(course.rglob("pwned"))
    ours = f'"cell": {_LIMITS.cell}, "call": {_LIMITS.call}'  # in the executor's command line
    assert not [words for words in map(_words, psutil.process_iter()) if ours in " ".join(words)]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_pages_are_safe_and_tell_nothing_secret(graded):
    for page in graded["output"].rglob("*.html"):
        text = page.read_text()
        assert "<script" not in text and "<img" not in text and "BEGIN SOLUTION" not in text
    for page in (graded["output"] / "feedback").glob("*.html"):
        for test in page.read_text().split("<li>")[1:]:
            if "secret" in test:  # a hidden test
                assert "LEAK" not in test and "77" not in test and "_means" not in test
