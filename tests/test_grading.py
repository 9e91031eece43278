"""Submissions from every source, grading end to end, what is written, what a second run costs."""

import csv
import datetime
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import hostile
import psutil
import pytest
import tiny_problem_set
from conftest import hear_ctrl_c

from visdial_lab.cli import main
from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.grading import pile, scoring
from visdial_lab.grading.pile import Lateness, grade
from visdial_lab.grading.problem_sets import load
from visdial_lab.grading.release import release
from visdial_lab.grading.sandbox import choose
from visdial_lab.grading.similarity import similar_pairs
from visdial_lab.grading.submissions import MAX_BYTES, Submission, cells_of, collect
from visdial_lab.grading.walls import Limits
from visdial_lab.progress import progress

pytestmark = pytest.mark.slow  # sandboxes start and stop

# ruff: noqa: E501

GOOD = {"ps0-mean-code": hostile.GOOD, "ps0-rows-code": hostile.ROWS}
HALF = {"ps0-mean-code": "def mean(values):\n    return sum(values) / len(values)", "ps0-rows-code": "1 / 0"}
LIMITS = Limits(cell=20, call=5, memory=1 << 30)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    release("ps0", folder / "assignments", tiny_problem_set.build(folder))
    return folder


@pytest.fixture
def notebook(course):
    """notebook(answers) → the bytes of a student's notebook."""
    return lambda answers=None, **more: json.dumps(
        tiny_problem_set.submission(course / "assignments" / "ps0", answers, **more)
    ).encode()


@pytest.fixture
def submitted(tmp_path, notebook):
    folder = tmp_path / "submitted"
    folder.mkdir()
    (folder / "ada.ipynb").write_bytes(notebook(GOOD))
    (folder / "bob.ipynb").write_bytes(notebook(HALF))
    (folder / "cleo.ipynb").write_bytes(notebook())
    return folder


@pytest.fixture
def graded(course, submitted, tmp_path):
    """graded(**options) → {student: result}."""

    def run(**options):
        options = {"rung": None, "unsafe": True, "limits": LIMITS} | options
        results = grade(submitted, "ps0", tmp_path / "out", solutions=course / "solutions", **options)
        return {result["student"]: result for result in results}

    return run


# ---- collecting


def names_of(entries):
    return {entry.student: entry.problem for entry in entries}


def test_a_folder_of_notebooks_and_of_folders(tmp_path, notebook):
    for path in (
        *("ada.ipynb", "ps0_bob.ipynb", "cleo_ps0.ipynb", "dan/ps0/ps0.ipynb", "eve/other.ipynb"),
        *("eve/my ps0 final.ipynb", "fay+ps0+2026-10-01 10:00:00 UTC+abc/ps0.ipynb", "gil+ps1+x/ps1.ipynb"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"other" if "other" in path else notebook())
    (tmp_path / "hal").mkdir()
    (tmp_path / ".hidden.ipynb").touch()
    (tmp_path / "notes.txt").touch()
    found = {entry.student: entry for entry in collect(tmp_path, "ps0")}
    assert list(found) == ["ada", "bob", "cleo", "dan", "eve", "fay", "hal"]
    assert found["eve"].data == notebook() and found["hal"].problem == "no notebook was handed in"


def test_when_it_was_handed_in(tmp_path, notebook):
    (tmp_path / "ada" / "ps0").mkdir(parents=True)
    (tmp_path / "ada" / "ps0" / "ps0.ipynb").write_bytes(notebook())
    (tmp_path / "ada" / "ps0" / "timestamp.txt").write_text("2026-10-01 12:30:00.000001 UTC\n")
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "ps0.ipynb").write_bytes(notebook())
    (tmp_path / "bob" / "timestamp.txt").write_text("2026-10-01 12:30")  # no zone: UTC, as nbgrader's are
    (tmp_path / "bob.ipynb").write_bytes(notebook())
    ada, bob = collect(tmp_path, "ps0")
    assert ada.handed_in.isoformat(timespec="minutes") == "2026-10-01T12:30+00:00"
    assert bob.handed_in > ada.handed_in and "more than once" in bob.notes[0]
    (tmp_path / "bob.ipynb").unlink()
    bob = collect(tmp_path, "ps0")[1]
    assert bob.handed_in.isoformat() == "2026-10-01T12:30:00+00:00" and not bob.notes
    for unreadable in ("2026-10-01 12:30 CEST", "tomorrow", "\0" * 300):
        (tmp_path / "bob" / "timestamp.txt").write_text(unreadable)
        bob = collect(tmp_path, "ps0")[1]
        assert bob.handed_in > ada.handed_in and "no time that can be read" in bob.notes[0]


