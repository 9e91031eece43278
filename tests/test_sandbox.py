"""The sandbox: what holds on each rung, what is said where none does, and the executor's answers."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from visdial_lab.errors import UserError
from visdial_lab.exercises import call, decode, encode_call
from visdial_lab.grading import sandbox, walls
from visdial_lab.grading.sandbox import RUNGS, Sandbox, Stopped, choose, problem_of
from visdial_lab.grading.walls import PLAIN, Limits

pytestmark = pytest.mark.slow  # sandboxes start and stop

_LIMITS = Limits(cell=20, call=20, memory=1 << 30, processes=40, output=1 << 20, disk=8 << 20, reply=1 << 20)


@pytest.fixture(params=[*RUNGS, PLAIN])
def box(request):
    if request.param != PLAIN and (problem := problem_of(request.param)):
        pytest.skip(f"SKIPPED: rung {request.param} is not there: {problem}")
    with Sandbox(request.param, _LIMITS) as made:
        yield made


def run(box, code, seconds=20):
    return box.ask({"run": code, "name": "test"}, seconds)


def result(box, function, *args):
    return decode(box.ask(encode_call(call(function, *args)), 20)["value"])


def test_cells_and_calls(box):
    assert "error" not in run(
        box, "import numpy as np\n\n\ndef double(x):\n    print('noise')\n    return 2 * x"
    )
    assert result(box, "double", [1]) == [1, 1]
    assert run(box, "1 / 0")["error"] == {
        "type": "ZeroDivisionError",
        "message": "division by zero",
        "line": 1,
    }
    assert run(box, "x = (")["error"]["type"] in (
        "SyntaxError",
        "_IncompleteInputError",
    )  # by Python's version
    missing = box.ask(encode_call(call("nobody")), 20)["error"]
    assert missing["type"] == "NameError"
    assert run(box, "raise SystemExit")["error"]["type"] == "SystemExit"
    assert result(box, "double", "a") == "aa"  # still alive


def test_a_forked_copy_takes_no_commands(box):
    run(box, "import os\ndef fork():\n    for _ in range(3): os.fork()\n    return 1")
    assert result(box, "fork") == 1
    run(box, "later = 5\ndef answer(): return later")  # a copy would not know it
    assert [result(box, "answer") for _ in range(20)] == [5] * 20


def test_a_syntax_error_says_its_line(box):
    error = run(box, "x = 1\ndef f()\n    pass")["error"]
    assert error == {"type": "SyntaxError", "message": "expected ':'", "line": 2}


def test_limits_inside(box):
    run(box, "import resource\ndef limits(): return [resource.getrlimit(n)[1] for n in "
             "(resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)]")  # fmt: skip
    assert result(box, "limits") == [1 << 30, 8 << 20, 0]
    assert run(box, "a = bytearray(2 << 30)")["error"]["type"] == "MemoryError"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("while True: pass", "took longer than 1 s"),
        ("while True: print('x' * 1000)", "printed more than 1 MB"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_stopping(box, code, words):
    run(box, "1")
    with pytest.raises(Stopped, match=words):
        run(box, code, 20 if "print" in code else 1)


_WATCH = """
import threading, time
gaps, last = [0.0], time.monotonic()
def watch():
    global last
    while True:
        time.sleep(0.01)
        gaps.append(time.monotonic() - last)
        last += gaps[-1]
threading.Thread(target=watch, daemon=True).start()
def longest():
    time.sleep(0.2)  # let it look at the clock
    return max(gaps)
