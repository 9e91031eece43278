"""The cache of a large dialogs file: never believed when stale or damaged, never in anyone's way."""

import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import make_document

from visdial_lab import reading
from visdial_lab.errors import UserError
from visdial_lab.visdial import VisDial


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A dialogs file that counts as large, in a folder of its own; the user's cache folder is another."""
    monkeypatch.setattr(reading, "CACHE_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    path = tmp_path / "data" / "visdial_1.0_val.json"
    path.parent.mkdir()
    path.write_text(json.dumps(make_document(dialogs=30)))
    return path


def same(one: VisDial, other: VisDial) -> bool:
    return list(one) == list(other) and one.split == other.split


def parses(monkeypatch) -> list:
    """A list that gets an entry whenever a file is really parsed."""
    seen, real = [], reading._parse
    monkeypatch.setattr(reading, "_parse", lambda path: (seen.append(path), real(path))[1])
    return seen


def test_the_second_open_reads_mapped_arrays(path, monkeypatch):
    seen = parses(monkeypatch)
    first, second = VisDial.load(path), VisDial.load(path)
    assert len(seen) == 1 and same(first, second)
    assert path.with_suffix(".cache").is_dir() and not list(path.parent.glob(".*"))
    for visdial in (first, second):  # the first reading lets go of its own copy, too
        assert isinstance(visdial._columns.options, np.memmap)
        with pytest.raises(ValueError):
            visdial._columns.options[0, 0] = 1


def test_small_files_get_no_cache(path, monkeypatch):
    monkeypatch.setattr(reading, "CACHE_FROM", path.stat().st_size + 1)
    VisDial.load(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["val", "test", "no options"])
def test_every_kind_of_file_comes_back_the_same(path, kind):
    document = make_document("val" if kind == "no options" else kind, dialogs=7)
    document["data"]["dialogs"][3]["caption"] = 'a "né\0\n😀'
    if kind == "no options":
        for entry in document["data"]["dialogs"]:
            for turn in entry["dialog"]:
                del turn["answer_options"], turn["gt_index"]
    path.write_text(json.dumps(document))
    first, second = VisDial.load(path), VisDial.load(path)
    assert same(first, second) and second[3].caption == 'a "né\0\n😀'


@pytest.mark.parametrize("keep_time", [False, True])
def test_an_edited_file_is_read_anew(path, monkeypatch, keep_time):
    seen, before = parses(monkeypatch), path.stat()
    VisDial.load(path)
    path.write_text(path.read_text().replace("a picture of 0", "a picture of 8"))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert VisDial.load(path)[0].caption.startswith("a picture of 8") and len(seen) == 2
    VisDial.load(path)
    assert len(seen) == 2


def test_another_format_version_is_read_anew(path, monkeypatch):
    seen = parses(monkeypatch)
    VisDial.load(path)
    monkeypatch.setattr(reading, "_FORMAT", 2)
    VisDial.load(path)
    assert len(seen) == 2


def test_two_hundred_damaged_caches_are_never_believed(path, monkeypatch):
    truth, rng = VisDial.load(path), random.Random(0)
    folder, kept = path.with_suffix(".cache"), path.parent / "kept"
    shutil.copytree(folder, kept)
    for _ in range(200):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        victim = rng.choice(sorted(folder.iterdir()))
        data = bytearray(victim.read_bytes())
        how = rng.randrange(4)
        if how == 0:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif how == 1:
            del data[rng.randrange(len(data)) :]
        elif how == 2:
            data += b"x"
        if how == 3:
            victim.unlink()
        else:
            victim.write_bytes(data)
        assert same(VisDial.load(path), truth)


def test_a_folder_that_cannot_be_written_uses_the_users_cache(path, tmp_path, monkeypatch):
    real = reading.atomic_folder

    def refusing(folder, marker):
        if folder.parent == path.parent:
            raise UserError("read-only")
        return real(folder, marker)

    monkeypatch.setattr(reading, "atomic_folder", refusing)
    seen = parses(monkeypatch)
    assert same(VisDial.load(path), VisDial.load(path)) and len(seen) == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("in the way")  # nowhere to write at all
    assert len(VisDial.load(path)) == 30 and len(seen) == 2


def test_a_large_file_that_cannot_be_read_is_told_as_any_other(path):
    for wrong in (path.parent, path.parent / "none.json", path.parent / "a\0b.json"):
        with pytest.raises(UserError, match="dialogs file"):
            reading.read_columns(wrong)


def test_a_strangers_folder_is_left_alone(path, monkeypatch):
    folder = path.with_suffix(".cache")
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    seen = parses(monkeypatch)
    VisDial.load(path), VisDial.load(path)
    assert len(seen) == 1 and [file.name for file in folder.iterdir()] == ["thesis.txt"]


def test_a_wrong_file_leaves_no_cache(path):
    path.write_text(path.read_text().replace('"gt_index": ', '"gt_index": 1', 1))
    with pytest.raises(UserError, match=r"dialogs\[0\]\.dialog\[0\]"):
        VisDial.load(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_memory_stays_below_two_and_a_half_files(path):
    """Also at a size that a test can afford: 60 MB of dialogs, measured in a process of its own."""
    document = make_document(dialogs=200, rounds=10)
    entries = document["data"]["dialogs"]
    with path.open("w") as file:
        head = json.dumps(document | {"data": document["data"] | {"dialogs": []}})
        file.write(head.replace('"dialogs": []', '"dialogs": [').removesuffix("}}"))
        for n in range(60):
            for entry in entries:
                entry["image_id"] += len(entries)
            file.write(("," if n else "") + json.dumps(entries)[1:-1])
        file.write("]}}")
    size = path.stat().st_size
    code = "import resource, sys; from visdial_lab.reading import _parse\n"
    code += "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
    code += "before = peak(); _parse(__import__('pathlib').Path(sys.argv[1])); print(peak() - before)"
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert size > 50e6 and int(run.stdout) < 2.5 * size