@pytest.mark.parametrize(
    ("member", "student"),
    [
        ("Ada Example_123_assignsubmission_file_/ps0.ipynb", "Ada Example"),
        ("exampleada_123_4567_ps0-2.ipynb", "exampleada"),
        ("exampleada_LATE_123_4567_ps0.ipynb", "exampleada"),
        ("submitted/ada/ps0/ps0.ipynb", "ada"),
        ("ada/ps0.ipynb", "ada"),
        ("ada.ipynb", "ada"),
    ],
)
def test_a_platforms_zip(tmp_path, notebook, member, student):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(member, notebook())
        archive.writestr("__MACOSX/x.ipynb", b"")
    assert names_of(collect(tmp_path / "all.zip", "ps0")) == {student: None}


def packed(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"ps0/{name}.ipynb", data)
            archive.writestr(f"ps0/.ipynb_checkpoints/{name}-checkpoint.ipynb", b"{old")
            archive.writestr("ps0/checks.json", b"{}")
    return file.getvalue()


@pytest.mark.parametrize("form", ["{}_1{}_assignsubmission_file_/ps0.zip", "제출 ps0/{}.zip", "{}.zip"])
def test_students_zips_in_a_platforms_zip(tmp_path, notebook, form):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(form.format("김 민서", 1), packed(ps0=notebook()))
        archive.writestr(form.format("Bob", 2), b"PK no zip")
        archive.writestr(form.format("Cleo", 3), packed())
        archive.writestr("Dan_7_assignsubmission_onlinetext_/onlinetext.html", b"see my mail")
    found = {entry.student: entry for entry in collect(tmp_path / "all.zip", "ps0")}
    assert set(found) == {"김 민서", "Bob", "Cleo", "Dan"}
    assert found["김 민서"].problem is None and found["김 민서"].data == notebook()
    assert "zip cannot be read" in found["Bob"].problem and "no notebook" in found["Cleo"].problem
    assert found["Dan"].problem == "no notebook was handed in, only onlinetext.html"


def test_a_zip_in_a_students_zip_is_not_opened(tmp_path, notebook):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as nested:
            nested.writestr("deeper.zip", packed(ps0=notebook()))
        archive.writestr("ada.zip", inner.getvalue())
    assert names_of(collect(tmp_path / "all.zip", "ps0")) == {"ada": "the zip holds no notebook"}


@pytest.mark.parametrize(
    "member", ["../../ada.ipynb", "/etc/ada.ipynb", "x\\..\\..\\ada.ipynb", "C:/ada.ipynb"]
)
def test_a_zip_that_points_outside(tmp_path, notebook, member):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(member, notebook())
        archive.writestr("bob/ps0.ipynb", notebook())
    before = sorted(tmp_path.rglob("*"))
    found = names_of(collect(tmp_path / "all.zip", "ps0"))
    assert "outside the zip" in found["ada"] and found["bob"] is None
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked


def test_a_students_own_zip_speaks_for_nobody_else(tmp_path, notebook):
    with zipfile.ZipFile(tmp_path / "eve.zip", "w") as archive:
        archive.writestr("ada.ipynb", b"{}")
        archive.writestr("../ada.ipynb", b"{}")
    (tmp_path / "ada.ipynb").write_bytes(notebook())
    found = {entry.student: entry for entry in collect(tmp_path, "ps0")}
    assert set(found) == {"ada", "eve"} and found["ada"].data == notebook()


