"""Fetching Visual Dialog v1.0 from where it is officially published: resumable, checked, unpacked safely.

Work in progress lies in ROOT/.partial; a file gets its final name only when it is whole and checked. So a
download may be killed at any time, and the next one goes on from there.
"""

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec

from visdial_lab.errors import UserError, WorkFailed, counted, listed, shown
from visdial_lab.files import only_one, read_json, resolve, write_json
from visdial_lab.progress import Progress, quiet
from visdial_lab.reading import SPLITS, read_columns, read_dense
from visdial_lab.transfer import Gone, fetch, length, meter, safe_members, size_text, unpack
from visdial_lab.visdial import VisDial


class Remote(NamedTuple):
    """A published file, and what becomes of it in the data folder."""

    split: str
    kind: str  # dialogs, dense, images or licences
    place: str  # address below DROPBOX or COCO
    size: int  # bytes: exact where there is an md5, else about; of dialogs, that of the JSON in the zip
    count: int  # dialogs, annotations or photos in it; of licences, how often bigger the lists in the zip are
    md5: str | None = None

    @property
    def url(self) -> str:
        at_coco = self.place.startswith(("zips/", "annotations/"))
        return f"{COCO}/{self.place}" if at_coco else f"{DROPBOX}/{self.place}?dl=1"

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]

    @property
    def makes(self) -> str:
        """A JSON file, or the folder of photos that the zip is unpacked into."""
        stem = self.name.rpartition(".")[0]
        return stem if self.kind == "images" else f"{stem}.json"


DROPBOX, COCO = "https://www.dropbox.com/s", "http://images.cocodataset.org"
OFFICIAL = (
    Remote("train", "dialogs", "ix8keeudqrd8hn8/visdial_1.0_train.zip", 1_090_000_000, 123_287),
    Remote("train", "dense", "1ajjfpepzyt3q4m/visdial_1.0_train_dense_sample.json", 1_200_000, 2000),
    Remote(
        "train", "images", "zips/train2014.zip", 13_510_573_713, 82_783, "0da8c0bd3d6becc4dcb32757491aca88"
    ),
    Remote("train", "images", "zips/val2014.zip", 6_645_013_297, 40_504, "a3d79f5ed8d289b7a7554ce06a5782b3"),
    Remote("val", "dialogs", "ibs3a0zhw74zisc/visdial_1.0_val.zip", 18_400_000, 2064),
    Remote("val", "dense", "3knyk09ko4xekmc/visdial_1.0_val_dense_annotations.json", 1_200_000, 2064),
    Remote("val", "images", "twmtutniktom7tu/VisualDialog_val2018.zip", 331_000_000, 2064),
    Remote("test", "dialogs", "o7mucbre2zm7i5n/visdial_1.0_test.zip", 11_400_000, 8000),
    Remote("test", "images", "mwlrg31hx0430mt/VisualDialog_test2018.zip", 1_290_000_000, 8000),
)
# COCO's lists of photos with their licences, for `licence="free"`.
_2014 = Remote("train", "licences", "annotations/annotations_trainval2014.zip", 241_000_000, 8)
_2017 = Remote("val", "licences", "annotations/image_info_unlabeled2017.zip", 4_000_000, 20)
_LISTS = {"train": _2014, "val": _2017, "test": _2017}
_FREE = {4, 5, 7, 8}  # COCO's numbers: attribution, share-alike, no known restrictions, US government work
# Single photos: where COCO has them, and the names that the official zips give them.
_PHOTO_BYTES = 165_000  # on average, as in the zips
_UNLABELED = "unlabeled2017/{:012d}.jpg"
PHOTOS = {  # the JSON does not say which of the two folders a train photo is in: try both
    "train": [(f"{part}2014/COCO_{part}2014_{{:012d}}.jpg",) * 2 for part in ("train", "val")],
    "val": [(_UNLABELED, "VisualDialog_val2018/VisualDialog_val2018_{:012d}.jpg")],
    "test": [(_UNLABELED, "VisualDialog_test2018/VisualDialog_test2018_{:012d}.jpg")],
}
_WORKERS, _GIVE_UP = 8, 50  # photos fetched at the same time; photos in a row that do not come


class Plan(NamedTuple):
    """What there is to do: files to fetch, and photos one by one."""

    root: Path
    files: list[Remote]
    photos: dict[str, int]  # split → of how many dialogs, from the first
    licence: str
    base_url: str | None
    need: int  # bytes on disk until all is unpacked, about

    def lines(self) -> list[str]:
        """The plan in words, one line a file."""
        lines = [f"{one.name} ({size_text(one.size)}) → {self.root / one.makes}" for one in self.files]
        lines += [
            f"photos of the first {n:,} {split} dialogs, one by one" for split, n in self.photos.items()
        ]
        if not lines:
            return [f"nothing to do: all of it is in {self.root}"]
        return [*lines, f"needs about {size_text(self.need)} of disk until all is unpacked"]


