"""Downloads from a server on this machine that cuts, lies and refuses; never from the real hosts."""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import make_dataset
from filelock import FileLock
from PIL import Image
from web_server import Site, serving

from visdial_lab import download as module
from visdial_lab import transfer
from visdial_lab.cli import main
from visdial_lab.download import download, plan
from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.visdial import VisDial

COUNT = 4  # dialogs a split
SEED = random.Random(0)


def zipped(files: dict[str, bytes], **more) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for name, (mode, data) in more.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, data)
    return buffer.getvalue()


def publish(folder: Path) -> tuple[dict[str, bytes], list[module.Remote]]:
    """Everything a mirror would have, and the table that goes with it, of a made-up tiny VisDial."""
    make_dataset(folder, dialogs=COUNT)
    for path in (folder / "images").iterdir():  # some 16 kB each, which takes the server a few steps to send
        Image.effect_noise((160, 120), 90).save(path)
    files: dict[str, bytes] = {}
    for split in ("train", "val", "test"):
        name = f"visdial_1.0_{split}.json"
        files[f"visdial_1.0_{split}.zip"] = zipped({name: (folder / name).read_bytes()})
    for split, kind in (("train", "sample"), ("val", "annotations")):
        dense = folder / f"visdial_1.0_{split}_dense_annotations.json"
        files[f"visdial_1.0_{split}_dense_{kind}.json"] = dense.read_bytes()
    photos = {int(path.stem): path.read_bytes() for path in (folder / "images").iterdir()}
    for part, ids in (("train", (1, 2)), ("val", (3, 4))):
        names = {f"{part}2014/COCO_{part}2014_{n:012d}.jpg": photos[n] for n in ids}
        files[f"{part}2014.zip"] = zipped({f"{part}2014/": b"", **names})
        files |= names
    for split, first in (("val", 1001), ("test", 2001)):
        ids = range(first, first + COUNT)
        makes = f"VisualDialog_{split}2018"
        files[f"{makes}.zip"] = zipped({f"{makes}/{makes}_{n:012d}.jpg": photos[n] for n in ids})
        files |= {f"unlabeled2017/{n:012d}.jpg": photos[n] for n in ids}
    lists = {"images": [{"id": 1001 + n, "license": n + 1, "x": 0} for n in range(5)], "licenses": []}
    files["image_info_unlabeled2017.zip"] = zipped(
        {"annotations/image_info_unlabeled2017.json": json.dumps(lists).encode()}
    )
    table = []
    for one in module.OFFICIAL:
        data = files[one.name]
        count = 2 if one.makes in ("train2014", "val2014") else COUNT
        md5 = one.md5 and hashlib.md5(data).hexdigest()
        table.append(one._replace(size=len(data), count=count, md5=md5))
    return files, table


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("published") / "data")


@pytest.fixture
def site(published, monkeypatch):
    files, table = published
    monkeypatch.setattr(module, "OFFICIAL", table)
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    site = Site(dict(files))
    with serving(site) as site.url:
        yield site


def fetch(site, root, *splits, **options) -> None:
    download(plan(splits or ["all"], root, base_url=site.url, **options))


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


# ---- when all goes well


def test_everything_and_the_second_time_nothing(site, tmp_path):
    root = tmp_path / "visdial"
    fetch(site, root)
    assert len(tree(root)) == 3 + 2 + 3 * COUNT and not (root / ".partial").exists()
    for split in ("train", "val", "test"):
        dialogs = VisDial.load(root, split)
        assert len(dialogs) == COUNT and all(dialog.image().size == (160, 120) for dialog in dialogs)
    assert VisDial.load(root, "train")[0].rounds[1].relevance and VisDial.load(root)[0].rounds[1].relevance
    assert len(site.requests) == len(module.OFFICIAL) == 9
    again = plan(["all"], root, base_url=site.url)
    assert not again.files and not again.photos and again.need == 0
    seen = []
    download(again, lambda *what: seen.append(what))
    assert len(site.requests) == 9 and seen == [(0, 0, "")]