def test_links_pipes_and_big_files(tmp_path, course, notebook):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "ada.ipynb").symlink_to(course / "solutions" / "ps0" / "ps0.ipynb")
    (tmp_path / "s" / "bob").symlink_to(course / "solutions" / "ps0")
    os.mkfifo(tmp_path / "s" / "cleo.ipynb")
    with (tmp_path / "s" / "dan.ipynb").open("wb") as file:
        file.truncate(100 << 20)
    (tmp_path / "s" / "eve").mkdir()
    (tmp_path / "s" / "eve" / "ps0.ipynb").symlink_to("/etc/passwd")
    with zipfile.ZipFile(tmp_path / "s" / "fay.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ps0.ipynb", bytes(MAX_BYTES + 1))  # a bomb: small here, large inside
    (tmp_path / "s" / "gil.zip").write_bytes(b"PK\x03\x04 no zip")
    found = names_of(collect(tmp_path / "s", "ps0"))
    assert all("link" in found[name] for name in ("ada", "bob", "eve"))
    assert found["cleo"] == "is not a file" and "zip" in found["gil"]
    assert "larger than 20 MB" in found["dan"] and "larger than 20 MB" in found["fay"]


def test_a_damaged_or_odd_zip_harms_nobody(tmp_path, notebook):
    (tmp_path / "ada.ipynb").write_bytes(notebook())
    for name, kind in (("bob", zipfile.ZIP_DEFLATED), ("cleo", zipfile.ZIP_LZMA), ("dan", zipfile.ZIP_BZIP2)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", kind) as archive:
            archive.writestr("ps0.ipynb", notebook() * 20)
        data = bytearray((tmp_path / f"{name}.zip").read_bytes())
        data[60:200] = bytes(140)
        (tmp_path / f"{name}.zip").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "eve.zip", "w") as archive:
        archive.writestr(".", b"")  # the folder itself: a path of no parts
        archive.writestr("ps0.ipynb", notebook())
    found = names_of(collect(tmp_path, "ps0"))
    assert found["ada"] is None and found["eve"] is None
    assert all("cannot be read" in found[name] for name in ("bob", "cleo", "dan"))


def test_the_latest_readable_submission_counts(tmp_path, notebook):
    for number, (name, data) in enumerate({"a": b"1", "b": b"2"}.items()):
        path = tmp_path / f"ada+ps0+2026-10-0{number + 1} 10:00:00 UTC+{name}" / "ps0.ipynb"
        path.parent.mkdir()
        path.write_bytes(data)
        os.utime(path, (number, number))
    entry = collect(tmp_path, "ps0")[0]
    assert entry.data == b"2" and "more than once" in entry.notes[0]


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no submissions for ps0"):
        collect(tmp_path, "ps0")
    with pytest.raises(UserError, match="submissions not found"):
        collect(tmp_path / "x", "ps0")


def test_names_of_students_are_safe_as_file_names():
    names = ["ada", "../../etc", "a/b", "a_b", "a b", "", "ä" * 300, "con\0", "<script>"]
    files = [Submission(name).file_name for name in names]
    assert len(set(files)) == len(files)
    assert all("/" not in file and not file.startswith(".") and 0 < len(file) < 80 for file in files)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"cells": 1}', b'{"cells": [1]}', b'{"worksheets": []}'),
        *(b'{"cells": [{"source": 5}]}', b'{"cells": [{"source": [1]}]}', b"[" * 200_000, b"1" * 10_000),
    ],
)
def test_what_is_no_notebook_is_said(data):
    with pytest.raises(UserError, match="is not a notebook"):
        cells_of(data)


def test_odd_marks_are_no_marks():
    odd = [
        {"source": "x", "metadata": m}
        for m in (None, 5, {"nbgrader": 3}, {"nbgrader": {"grade_id": [1]}}, {})
    ]
    assert [cell["id"] for cell in cells_of(json.dumps({"cells": odd}).encode())] == [None] * 5


# ---- grading