"""


def test_a_frozen_sandbox_stands_still(box):
    run(box, _WATCH)
    with box.frozen():
        time.sleep(1.5)
    assert result(box, "longest") > 1.2


def test_nothing_outlives_the_sandbox(box):
    mark = f"time.sleep({1000 + random.random()})"  # another run of the tests has a number of its own

    def there():
        return [p for p in psutil.process_iter(["cmdline"]) if mark in str(p.info["cmdline"])]

    run(box, f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; {mark}'])")
    assert there()
    box.close()
    deadline = time.monotonic() + 30
    while there() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not there(), "a process of a submission is still there"


@pytest.mark.parametrize("rung", RUNGS[1:])
def test_it_dies_with_the_grader(rung, tmp_path):
    """A grader that is killed leaves nothing behind, not even a loop without end."""
    if problem := problem_of(rung):
        pytest.skip(f"SKIPPED: rung {rung} is not there: {problem}")
    code = (
        "import visdial_lab.grading.sandbox as s, threading, time\n"
        f"box = s.Sandbox({rung!r}, s.Limits())\nbox.ask({{'run': '', 'name': 'a'}}, 20)\n"
        "threading.Timer(0.3, lambda: print('running', flush=True)).start()\n"
        "box.ask({'run': 'marker = 654321\\nwhile True: pass', 'name': 'b'}, 60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    grader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    grader.stdout.readline()
    inside = psutil.Process(grader.pid).children(recursive=True)
    assert inside
    grader.send_signal(signal.SIGKILL)
    grader.wait()
    _, alive = psutil.wait_procs(inside, 5)
    assert not alive


def test_a_rung_that_leaks_is_not_trusted(monkeypatch, tmp_path):
    """A wall with a hole: the solutions are shown inside."""
    rung = next((name for name in RUNGS[1:] if problem_of(name) is None), None)
    if rung is None:
        pytest.skip("SKIPPED: no rung here")
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "secret").touch()
    real = walls.view
    monkeypatch.setattr(walls, "view", lambda: [*real(), (tmp_path / "solutions", True)])
    problem = sandbox.problem_of.__wrapped__(rung, (tmp_path / "solutions",))
    assert "it leaks: sees" in problem


def test_it_fails_closed(monkeypatch):
    monkeypatch.setattr(sandbox, "problem_of", lambda rung, secret=(): "not today")
    with pytest.raises(UserError, match=r"no sandbox works here .*--unsafe"):
        choose()
    assert choose(unsafe=True) == PLAIN
    with pytest.raises(UserError, match="no sandbox works here"):
        choose("unshare")
    with pytest.raises(UserError, match="no sandbox 'none'"):
        choose("none")


def test_the_strongest_rung_comes_first(monkeypatch):
    held = {"container": "no", "bubblewrap": None, "unshare": None}
    monkeypatch.setattr(sandbox, "problem_of", lambda rung, secret=(): held[rung])
    assert choose() == "bubblewrap"
    assert choose("unshare") == "unshare"
    held["container"] = None
    assert choose(unsafe=True) == "container"


def test_what_covers_what(monkeypatch, tmp_path):
    """A course inside of what is shown is covered up, and its own Python shown again on top."""
    course = tmp_path / "usr" / "course"
    for folder in (course / ".venv", course / "data" / "scenes", course / "visdial_lab"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(walls, "_SYSTEM", (str(tmp_path / "usr"),))
    monkeypatch.setattr(walls, "PACKAGE", course / "visdial_lab")
    monkeypatch.setattr(walls, "course_root", lambda: course)
    monkeypatch.setattr(walls.sys, "prefix", str(course / ".venv"))
    order = [path for path, _ in walls.view()]
    shown = dict(walls.view())
    assert shown[tmp_path / "usr"] and shown[course] is False and shown[course / ".venv"]
    assert order.index(tmp_path / "usr") < order.index(course) < order.index(course / ".venv")


@pytest.mark.parametrize("program", ["podman", "docker"])
def test_the_container_has_every_limit(monkeypatch, program):
    monkeypatch.setattr(walls, "engine", lambda: (program,))
    monkeypatch.setattr(walls, "_image", lambda program, empty: ["image"])
    monkeypatch.setattr(walls.os, "chmod", lambda *_: None)
    words = walls.command("container", Limits(), "name", "/nowhere")
    line = " ".join(words)
    for part in (
        *("--network none", "--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--rm"),
        *(f"--memory {4 << 30}", f"--memory-swap {4 << 30}", "--pids-limit 64", "--cpus 1", "/tmp:size="),
    ):
        assert part in line
    assert all(word.endswith(":ro") for word in words if word.startswith("/usr:"))
    assert words.index("image") < words.index("-i")