def test_single_photos_of_the_first_dialogs(site, tmp_path):
    fetch(site, tmp_path, "train", "val", limit=3)
    names = {name for name in tree(tmp_path) if name.endswith(".jpg")}
    assert names == {
        *(f"train2014/COCO_train2014_{n:012d}.jpg" for n in (1, 2)),
        "val2014/COCO_val2014_000000000003.jpg",
        *(f"VisualDialog_val2018/VisualDialog_val2018_{n:012d}.jpg" for n in (1001, 1002, 1003)),
    }
    before = len(site.requests)
    assert not plan(["train", "val"], tmp_path, limit=3).photos
    fetch(site, tmp_path, "val", limit=4)
    assert [path for path, _ in site.requests[before:]] == ["unlabeled2017/000000001004.jpg"]


def test_whole_zips_after_single_photos_keep_what_is_there(site, tmp_path):
    fetch(site, tmp_path, "val", limit=1)
    photo = next(tmp_path.rglob("*.jpg"))
    before = photo.stat().st_mtime_ns
    fetch(site, tmp_path, "val")
    assert len(list(tmp_path.rglob("*.jpg"))) == COUNT and photo.stat().st_mtime_ns == before


def test_what_another_download_has_begun_is_kept(site, tmp_path):
    site.always["visdial_1.0_test.zip"] = "cut"
    with pytest.raises(WorkFailed, match="6 attempts"):
        fetch(site, tmp_path, "test")
    fetch(site, tmp_path, "val")
    assert [path.name for path in (tmp_path / ".partial").iterdir()] == ["visdial_1.0_test.zip.part"]


def test_no_photos(site, tmp_path):
    fetch(site, tmp_path, "val", images="none")
    assert set(tree(tmp_path)) == {"visdial_1.0_val.json", "visdial_1.0_val_dense_annotations.json"}


def test_free_photos_only(site, tmp_path):
    fetch(site, tmp_path, "val", licence="free")  # licences 1 to 4: only the last is free
    assert [path.stem[-4:] for path in tmp_path.rglob("*.jpg")] == ["1004"]
    with pytest.raises(UserError, match="give --images needed"):
        plan(["val"], tmp_path, images="all", licence="free")


def test_progress_in_megabytes_with_speed_and_time_left(monkeypatch):
    clock, seen = [100.0], []
    monkeypatch.setattr(transfer.time, "monotonic", lambda: clock[0])
    report = transfer.meter(1_000_000_000, lambda *what: seen.append(what))
    for _ in range(50):
        clock[0] += 1
        report(2_000_000, "a.zip")
    assert seen[0] == (2, 1000, "") and seen[9][:2] == (20, 1000)
    assert seen[-1] == (100, 1000, "a.zip, 2.0 MB/s, 8 min left")
    assert len({note for *_, note in seen}) <= 6  # so that a log has few lines