def test_scores_and_what_is_written(graded, tmp_path):
    results = graded()
    assert {name: result["earned"] for name, result in results.items()} == {"ada": 7, "bob": 3, "cleo": 0}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "grades.csv").read_text("utf-8-sig"))))
    assert [(row["student"], row["score"], row["max"], row["percent"]) for row in rows] == [
        *(("ada", "7", "7", "100.0"), ("bob", "3", "7", "42.9"), ("cleo", "0", "7", "0.0"))
    ]
    document = json.loads((tmp_path / "out" / "grades.json").read_text())
    assert document["assignment"] == "ps0" and len(document["results"]) == 3
    page = (tmp_path / "out" / "feedback" / "bob.html").read_text()
    for words in (
        "an empty list of secrets",
        "the edge of a definition",
        "raised ZeroDivisionError",
        "3</b>",
    ):
        assert words in page
    for secret in ("lambda", "_means", "ada", "cleo", "asarray"):
        assert secret not in page
    assert len(page) < 20_000
    index = (tmp_path / "out" / "index.html").read_text()
    assert 'href="feedback/bob.html"' in index and "hardest first" in index


def test_visible_tests_know_nothing_of_hidden_inputs(graded, submitted, notebook, tmp_path):
    """What a visible test says is shown in full: it runs before any hidden input is there."""
    spy = "seen = []\n\n\ndef mean(values):\n    seen.append(values)\n    return 0.0"
    tell = "def rows(matrix, n):\n    raise ValueError(f'seen: {len(seen)}')"
    (submitted / "eve.ipynb").write_bytes(notebook({"ps0-mean-code": spy, "ps0-rows-code": tell}))
    tests = graded()["eve"]["tests"]
    assert [test["name"] for test in tests][:2] == ["small lists", "random lists of secret kinds"]
    # seen: by the cell that shows the answers, and by the one visible test
    assert next(test["said"] for test in tests if test["name"] == "two rows").endswith("seen: 2")


def test_inputs_differ_between_students_and_stay_the_same_for_one(graded, monkeypatch):
    seeds, real = [], scoring.draw
    monkeypatch.setattr(scoring, "draw", lambda test, seed: seeds.append(seed) or real(test, seed))
    graded()
    assert set(seeds) == {"visible", "ps0 ada", "ps0 bob", "ps0 cleo"}


def test_a_second_run_grades_only_what_changed(graded, submitted, notebook, monkeypatch):
    first, ran, real = graded(jobs=2), [], pile.grade_one
    monkeypatch.setattr(pile, "grade_one", lambda given, entry, *rest: ran.append(entry.student)
                        or real(given, entry, *rest))  # fmt: skip
    assert graded() == first and ran == []
    (submitted / "cleo.ipynb").write_bytes(notebook(GOOD))
    assert graded()["cleo"]["earned"] == 7 and ran == ["cleo"]
    assert graded(limits=Limits(cell=21))["ada"]["earned"] == 7 and sorted(ran[1:]) == ["ada", "bob", "cleo"]
    graded(limits=Limits(cell=21), resume=False)
    assert len(ran) == 7