def plan(
    splits: Sequence[str],
    root: str | Path = "data/visdial",
    images: str | None = None,
    limit: int | None = None,
    licence: str = "any",
    base_url: str | None = None,
) -> Plan:
    """Find out what is missing.

    images: "all" (whole zips; the default), "needed" (the photos of the dialogs asked for, one by one; the
    default with a limit or free licences) or "none". limit: so many dialogs of each split, from the first.
    licence: "any", or "free" for photos that COCO's lists call free to use. base_url: a mirror, which has
    every file under the last part of its official address, and photos under COCO's folder and name.
    """
    for name, value, known in (
        *(("split", split, (*SPLITS, "all")) for split in splits),
        ("images", images, ("all", "needed", "none", None)),
        ("licence", licence, ("any", "free")),
    ):
        if value not in known:
            raise UserError(f"--{name} is {shown(value)}, expected {', '.join(filter(None, known))}")
    splits = list(SPLITS) if "all" in splits else list(dict.fromkeys(splits))
    images = images or ("needed" if limit or licence == "free" else "all")
    if licence == "free" and images == "all":
        raise UserError("a free licence can be chosen photo by photo only: give --images needed")
    root = resolve(root)
    wanted = [one for one in OFFICIAL if one.split in splits and (one.kind != "images" or images == "all")]
    if licence == "free" and images == "needed":
        wanted += dict.fromkeys(_LISTS[split] for split in splits)
    files, photos = [one for one in wanted if not _is_done(root, one)], {}
    # A zip and what is in it. (Zips of dialogs are smaller than that: room for the reader's cache.)
    need = sum((2 if one.name.endswith(".zip") else 1) * one.size for one in files)
    need -= sum(length(root / ".partial" / f"{one.name}.part") for one in files)
    for split in splits if images == "needed" else ():
        everyone = next(one.count for one in OFFICIAL if (one.split, one.kind) == (split, "dialogs"))
        count = min(limit or everyone, everyone)
        there = (root / f"visdial_1.0_{split}.json").is_file()
        missing = len(_missing(root, split, count, licence)) if there else count
        if missing:
            photos[split], need = count, need + missing * _PHOTO_BYTES
    return Plan(root, files, photos, licence, base_url, need)


def download(plan: Plan, progress: Progress = quiet) -> None:
    """Carry the plan out. progress(done, total, note) is told megabytes, speed and time left.

    Raises UserError when the disk is too small, the place cannot be written or another download is at work;
    WorkFailed when a file could not be fetched, or photos, after all others; what is finished is in place,
    and the same call goes on.
    """
    partial = plan.root / ".partial"
    with only_one(partial / "lock", f"another download is at work in {plan.root}"):
        try:
            _carry_out(plan, partial, progress)
            return _tidy(plan.root, partial)
        except OSError as error:
            problem = f"cannot write {error.filename or plan.root}: {error.strerror}"
        except WorkFailed as error:
            problem = str(error)
    raise WorkFailed(f"{problem}\nthe same command goes on from here")


def _carry_out(plan: Plan, partial: Path, progress: Progress) -> None:
    if plan.need > (free := shutil.disk_usage(partial).free):
        wish = f"{plan.root} has {size_text(free)} free, but {size_text(plan.need)} are needed"
        raise UserError(f"{wish}; choose another --root, a --limit, or --images none")
    total = sum(one.size for one in plan.files) + sum(plan.photos.values()) * _PHOTO_BYTES
    report, identity = meter(total, progress), {"Accept-Encoding": "identity"}  # lengths must be true
    with httpx.Client(follow_redirects=True, timeout=30, headers=identity) as client:

        def get(url: str, name: str, target: Path, exact: tuple[int, str] | None = None) -> None:
            url = f"{plan.base_url.rstrip('/')}/{name}" if plan.base_url else url
            fetch(client, url, partial / f"{target.name}.part", target, report, exact)

        for one in plan.files:
            _obtain(get, one, plan.root)
        problems = [p for split, n in plan.photos.items() for p in _fetch_photos(get, plan, split, n)]
    progress(round(total / 1e6), round(total / 1e6), "")
    if problems:
        raise WorkFailed(f"{counted(len(problems), 'photo')} missing: {listed(problems, 20, '; ')}")


def _tidy(root: Path, partial: Path) -> None:
    """Remove what a killed download has left, but not what another one (of test, say) can go on with."""
    shutil.rmtree(partial / "unpacked", ignore_errors=True)
    done = [partial / one.name for one in OFFICIAL if _is_done(root, one)]
    for path in [*done, *partial.glob("*.jpg.part"), partial / "photo.part", partial / "lock"]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty
        partial.rmdir()


def _is_done(root: Path, one: Remote) -> bool:
    if one.kind != "images":
        return (root / one.makes).is_file()
    return (root / one.makes).is_dir() and len(list((root / one.makes).glob("*.jpg"))) >= one.count


