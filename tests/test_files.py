"""Nothing half-written under a final name, and reading errors that name the place."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visdial_lab import files
from visdial_lab.errors import UserError


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if ".tmp-" in p.name]


def test_written_on_success_with_the_same_suffix_and_normal_rights(tmp_path):
    target = tmp_path / "new" / "folder" / "a.npz"
    with files.atomic_path(target) as temporary:
        assert temporary.suffix == ".npz" and temporary.parent == target.parent
        temporary.write_text("x")
        assert not target.exists()
    assert target.read_text() == "x" and not leftovers(target.parent)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert target.stat().st_mode == plain.stat().st_mode


def test_whoever_reads_the_old_file_reads_it_to_the_end(tmp_path):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with target.open() as reader:
        files.write_text(target, "new and longer")
        assert reader.read() == "old"  # renamed over, never written into


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file(tmp_path, failure):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(failure), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise failure
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_full_disk_and_rights_are_user_errors(tmp_path, number):
    with (
        pytest.raises(UserError, match=r"cannot write .*a\.txt"),
        files.atomic_path(tmp_path / "a.txt") as path,
    ):
        path.write_text("half")
        raise OSError(number, os.strerror(number))
    assert os.listdir(tmp_path) == []


def test_a_bug_stays_a_bug(tmp_path):
    with pytest.raises(FileNotFoundError), files.atomic_path(tmp_path / "a.txt"):
        Path(tmp_path / "not there").read_text()


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        files.write_text(tmp_path / "file" / "below", "x")
    with pytest.raises(UserError, match="not a file"):
        files.write_text(tmp_path, "x")
    with pytest.raises(UserError, match="not a file"):
        files.write_text("/dev/null", "x")  # replacing it would break the machine
    with pytest.raises(UserError, match="cannot write"):
        files.write_text(tmp_path / ("n" * 300), "x")


def test_a_link_survives_and_its_target_is_written(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "big" / "file")
    files.write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "big" / "file").read_text() == "x"


def test_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "adapter"
    for content in ("one", "two"):
        with files.atomic_folder(target) as temporary:
            (temporary / "lab.json").write_text(content)
            (temporary / content).write_text("")
    assert sorted(os.listdir(target)) == ["lab.json", "two"] and os.listdir(tmp_path) == ["adapter"]


def test_folder_failure_leaves_the_old_one(tmp_path):
    target = tmp_path / "adapter"
    with files.atomic_folder(target) as temporary:
        (temporary / "lab.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), files.atomic_folder(target) as temporary:
        (temporary / "lab.json").write_text("new")
        raise KeyboardInterrupt
    assert (target / "lab.json").read_text() == "old" and os.listdir(tmp_path) == ["adapter"]


def test_folder_failing_at_the_last_step_puts_the_old_one_back(tmp_path, monkeypatch):
    target = tmp_path / "adapter"
    with files.atomic_folder(target) as temporary:
        (temporary / "lab.json").write_text("old")
    rename = os.rename

    def refuse(source, destination):
        if ".tmp-" in str(source) and not str(source).endswith(".old"):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(UserError, match="No space"), files.atomic_folder(target) as temporary:
        (temporary / "lab.json").write_text("new")
    assert (target / "lab.json").read_text() == "old" and os.listdir(tmp_path) == ["adapter"]


def test_a_folder_of_someone_elses_is_never_replaced(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(home)
    for name in (home, ".", "../home", "/"):
        with pytest.raises(UserError, match="will not replace"), files.atomic_folder(name):
            pytest.fail("must refuse before any work is done")
    assert (home / "thesis.txt").exists()
    with pytest.raises(UserError, match="in the way"), files.atomic_folder(home / "thesis.txt"):
        pass


def test_empty_folder_and_own_marker(tmp_path):
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        with files.atomic_folder(tmp_path / "empty", marker="card.json") as temporary:
            (temporary / "card.json").write_text("{}")
    assert os.listdir(tmp_path / "empty") == ["card.json"]


def test_json_round_trip(tmp_path):
    value = {"한글": ["é", 1, None, 0.25]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert "한글" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "b.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == ["a.json"]


def test_jsonl_round_trip_streams(tmp_path):
    path = tmp_path / "r.jsonl"
    assert files.write_jsonl(path, ({"n": n, "line": "a\u2028b\u0085"} for n in range(3))) == 3
    assert [row["n"] for row in files.read_jsonl(path)] == [0, 1, 2]
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert len(files.read_jsonl(path)) == 3

    def broken():
        yield {}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.write_jsonl(path, broken())
    assert len(files.read_jsonl(path)) == 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 1,\n "b": [1, 2', "line 2, column 12: not valid JSON (the file ends too early"),
        (b"", "line 1, column 1: not valid JSON (the file ends too early"),
        (b'{"a": 1,\n  b: 2}', "line 2, column 3"),
        (b'{"a": \xff}', "line 1: not UTF-8"),
        (b"{}\n\n\x80\x81\n", "line 3: not UTF-8"),
        (b"[" * 100_000, "not usable JSON"),
        (b"[" + b"1" * 5000 + b"]", "not usable JSON"),
    ],
)
def test_bad_json_names_file_line_and_column(tmp_path, content, expected):
    path = tmp_path / "d.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        files.read_json(path, "dialogs file")
    assert f"dialogs file {path}" in str(caught.value) and expected in str(caught.value)


def test_bad_jsonl_names_the_line_of_the_file(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(UserError, match=r"records .*line 3, column 7.*ends too early"):
        files.read_jsonl(path, "records")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(UserError, match=r"dialogs file not found: .*none\.json"):
        files.read_json(tmp_path / "none.json", "dialogs file")
    with pytest.raises(UserError, match="that is a folder"):
        files.read_json(tmp_path, "dialogs file")
    with pytest.raises(UserError, match=r"file not found: .*none\.json \(its folder holds nothing\)"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match=rf"none\.json \(no folder {tmp_path / 'gone'}\)"):
        files.read_json(tmp_path / "gone" / "none.json")


def test_what_is_there_instead_of_a_missing_file(tmp_path):
    for name in ("b.json", "a.json", ".hidden.json", *(f"{n}.txt" for n in range(6))):
        (tmp_path / name).touch()
    (tmp_path / "c").mkdir()
    (tmp_path / "x.json").symlink_to(tmp_path / "gone")
    assert files.holds(tmp_path, ".json") == "a.json, b.json"
    assert files.holds(tmp_path) == "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more"
    assert files.holds(tmp_path, ".yaml") == files.holds(tmp_path)  # none of that kind
    assert files.holds(tmp_path / "c") == "nothing"
    assert files.holds(tmp_path / "a.json") == "what cannot be read (Not a directory)"
    (tmp_path / "c" / "d").mkdir()
    assert files.holds(tmp_path / "c") == "d/"
    with pytest.raises(
        UserError, match=r"batch file not found: .*x\.json \(its folder holds a\.json, b\.json\)"
    ):
        files.read_json(tmp_path / "x.json", "batch file")
    with pytest.raises(UserError, match="cannot read"):
        files.read_json("a\0b", "dialogs file")


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert files.read_json(tmp_path / "a.json") == [1]


def test_sha256(tmp_path):
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180 example
    assert files.sha256(tmp_path / "d" / "a") == known
    seen = {files.sha256(tmp_path / "d")}
    (tmp_path / "d" / "sub" / "b").write_bytes(b"")
    seen.add(files.sha256(tmp_path / "d"))
    (tmp_path / "d" / "sub" / "b").rename(tmp_path / "d" / "b")
    seen.add(files.sha256(tmp_path / "d"))
    (tmp_path / "d" / "b").write_bytes(b"x")
    seen.add(files.sha256(tmp_path / "d"))
    assert len(seen) == 4 and files.sha256(tmp_path / "d") in seen
    with pytest.raises(UserError, match="cannot read"):
        files.sha256(tmp_path / "none")


@pytest.fixture
def course(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "course"
    (root / "data" / "scenes").mkdir(parents=True)
    (root / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.delenv("VISDIAL_LAB_ROOT", raising=False)
    monkeypatch.chdir(root / "notebooks" / "deep")
    return root


def test_course_root(course, tmp_path, monkeypatch):
    assert files.course_root() == course
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkout" / "visdial_lab").mkdir(parents=True)
    (tmp_path / "checkout" / "data" / "scenes").mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(tmp_path / "checkout" / "visdial_lab" / "files.py"))
    assert files.course_root() == tmp_path / "checkout"
    monkeypatch.setenv("VISDIAL_LAB_ROOT", str(course / "data"))
    assert files.course_root() == course / "data"
    monkeypatch.setenv("VISDIAL_LAB_ROOT", str(course / "nowhere"))
    with pytest.raises(UserError, match="VISDIAL_LAB_ROOT"):
        files.course_root()


def test_outside_any_course(tmp_path, monkeypatch):
    monkeypatch.delenv("VISDIAL_LAB_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages" / "visdial_lab" / "files.py"))
    with pytest.raises(UserError, match="course folder not found"):
        files.course_root()
    assert files.resolve("a/b") == tmp_path / "a" / "b"
    assert files.resolve("data/visdial") == tmp_path / "data" / "visdial"  # one's own, anywhere
    for embedded in ("data/scenes", "data/gemma3-scenes", "data/scenes/images/1.png"):
        with pytest.raises(UserError, match="course folder not found: run inside it"):
            files.resolve(embedded)
    assert files.portable("a/b") == "a/b" and files.portable("/x/y") == "/x/y"


def test_resolve_and_portable_undo_each_other(course):
    (course / "notebooks" / "deep" / "here.txt").write_text("")
    assert files.resolve("here.txt") == course / "notebooks" / "deep" / "here.txt"
    assert files.resolve("runs/x") == course / "runs" / "x"
    assert files.resolve("/abs") == Path("/abs")
    assert files.portable("here.txt") == "notebooks/deep/here.txt"
    assert files.portable(course / "runs" / ".." / "data") == "data"
    assert files.resolve(files.portable(course / "runs" / "x")) == course / "runs" / "x"
    assert files.portable("/elsewhere/x") == "/elsewhere/x"


def test_paths_that_no_machine_has_are_the_users_mistake(course, monkeypatch):
    monkeypatch.chdir(course)
    assert files.resolve("~nobody-here/a") == course / "~nobody-here" / "a"
    with pytest.raises(UserError, match=r"cannot use the path 'x+\.\.\.x+': File name too long"):
        files.resolve("x" * 300)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_user_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "f.json"
    path.write_bytes(content)
    for read in (files.read_json, files.read_jsonl):
        try:
            json.dumps(read(path))
        except UserError as error:
            assert str(path) in str(error)