def test_who_is_slow_is_said_while_nothing_else_happens(graded, monkeypatch, capsys):
    real = pile.grade_one
    monkeypatch.setattr(pile, "grade_one", lambda given, entry, *rest: time.sleep(3.5 * (entry.student == "bob"))
                        or real(given, entry, *rest))  # fmt: skip
    monkeypatch.setattr(pile, "time", SimpleNamespace(monotonic=lambda: 10 * time.monotonic()))
    with progress("grading ps0") as update:
        assert graded(jobs=2, progress=update)["bob"]["earned"] == 3
    lines = capsys.readouterr().err.splitlines()
    slow = [line for line in lines if "at work on" in line and "bob" in line]
    assert len(slow) >= 2 and re.search(
        r"^grading ps0: \d of 3, \d+ s.*, at work on .*bob \([1-9]0 s\)", slow[0]
    )
    assert re.search(r"^grading ps0: 3 of 3, \d+ s$", lines[-1])


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_grader_that_is_stopped_goes_on_where_it_was(course, submitted, notebook, tmp_path, sent):
    for number in range(6):
        (submitted / f"slow{number}.ipynb").write_bytes(notebook(GOOD, more="import time; time.sleep(1)"))
    code = (
        "from pathlib import Path; from visdial_lab.grading.pile import grade; from visdial_lab.grading.walls import Limits\n"
        f"grade(Path({str(submitted)!r}), 'ps0', Path({str(tmp_path / 'out')!r}), 2, unsafe=True,"
        f" solutions=Path({str(course / 'solutions')!r}))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", code]
    grader = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, preexec_fn=hear_ctrl_c)
    kept = tmp_path / "out" / "results"
    while grader.poll() is None and (not kept.is_dir() or len(list(kept.glob("*.json"))) < 4):
        time.sleep(0.05)
    inside = psutil.Process(grader.pid).children(recursive=True)
    grader.send_signal(sent)
    assert grader.wait(30) != 0
    assert not psutil.wait_procs(inside, 10)[1], "something still runs"
    finished = {path: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    subprocess.run(command, env=environment, check=True)
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    document = json.loads((tmp_path / "out" / "grades.json").read_text())
    assert [result["earned"] for result in document["results"]] == [7, 3, 0, *[7] * 6]


def test_a_folder_with_other_things_in_it_is_left_alone(course, submitted, tmp_path, monkeypatch, run):
    monkeypatch.setattr(pile, "load", lambda name, _: load(name, course / "solutions"))
    out = tmp_path / "thesis"
    words = ["grade", submitted, "--assignment", "ps0", "--unsafe", "--output"]
    (out / "results").mkdir(parents=True)
    (out / ".DS_Store").touch()
    for name in ("notes.txt", "grades.csv"):  # neither a folder `results` nor a grades.csv makes it ours
        (out / name).write_text("my own")
        code, said, err = run(*words, out)
        assert (code, said) == (2, "") and err.count("\n") == 1
        assert f"will not replace {out}: it holds other files (no grades.json); name a new folder" in err
        assert (out / name).read_text() == "my own" and not list(out.glob("*/*"))
    assert run(*words, out / "notes.txt")[0] == 2  # no folder at all
    (out / "notes.txt").unlink()
    assert run(*words, out)[0] == 0  # as a grading that was stopped leaves it
    (out / "notes.txt").write_text("on what came out")
    assert run(*words, out)[0] == 0 and (out / "notes.txt").read_text() == "on what came out"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".DS_Store").touch()
    assert run(*words, tmp_path / "new")[0] == 0


def test_a_damaged_result_is_made_again(graded, tmp_path):
    graded()
    (tmp_path / "out" / "results" / "ada.json").write_text('{"made_from"')
    assert graded()["ada"]["earned"] == 7


def test_a_broken_submission_has_a_verdict_and_harms_nobody(graded, submitted, tmp_path):
    (submitted / "dan.ipynb").write_text("{nope")
    (submitted / "eve.ipynb").symlink_to("/etc/passwd")
    (submitted / "=1+1.ipynb").write_text(json.dumps({"cells": []}))
    results = graded()
    assert results["ada"]["earned"] == 7
    assert "not valid JSON" in results["dan"]["problem"] and "link" in results["eve"]["problem"]
    assert "The submission is a link" in (tmp_path / "out" / "feedback" / "eve.html").read_text()
    assert "\n'=1+1," in (tmp_path / "out" / "grades.csv").read_text()
    assert "the answer cell of ps0.mean is missing; other cells count" in results["=1+1"]["notes"]


def test_a_notebook_of_another_problem_set_is_said(graded, submitted, notebook):
    text = notebook(GOOD).decode().replace('"ps0-', '"ps3-')
    (submitted / "ada.ipynb").write_text(text)
    result = graded()["ada"]
    assert result["problem"] == "is a notebook of ps3, not of ps0" and result["earned"] == 0