def _missing(root: Path, split: str, count: int, licence: str) -> list[int]:
    """Image ids of the first `count` dialogs that have no photo yet, and may have one."""
    ids = read_columns(root / f"visdial_1.0_{split}.json").image_ids[:count].tolist()
    if licence == "free" and (lists := root / _LISTS[split].makes).is_file():
        licences = read_json(lists, "list of licences")
        ids = [n for n in ids if licences.get(str(n)) in _FREE]
    return [n for n in ids if not any((root / name.format(n)).is_file() for _, name in PHOTOS[split])]


def _obtain(get: Callable, one: Remote, root: Path) -> None:
    """Fetch one file and make of it what it is for."""
    fetched, target = root / ".partial" / one.name, root / one.makes
    if not fetched.is_file():
        get(one.url, one.name, fetched, (one.size, one.md5) if one.md5 else None)
    make = {"images": _unpack_photos, "licences": _list_licences, "dialogs": _accept, "dense": _accept}
    try:
        make[one.kind](fetched, target, one)
    except (UserError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
        fetched.unlink()  # it was whole, so fetching it again from another place is all that can help
        raise WorkFailed(f"{one.name} is not what was published: {error}") from None
    fetched.unlink(missing_ok=True)


def _accept(fetched: Path, target: Path, one: Remote) -> None:
    """Check a JSON file (out of its zip, if need be) by structure and count, and move it to its place."""
    if one.kind == "dense":
        ready, dialogs = fetched, target.parent / f"visdial_1.0_{one.split}.json"
        count = len(read_dense(ready, read_columns(dialogs), dialogs))
    else:
        ready = fetched.parent / "unpacked" / target.name
        ready.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(fetched) as archive:
            members = safe_members(archive, one.size)
            if target.name not in members:
                raise ValueError(f"{target.name} is not in it")
            unpack(archive, members[target.name], ready)
        count = len(VisDial.load(ready, one.split))
    if count != one.count:
        raise ValueError(f"it has {count:,} entries, expected {one.count:,}")
    with contextlib.suppress(OSError):  # what the check has parsed is of use to the next reader
        os.replace(ready.with_suffix(".cache"), target.with_suffix(".cache"))
    os.replace(ready, target)


def _unpack_photos(fetched: Path, folder: Path, one: Remote) -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(fetched) as archive:
        members = safe_members(archive, one.size)
        photos = [name for name in members if one.makes in name and name.endswith(".jpg")]
        if len(photos) < one.count:
            raise ValueError(f"it has {len(photos):,} photos, expected {one.count:,}")
        for name in photos:
            if length(folder / name) != members[name].file_size:
                unpack(archive, members[name], fetched.with_name("photo.part"))
                os.replace(fetched.with_name("photo.part"), folder / name)


def _list_licences(fetched: Path, target: Path, one: Remote) -> None:
    """Keep COCO's number of the licence of every photo, by image id, out of lists with much more in them."""
    with zipfile.ZipFile(fetched) as archive:
        members = safe_members(archive, one.size * one.count)
        lists = [member for name, member in members.items() if name.startswith(("captions_", "image_info_"))]
        read = [msgspec.json.decode(archive.read(member), type=_PhotoList).images for member in lists]
    photos = {str(photo.id): photo.license for photos in read for photo in photos}
    if not photos:
        raise ValueError("it lists no photos")
    write_json(target, photos)


class _Photo(msgspec.Struct):
    id: int
    license: int


class _PhotoList(msgspec.Struct):
    images: list[_Photo]


def _fetch_photos(get: Callable, plan: Plan, split: str, count: int) -> list[str]:
    """Fetch the photos of the first `count` dialogs, some at a time; returns what is missing and why."""
    ids = _missing(plan.root, split, count, plan.licence)
    for _, name in PHOTOS[split]:
        (plan.root / name).parent.mkdir(exist_ok=True)
    in_vain = 0  # photos since the last one that came

    def fetch_one(image_id: int) -> str | None:
        nonlocal in_vain
        problem = "not tried, too many in vain"
        for there, here in PHOTOS[split] if in_vain < _GIVE_UP else ():
            name = there.format(image_id)
            try:
                get(f"{COCO}/{name}", name, plan.root / here.format(image_id))
                in_vain = 0
                return None
            except WorkFailed as error:
                problem = str(error)
                if not isinstance(error, Gone):  # a server in trouble: no need to ask for the other place
                    break
        in_vain += 1
        hint = "" if split == "train" else "; the official zip has it (--images all)"
        return f"{image_id}: {problem}{hint}"

    pool = ThreadPoolExecutor(_WORKERS)
    try:
        return [problem for problem in pool.map(fetch_one, ids) if problem]
    finally:
        pool.shutdown(cancel_futures=True)