def test_the_command(site, tmp_path, capsys):
    line = ["download", "--split", "val", "--split", "test", "--root", str(tmp_path), "--base_url", site.url]
    with pytest.raises(SystemExit) as stopped:
        main([*line, "--dry-run"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and not site.requests and not tree(tmp_path)
    assert "visdial_1.0_val.zip" in text and "VisualDialog_test2018" in text and "of disk" in text
    for expected in ("visdial_1.0_val.json", "nothing to do"):
        with pytest.raises(SystemExit) as stopped:
            main(line)
        assert stopped.value.code == 0 and expected in capsys.readouterr().out
    site.files.clear()
    with pytest.raises(SystemExit) as stopped:
        main(["download", "--split", "train", *line[5:]])
    assert stopped.value.code == 1 and "answers 404 Not Found" in capsys.readouterr().err
    for wrong in (["--split", "dev"], ["--images", "some"], ["--licence", "gratis"], ["--limit", "0"]):
        with pytest.raises(SystemExit) as stopped:
            main(["download", *wrong])
        assert stopped.value.code == 2


def test_too_little_disk_is_told_before_anything_is_fetched(site, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"has 0\.0 MB free, but 0\.\d MB are needed"):
        fetch(site, tmp_path, "val")
    assert not site.requests


def test_the_official_table():
    """Spelled out once more, from the data sheet: a typing slip here would cost somebody 20 GB."""
    table = {one.name: one for one in module.OFFICIAL}
    assert len(table) == 9 and all(
        one.url.startswith(("https://www.dropbox.com/s/", "http://images.coco")) for one in table.values()
    )
    assert all(one.url.endswith("?dl=1") == ("dropbox" in one.url) for one in table.values())
    train, val = table["train2014.zip"], table["val2014.zip"]
    assert (train.size, train.md5) == (13_510_573_713, "0da8c0bd3d6becc4dcb32757491aca88")
    assert (val.size, val.md5) == (6_645_013_297, "a3d79f5ed8d289b7a7554ce06a5782b3")
    assert train.count + val.count == table["visdial_1.0_train.zip"].count == 123_287
    assert [table[f"visdial_1.0_{s}.zip"].count for s in ("val", "test")] == [2064, 8000]


# ---- when the server misbehaves


ZIP, DENSE = "VisualDialog_val2018.zip", "visdial_1.0_val_dense_annotations.json"
PHOTO = "unlabeled2017/000000001002.jpg"


@pytest.mark.parametrize("name", [ZIP, DENSE, "visdial_1.0_val.zip"])
@pytest.mark.parametrize(
    "faults",
    [
        ["cut"],
        ["cut", "cut", "cut"],
        ["cut", "no ranges"],
        ["cut", "wrong range"],
        ["long"],
        [500, 503],
        [429],
        ["html"],
        ["cut", "html", 500, "cut"],
    ],
    ids=str,
)
def test_one_file_in_trouble_arrives_whole(site, tmp_path, name, faults):
    site.faults[name] = list(faults)
    fetch(site, tmp_path, "val")
    assert len(tree(tmp_path)) == 2 + COUNT
    asked = [wanted for path, wanted in site.requests if path == name]
    assert len(asked) == len(faults) + (faults[-1] != "no ranges")
    if faults[0] == "cut":
        assert asked[1].startswith("bytes=")  # it went on, not from the front


@pytest.mark.parametrize("name", [ZIP, DENSE, "visdial_1.0_val.zip"])
@pytest.mark.parametrize("fault", ["short", "silent cut"])
def test_a_lie_about_the_length_is_found_by_looking_inside(site, tmp_path, name, fault):
    site.faults[name] = [fault]
    fetch(site, tmp_path, "val")
    assert len(tree(tmp_path)) == 2 + COUNT


@pytest.mark.parametrize("fault", ["short", 500, 429, "html", "wrong range"])
def test_what_never_works_is_given_up(site, tmp_path, fault):
    site.always[ZIP] = fault
    if fault == "wrong range":
        site.faults[ZIP] = 3 * ["cut", "wrong range"]
    with pytest.raises(WorkFailed, match=rf"{ZIP}: .+ \(6 attempts\)"):
        fetch(site, tmp_path, "val")
    assert sum(path == ZIP for path, _ in site.requests) == transfer.TRIES
    assert not (tmp_path / "VisualDialog_val2018").exists() and (tmp_path / "visdial_1.0_val.json").is_file()
    site.always.clear()
    before = len(site.requests)
    fetch(site, tmp_path, "val")
    assert {path for path, _ in site.requests[before:]} == {ZIP} and len(tree(tmp_path)) == 2 + COUNT


@pytest.mark.parametrize(
    ("status", "text"), [(403, "answers 403"), (404, "answers 404"), (410, "answers 410")]
)
def test_a_refusal_is_not_repeated(site, tmp_path, status, text):
    site.always[ZIP] = status
    with pytest.raises(WorkFailed, match=text):
        fetch(site, tmp_path, "val")
    assert sum(path == ZIP for path, _ in site.requests) == 1


def test_retry_after_is_heeded(site, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(transfer.time, "sleep", waited.append)
    site.retry_after, site.faults[DENSE] = "7", [429]
    fetch(site, tmp_path, "val", images="none")
    assert 7 in waited and sum(waited) < 8


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    with pytest.raises(WorkFailed, match=r"visdial_1\.0_val\.zip: .+ \(6 attempts\)"):
        download(plan(["val"], tmp_path, base_url="http://127.0.0.1:9"))


def test_a_wrong_checksum_is_never_accepted(site, tmp_path):
    data = bytearray(site.files["train2014.zip"])
    data[50] ^= 1
    site.files["train2014.zip"] = bytes(data)
    with pytest.raises(WorkFailed, match="wrong checksum"):
        fetch(site, tmp_path, "train")
    assert not (tmp_path / "train2014").exists()


def test_missing_photos_are_told_at_the_end(site, tmp_path, capsys):
    del site.files[PHOTO]
    site.faults["unlabeled2017/000000001003.jpg"] = ["cut", 500]
    site.always["unlabeled2017/000000001004.jpg"] = 403
    line = ["download", "--limit", "4", "--root", str(tmp_path), "--base-url", site.url]
    with pytest.raises(SystemExit) as stopped:
        main(line)
    text = capsys.readouterr().err
    assert stopped.value.code == 1 and "2 photos missing" in text and "Traceback" not in text
    assert (
        "1002: http" in text and "answers 404" in text and "answers 403" in text and "(--images all)" in text
    )
    assert len(list(tmp_path.rglob("*.jpg"))) == 2


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"<html>", lambda b: b""])
def test_a_photo_that_is_none(site, tmp_path, damage):
    site.files[PHOTO] = damage(site.files[PHOTO])
    with pytest.raises(WorkFailed, match=r"1002\.jpg: damaged jpg"):
        fetch(site, tmp_path, "val", limit=4)
    assert len(list(tmp_path.rglob("*.jpg"))) == 3 and not list(tmp_path.rglob("*1002.jpg"))


def test_the_other_folder_is_asked_when_the_first_one_refuses(site, tmp_path):
    """Some stores answer 403 for what they do not have."""
    site.always["train2014/COCO_train2014_000000000003.jpg"] = 403
    fetch(site, tmp_path, "train", limit=3)
    assert (tmp_path / "val2014" / "COCO_val2014_000000000003.jpg").is_file()


def test_two_at_once(site, tmp_path):
    (tmp_path / ".partial").mkdir()
    with FileLock(tmp_path / ".partial" / "lock"), pytest.raises(UserError, match="another download"):
        fetch(site, tmp_path, "val")
    fetch(site, tmp_path, "val", images="none")
    assert not (tmp_path / ".partial").exists()


def test_a_dead_server_is_not_asked_for_every_photo(site, tmp_path, monkeypatch):
    fetch(site, tmp_path, "val", images="none")
    monkeypatch.setattr(module, "_missing", lambda *_: list(range(5000, 6000)))
    for n in range(5000, 6000):
        site.always[f"unlabeled2017/{n:012d}.jpg"] = 500
    with pytest.raises(WorkFailed, match=r"1,000 photos missing: .* and 980 more"):
        fetch(site, tmp_path, "val", limit=4)
    assert len(site.requests) < 2 + transfer.TRIES * (module._GIVE_UP + module._WORKERS)


# ---- when the file is not what it should be


def test_dialogs_that_are_not_the_published_ones(site, tmp_path):
    data = json.loads(
        zipfile.ZipFile(io.BytesIO(site.files["visdial_1.0_val.zip"])).read("visdial_1.0_val.json")
    )
    fewer = json.loads(json.dumps(data))
    fewer["data"]["dialogs"].pop()
    wrong = json.loads(json.dumps(data))
    wrong["data"]["dialogs"][1]["dialog"][2]["gt_index"] = 100
    for document, text in (
        (fewer, "it has 3 entries, expected 4"),
        (wrong, r"data\.dialogs\[1\]\.dialog\[2\]\.gt_index: expected a whole number <= 99"),
        (data | {"version": "0.9"}, r"this is VisDial v0\.9"),
        ({}, "data is missing"),
    ):
        site.files["visdial_1.0_val.zip"] = zipped({"visdial_1.0_val.json": json.dumps(document).encode()})
        with pytest.raises(WorkFailed, match=rf"visdial_1\.0_val\.zip is not what was published: .*{text}"):
            fetch(site, tmp_path, "val")
        assert not (tmp_path / "visdial_1.0_val.json").exists()


def test_zips_that_mean_harm(site, tmp_path):
    name, photo = "VisualDialog_val2018", site.files[PHOTO]
    good = {f"{name}/{name}_{n:012d}.jpg": photo for n in range(4)}
    link = {f"{name}/{name}_x.jpg": (stat.S_IFLNK | 0o777, b"/etc/passwd")}
    for data, text in (
        (zipped(good | {"../../escaped.jpg": photo}), "not safe to unpack"),
        (zipped(good | {"/escaped.jpg": photo}), "not safe to unpack"),
        (zipped(good | {"..\\escaped.jpg": photo}), "not safe to unpack"),
        (zipped(good, **link), "not safe to unpack"),
        (zipped(good | {f"{name}/{name}_bomb.jpg": b"\0" * 50_000_000}), r"would unpack to 50\.\d MB"),
        (zipped(dict(list(good.items())[:3])), "it has 3 photos, expected 4"),
        (zipped({"readme.txt": b"hello"}), "it has 0 photos, expected 4"),
    ):
        site.files[ZIP] = data
        with pytest.raises(WorkFailed, match=text):
            fetch(site, tmp_path / "a" / "b", "val")
        outside = [path for path in tmp_path.rglob("*") if "escaped" in path.name or path.is_symlink()]
        assert not outside and not (tmp_path / "a" / "b" / ".partial" / ZIP).exists()


def test_a_folder_that_cannot_be_written(site, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        fetch(site, tmp_path / "file" / "visdial", "val")


# ---- killed at any time

JOB = """
import hashlib, sys
from test_download import publish
from pathlib import Path
from visdial_lab import download as module, transfer
import pickle
module.OFFICIAL, transfer.PAUSE = pickle.loads(Path(sys.argv[3]).read_bytes()), 0.001
print("ready", flush=True)
module.download(module.plan(["val", "train"], sys.argv[1], base_url=sys.argv[2]))
module.download(module.plan(["test"], sys.argv[1], base_url=sys.argv[2], limit=4))
"""


@pytest.mark.slow
def test_killed_at_fifteen_random_points(site, tmp_path):
    """Identical bytes in the end, and nothing that was finished is fetched again."""
    import pickle

    site.delay = 0.01  # 4 kB in 10 ms: the kills hit every part of the work
    table = tmp_path / "table"
    table.write_bytes(pickle.dumps(module.OFFICIAL))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}

    def start(root):
        command = [sys.executable, "-c", JOB, str(root), site.url, str(table)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    process, began = start(tmp_path / "whole"), time.monotonic()
    assert process.wait() == 0
    whole, transfers = tree(tmp_path / "whole"), time.monotonic() - began
    rng, root, struck, tries = random.Random(7), tmp_path / "killed", 0, 0
    while struck < 15:
        assert (tries := tries + 1) < 100, "too few of the kills found it at work"
        if root.exists() and (rng.random() < 0.2 or set(tree(root)) == set(whole)):
            shutil.rmtree(root)  # there must be work to interrupt
        finished = set(tree(root)) if root.exists() else set()
        before, process = len(site.requests), start(root)
        time.sleep(rng.random() * transfers)
        struck += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        asked = {Path(path).name for path, _ in site.requests[before:]}
        for name in finished:  # a finished file, and the archive it came from, are not asked for again
            assert Path(name).name not in asked
            if name.endswith(".json"):
                assert f"{Path(name).stem}.zip" not in asked
    assert start(root).wait() == 0
    assert tree(root) == whole
    before = len(site.requests)
    assert start(root).wait() == 0 and len(site.requests) == before


def test_the_addresses_are_those_of_the_data_sheet(shared_data):
    sheet = (shared_data / "README.md").read_text()
    for one in module.OFFICIAL:
        assert f"`{one.place}`" in sheet or f"`{one.url[7:]}`" in sheet or f"`{one.name}`" in sheet, one.place
        assert one.md5 is None or (one.md5 in sheet and f"{one.size:,}" in sheet)
    for pattern in ("train2014/COCO_train2014_%012d.jpg", "unlabeled2017/%012d.jpg"):
        assert f"{module.COCO}/{pattern}" in sheet
        name = pattern.replace("%012d", "{:012d}")
        assert any(name == there for places in module.PHOTOS.values() for there, _ in places)