def test_marks_by_hand_are_in_the_table_and_on_the_page(graded, tmp_path):
    mark = {"ps0-open": {"mark": 2.5, "comment": "Which <b>middle</b>?"}}
    graded(marks={"bob": mark})
    rows = {row["student"]: row for row in csv.DictReader(io.StringIO(_csv(tmp_path)))}
    assert [rows["bob"][key] for key in ("score", "open", "open max", "total")] == ["3", "2.5", "5", "5.5"]
    assert rows["ada"]["open"] == "" and rows["ada"]["total"] == ""  # not marked yet
    page = (tmp_path / "out" / "feedback" / "bob.html").read_text()
    assert "2.5 of 5 points" in page and "Which &lt;b&gt;middle" in page and "Together: 5.5 of 12" in page
    graded(marks={"bob": mark}, lateness=Lateness(_due(), 0, 100))
    rows = {row["student"]: row for row in csv.DictReader(io.StringIO(_csv(tmp_path)))}
    assert rows["bob"]["total"] == "0"  # what is late costs the whole
    graded(marks={"bob": mark}, lateness=Lateness(_yesterday(), 0, 20))
    page = (tmp_path / "out" / "feedback" / "bob.html").read_text()
    assert "Together: 4.4 of 12, 1.1 deducted for 1 day late." in page  # of the mark by hand, too


def _csv(tmp_path):
    return (tmp_path / "out" / "grades.csv").read_text(encoding="utf-8-sig")


def _due():
    return datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def _yesterday():
    """Now is within the first day after it."""
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=12)


def test_half_characters_harm_nobody(graded, submitted, notebook, tmp_path):
    """JSON can hold half a surrogate pair, which no file can: in code, in messages, in a file's name."""
    half = "raise ValueError('\ud800')  # \ud800"
    answers = {
        "ps0-mean-code": half,
        "ps0-rows-code": "def rows(matrix, n):\n    raise RuntimeError(chr(0xd800))",
    }
    (submitted / "dan.ipynb").write_bytes(notebook(answers, more="raise ValueError(chr(0xd800))"))
    (submitted / "eve\udcff.ipynb").write_bytes(notebook(GOOD))
    results = graded()
    assert results["ada"]["earned"] == 7 and results["dan"]["earned"] == 0
    assert next(result["earned"] for name, result in results.items() if name.startswith("eve")) == 7
    assert graded() == results  # what was kept can be read


@pytest.mark.parametrize(
    ("late", "days", "left"),
    [
        ("0 s", 0, 1),
        ("1 us", 1, 1),
        ("12 h", 1, 1),
        ("24 h", 1, 1),
        ("25 h", 2, 1),
        ("60 h", 3, 0.9),
        ("264 h", 11, 0.1),
        ("2400 h", 100, 0),
        ("-48 h", 0, 1),
    ],
)
def test_every_day_begun_counts_and_nothing_falls_below_zero(late, days, left):
    number, unit = late.split()
    names = {"s": "seconds", "us": "microseconds", "h": "hours"}
    handed_in = _due() + datetime.timedelta(**{names[unit]: int(number)})
    lateness = Lateness(_due(), free_days=2, penalty=10)
    assert lateness.days(handed_in) == days and lateness.factor(days) == pytest.approx(left)


def test_late_days(graded):
    due = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=60)  # two and a half days
    result = graded(lateness=Lateness(due, free_days=1, penalty=10))["ada"]
    assert (result["days_late"], result["earned"], result["score"]) == (3, 7, 5.6)
    later = graded(lateness=Lateness())["ada"]  # nothing runs again
    assert (later["days_late"], later["score"]) == (0, 7)


def test_the_machines_fault_is_not_the_students(graded, monkeypatch, tmp_path):
    real = pile.score

    def fail(given, student, reference, seed):
        if "bob" in seed:
            raise WorkFailed("the sandbox does not start")
        return real(given, student, reference, seed)

    monkeypatch.setattr(pile, "score", fail)
    assert "could not be graded" in graded()["bob"]["problem"]
    assert not (tmp_path / "out" / "results" / "bob.json").exists()
    monkeypatch.setattr(pile, "score", real)
    assert graded()["bob"]["earned"] == 3


