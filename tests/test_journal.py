"""What is in a journal survives; what a kill has torn, or what belongs to something else, does not get in."""

import errno
import json
from pathlib import Path

import pytest

from visdial_lab import journal
from visdial_lab.errors import UserError

MADE_FROM = {"model": "abc", "limit": None}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "R [1].json"  # glob's own characters in the name


def fill(output, values, number=0, made_from=MADE_FROM):
    with journal.writing(output, made_from, number) as write:
        for key, value in values.items():
            write(key, value)


def test_what_was_written_is_read_from_all_processes(output):
    assert journal.read(output, MADE_FROM) == {} and not journal.paths(output)
    fill(output, {3: [0.1, None], 1: "é"})
    fill(output, {7: 0.30000000000000004}, number=12)
    fill(output, {4: []})  # goes on in the first
    assert journal.read(output, MADE_FROM) == {
        3: [0.1, None],
        1: "é",
        7: 0.30000000000000004,
        4: [],
    }
    assert [path.name for path in journal.paths(output)] == ["R [1].json.part-0", "R [1].json.part-12"]
    (output.parent / "R 1.json.part-0").touch()  # another result's
    journal.remove(output)
    assert [path.name for path in output.parent.iterdir()] == ["R 1.json.part-0"]


def test_torn_anywhere_keeps_the_whole_lines_and_goes_on(output):
    fill(output, {1: [10, 20], 2: [30, 40]})
    path = journal.paths(output)[0]
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(ends[0], len(whole)):
        path.write_bytes(whole[:cut])
        kept = [key for key, end in zip((1, 2), ends[1:], strict=True) if end <= cut]
        assert list(journal.read(output, MADE_FROM)) == kept
        assert path.exists() == bool(kept)
        fill(output, {9: 9})
        assert list(journal.read(output, MADE_FROM)) == [*kept, 9]
    path.write_bytes(whole[: ends[1]] + b"\0" * 50 + b"\n[5, 5]\n")  # after a power cut
    assert journal.read(output, MADE_FROM) == {1: [10, 20]}


def test_another_origin_is_refused_with_what_differs(output):
    fill(output, {1: 1})
    with pytest.raises(UserError) as refused:
        journal.read(output, {"model": "x", "limit": None, "split": "val"})
    message = str(refused.value)
    assert "model 'abc', now 'x'; split null, now 'val'." in message and "--no-resume" in message
    assert "limit" not in message and len(message.splitlines()) == 2
    assert journal.read(output, MADE_FROM) == {1: 1}


def test_a_journal_without_work_stands_in_nobodys_way(output):
    with pytest.raises(ZeroDivisionError), journal.writing(output, MADE_FROM):
        raise ZeroDivisionError
    assert not journal.paths(output)
    fill(output, {1: 1})
    path = journal.paths(output)[0]
    path.write_bytes(path.read_bytes()[:-3])  # killed while the first entry was written
    assert journal.read(output, {"model": "x"}) == {} and not journal.paths(output)


@pytest.mark.parametrize("content", [b"", b"my notes\n", b'{"made_from"', b"[1]\n", b"null\n"])
def test_a_file_that_is_no_journal_is_left_alone(output, content):
    path = output.with_name(output.name + ".part-notes")
    path.write_bytes(content)
    with pytest.raises(UserError, match="is no journal of this command; move it away"):
        journal.read(output, MADE_FROM)
    assert path.read_bytes() == content


def test_sources_tell_apart_what_gives_other_values(tmp_path):
    """The base model under an adapter counts, a hub's name does, and so does every setting."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "model.safetensors").write_bytes(b"1")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    first = journal.sources(adapter, limit=3)
    assert journal.sources(adapter, limit=3) == first
    assert journal.sources(adapter, limit=4) != first
    (base / "model.safetensors").write_bytes(b"2")
    second = journal.sources(adapter, limit=3)
    assert {name for name in first if first[name] != second[name]} == {"base model"}
    assert journal.sources("some/name")["model"] == "some/name"


def test_an_input_that_was_changed_has_another_key_and_the_others_stay(output):
    first, second, changed = journal.key(7, ["a", None]), journal.key(8, "b"), journal.key(8, "c")
    assert len({first, second, changed}) == 3 and first == journal.key(7, ["a", None])
    assert first.startswith("7:") and len(journal.key(7, "half a \ud800")) == len(first)
    fill(output, {first: 1, second: 2})
    assert journal.read(output, MADE_FROM, [first, changed]) == {first: 1}
    with pytest.raises(UserError, match="made from something else: another input file"):
        journal.read(output, MADE_FROM, [changed])


def test_a_full_disk_is_one_line(output, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal.os, "fsync", full)
    complaint = "part-0: No space left on device; what was finished before is kept"
    with (
        pytest.raises(UserError, match=complaint),
        journal.writing(output, {"input": "a"}, sync_seconds=0) as write,
    ):
        write(1, 1)


def test_a_place_that_cannot_be_written_is_found_out_at_once(tmp_path):
    (tmp_path / "file").touch()
    nowhere = (tmp_path, tmp_path / "file" / "R.json", tmp_path / ("a" * 252), tmp_path / ("a" * 300))
    for place in (*nowhere, Path("/proc/R.json"), Path("/proc/none/R.json")):
        with pytest.raises(UserError, match="cannot write"):
            fill(place, {})