def test_a_reference_that_fails_ends_everything(course, submitted, tmp_path):
    solutions = tiny_problem_set.build(tmp_path / "other")
    path = solutions / "ps0" / "ps0.ipynb"
    path.write_text(path.read_text().replace("print(mean", "1 / 0; print(mean"))
    with pytest.raises(WorkFailed, match="the reference solution fails in cell ps0-show"):
        grade(submitted, "ps0", tmp_path / "out", unsafe=True, solutions=solutions)


def test_a_measured_speed_up(tmp_path):
    """An answer must beat the reference's slow function; a cache of results gains nothing."""
    solutions = tiny_problem_set.build(tmp_path)
    path = solutions / "ps0" / "ps0.ipynb"
    path.write_text(path.read_text().replace("def twice(x):", "import time\\n\\ndef slow(v):\\n    time.sleep(0.05)"
                                             "\\n    return float(np.mean(v))\\n\\n\\ndef twice(x):"))  # fmt: skip
    hidden = solutions / "ps0" / "hidden.py"
    text = hidden.read_text().replace('count", 2, _means', 'count", 2, _means, faster_than="slow", by=3.0')
    hidden.write_text(text)
    release("ps0", tmp_path / "assignments", solutions)
    submitted = tmp_path / "submitted"
    submitted.mkdir()
    fast, slow = hostile.GOOD, "def mean(values):\n    return slow(values) if values else 0.0"
    for name, code in {"fast": fast, "slow": slow, "caching": f"import functools\n{slow}"}.items():
        made = tiny_problem_set.submission(tmp_path / "assignments" / "ps0", GOOD | {"ps0-mean-code": code})
        (submitted / f"{name}.ipynb").write_text(json.dumps(made))
    results = grade(submitted, "ps0", tmp_path / "out", unsafe=True, solutions=solutions)
    assert {result["student"]: result["earned"] for result in results} == {"caching": 5, "fast": 7, "slow": 5}
    said = next(r for r in results if r["student"] == "slow")["tests"][1]["said"]
    assert "times as fast as slow; asked for 3" in said


def test_without_a_sandbox_nothing_runs(graded, monkeypatch):
    monkeypatch.setattr(pile, "choose", lambda rung, unsafe, secret: choose("unshare") and None)
    monkeypatch.setattr("visdial_lab.grading.sandbox.problem_of", lambda rung, secret=(): "not here")
    with pytest.raises(UserError, match="no sandbox works here"):
        graded(unsafe=False)


# ---- alike


PAIR = "def mean(values):\n    total = 0\n    for position in range(len(values)):\n" \
       "        total = total + values[position]\n    if len(values) == 0:\n        return 0.0\n" \
       "    result = total / len(values)\n    return result\n"  # fmt: skip
OWN = "def mean(numbers):\n    import functools, operator\n    if numbers == []: return float(0)\n" \
      "    added = functools.reduce(operator.add, numbers, 0.0)\n    return added * (1 / len(numbers)) + 0 * added\n"  # fmt: skip


def test_a_copy_with_other_names_is_found_and_others_are_not():
    answers = {
        "ada": {"ps0.mean": PAIR},
        "bob": {"ps0.mean": "# all my own work\n" + PAIR.replace("total", "s").replace("position", "k")},
        "cleo": {"ps0.mean": OWN},
    }
    pairs = similar_pairs(answers, {"ps0.mean": [hostile.GOOD]})
    assert [pair["students"] for pair in pairs] == [["ada", "bob"]]
    assert pairs[0]["share"] > 0.9 and pairs[0]["exercises"] == ["ps0.mean"]


def test_what_the_reference_or_many_have_is_no_sign():
    answers = {name: {"ps0.mean": PAIR} for name in "abcdefgh"}
    assert similar_pairs(answers, {"ps0.mean": []}) == []
    assert similar_pairs({n: {"ps0.mean": PAIR} for n in "ab"}, {"ps0.mean": [PAIR]}) == []
    assert similar_pairs({n: {"ps0.mean": "def ((( '''"} for n in "ab"}, {"ps0.mean": []}) == []


# ---- nbgrader and the command line


@pytest.mark.slow
def test_the_gradebook(course, graded, submitted):
    from nbgrader.api import Gradebook

    from visdial_lab.grading.gradebook import import_results, marks_by_hand

    given = load("ps0", course / "solutions")
    (submitted / "dan.ipynb").write_text("{nope")
    odd = json.loads((submitted / "cleo.ipynb").read_bytes())
    odd["cells"] += [
        {"cell_type": "code", "source": "1"},
        {"source": "2", "metadata": {"nbgrader": "x\ud800"}},
    ]
    (submitted / "cleo.ipynb").write_text(json.dumps(odd))
    results, notebooks = list(graded().values()), {e.student: e.data for e in collect(submitted, "ps0")}
    assert import_results(given, results, notebooks, course) == 3
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "visdial-lab") as gradebook:
        bob = gradebook.find_submission("ps0", "bob")
        assert (bob.score, bob.max_score, bob.needs_manual_grade) == (3, 12, True)
        gradebook.find_grade("ps0-open", "ps0", "ps0", "bob").manual_score = 4
        comment = gradebook.find_comment("ps0-open", "ps0", "ps0", "bob")
        comment.manual_comment = "good"
        gradebook.db.commit()
        assert gradebook.find_student("bob").last_name == "bob"
    assert marks_by_hand("ps0", course) == {"bob": {"ps0-open": {"mark": 4.0, "comment": "good"}}}
    assert marks_by_hand("ps1", course) == marks_by_hand("ps0", submitted) == {}
    assert import_results(given, results, notebooks, course) == 3  # again: the mark by hand stays
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "visdial-lab") as gradebook:
        bob = gradebook.find_submission("ps0", "bob")
        assert (bob.score, bob.needs_manual_grade) == (7, False)
    from nbgrader.apps import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory

    formgrader = NbGraderAPI(CourseDirectory(root=str(course)))
    assert formgrader.get_submitted_students("ps0") == formgrader.get_autograded_students("ps0")
    assert len(formgrader.get_notebook_submissions("ps0", "ps0")) == 3
    shown = json.loads((course / "autograded" / "bob" / "ps0" / "ps0.ipynb").read_text())
    marks = [
        cell["metadata"]["nbgrader"]["grade_id"] for cell in shown["cells"] if "nbgrader" in cell["metadata"]
    ]
    assert "ps0-open" in marks and len(set(marks)) == len(marks)


def test_the_commands(course, submitted, tmp_path, monkeypatch, capsys):
    real = pile.load
    monkeypatch.setattr(pile, "load", lambda name, _: real(name, course / "solutions"))
    words = ["grade", submitted, "--assignment", "ps0", "--output", tmp_path / "out", "-j", "2", "--unsafe"]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert stop.value.code == 0 and "3 submissions, mean 3.33 of 7" in said.out and "3 of 3" in said.err
    here = ["grade", str(submitted), "--assignment", "ps0"]
    for words, message in (
        ([*here, "--due", "soon"], "--due 'soon' is no time"),
        ([*here, "--due", "9999-12-31T23:59-14:00"], "is no time"),
        ([*here, "--due", "2026-10-01"], "write --due 2026-10-01T23:59"),
        ([*here, "--late-penalty", "10"], "count from --due"),
        ([*here, "--free-days", "2"], "count from --due"),
        ([*here, "--due", "2026-10-01T23:59", "--late-penalty", "nan"], "--late-penalty"),
        ([*here, "--due", "2026-10-01T23:59", "--late-penalty", "-5"], "--late-penalty"),
        ([*here, "--due", "2026-10-01T23:59", "--free-days", "0.5"], "--free-days"),
        (["grade", str(tmp_path / "x"), "--assignment", "ps0"], "submissions not found"),
        (["release", "ps99"], "no problem set 'ps99'"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2 and message in capsys.readouterr().err
