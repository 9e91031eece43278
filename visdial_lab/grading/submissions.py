"""Submissions as they arrive: a folder, a zip from a learning platform, nbgrader's exchange. All untrusted.

Nothing is ever unpacked: notebooks are read in place, up to a size, and never through a link. What cannot be
graded becomes a submission with a `problem`, so that it gets a verdict like all others.
"""

import datetime
import hashlib
import io
import json
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from visdial_lab.errors import UserError

MAX_BYTES = 20 << 20  # of a notebook; pictures in outputs are dropped anyway
_MAX_FILES = 20_000
_IGNORED = {"__MACOSX", ".ipynb_checkpoints"}  # what systems put beside notebooks
# Moodle: Ada Example_123_assignsubmission_file/ps1.ipynb; Canvas: exampleada_LATE_123_456_ps1-2.ipynb
_MOODLE = re.compile(r"(?P<student>.+?)_\d+_assignsubmission_(file|onlinetext)_?$")
_CANVAS = re.compile(r"(?P<student>[^_]+)_(?:LATE_)?\d+_\d+_.+$")
_EXCHANGE = re.compile(r"(?P<student>[^+]+)\+(?P<assignment>[^+]+)\+(?P<time>[^+]+?)(\+[^+]*)?$")
_LINK = "is a link to somewhere else; hand in the notebook itself"


@dataclass(frozen=True)
class Submission:
    """One student's notebook: its bytes, or the problem that keeps it from being graded."""

    student: str
    data: bytes = b""
    problem: str | None = None
    handed_in: datetime.datetime | None = None
    notes: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """The student's name as a file name; two names never share one."""
        safe = re.sub(r"[^\w.@-]+", "_", self.student).strip("._")[:60]
        if safe and safe == self.student:
            return safe
        return f"{safe or 'student'}-{hashlib.sha256(self.student.encode()).hexdigest()[:6]}"


def collect(source: Path, assignment: str) -> list[Submission]:
    """Every student's latest submission in a folder or zip, sorted by name.

    Raises UserError when the source is not there or holds nothing.
    """
    if source.is_dir():
        found = list(_from_folder(source, assignment))
    elif zipfile.is_zipfile(source):
        found = list(_from_zip(source, assignment))
    elif source.suffix == ".ipynb" and source.is_file():
        found = [_read(source, _student_of(source.name, assignment))]
    else:
        what = "is no folder, no zip and no notebook" if source.exists() else "is not there"
        raise UserError(f"submissions not found: {source} {what}")
    if not found:
        raise UserError(
            f"no submissions for {assignment} in {source}: no notebook, folder or zip was found there"
        )
    latest: dict[str, Submission] = {}
    early = datetime.datetime.min.replace(tzinfo=datetime.UTC)
    for entry in sorted(found, key=lambda one: (one.problem is None, one.handed_in or early)):
        if entry.student in latest:
            notes = (*entry.notes, "handed in more than once; the latest readable one counts")
            entry = replace(entry, notes=tuple(dict.fromkeys(notes)))
        latest[entry.student] = entry
    return sorted(latest.values(), key=lambda entry: entry.student)


def _from_folder(source: Path, assignment: str) -> Iterator[Submission]:
    """STUDENT.ipynb, STUDENT/*.ipynb, STUDENT/psN/psN.ipynb (nbgrader's `submitted`), STUDENT+psN+TIME/."""
    for entry in sorted(source.iterdir()):
        if entry.name.startswith("."):
            continue
        if match := _EXCHANGE.match(entry.name):
            if match["assignment"] != assignment:
                continue
            student = writable(match["student"])
        else:
            student = _student_of(entry.name, assignment)
        if entry.is_symlink():
            yield Submission(student, problem=_LINK)
        elif entry.is_dir():
            yield _from_student_folder(entry, student, assignment)
        elif entry.suffix == ".ipynb":
            yield _read(entry, student)
        elif entry.suffix == ".zip":  # one student's own: names inside it are not believed
            yield from _from_zip(entry, assignment, student)


def _from_student_folder(folder: Path, student: str, assignment: str) -> Submission:
    nested = folder / assignment
    here = nested if nested.is_dir() and not nested.is_symlink() else folder
    names = sorted(path for path in here.iterdir() if path.suffix == ".ipynb")
    path = _choose([path.name for path in names], assignment)
    if path is None:
        return Submission(student, problem="no notebook was handed in")
    return _read(here / path, student, stamp=here / "timestamp.txt")


def _choose(names: list[str], assignment: str) -> str | None:
    """The notebook that is meant: psN.ipynb, else the one with psN in its name, else the first."""
    exact = [name for name in names if PurePosixPath(name).name == f"{assignment}.ipynb"]
    close = [name for name in names if assignment in PurePosixPath(name).name]
    return next(iter([*exact, *close, *names]), None)


def _read(path: Path, student: str, stamp: Path | None = None) -> Submission:
    """Read one file, never through a link and never more than MAX_BYTES (a pipe or device is no file)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return Submission(student, problem=_LINK if path.is_symlink() else str(error.strerror))
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            return Submission(student, problem="is not a file")
        data = file.read(MAX_BYTES + 1)
    read = _sized(student, data, datetime.datetime.fromtimestamp(facts.st_mtime, datetime.UTC))
    if stamp is None or not stamp.is_file() or stamp.is_symlink():
        return read
    with stamp.open("rb") as file:
        when = _time(file.read(200).decode(errors="replace"))
    if when is not None:
        return replace(read, handed_in=when)
    return replace(read, notes=("timestamp.txt holds no time that can be read; the file's own counts",))


def _time(text: str) -> datetime.datetime | None:
    """nbgrader's timestamp.txt: 2026-10-01 12:30:00.123456 UTC."""
    try:
        when = datetime.datetime.fromisoformat(text.strip().replace(" UTC", "+00:00"))
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=datetime.UTC)


def _sized(student: str, data: bytes, when: datetime.datetime | None) -> Submission:
    if len(data) > MAX_BYTES:
        problem = (
            f"what was handed in is larger than {MAX_BYTES >> 20} MB; clear its outputs and hand it in again"
        )
        return Submission(student, problem=problem, handed_in=when)
    return Submission(student, data, handed_in=when)


def _from_zip(path: Path | IO[bytes], assignment: str, owner: str | None = None) -> Iterator[Submission]:
    """A platform's zip: notebooks or zips named after students, or a folder each; or all of it one owner's.

    Members are read, not unpacked. A student's zip inside of it is opened in memory, one inside of that not.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MAX_FILES:
                raise ValueError(f"it holds {len(members):,} files; more than {_MAX_FILES:,} are not read")
            by_student: dict[str, list[zipfile.ZipInfo]] = {}
            packed: dict[str, list[zipfile.ZipInfo]] = {}  # zips that students have made themselves
            others: dict[str, str] = {}  # who has handed in something else
            stems = _shared_folders(members)
            for member in members:
                parts = PurePosixPath(member.filename.replace("\\", "/")).parts
                if not parts or member.is_dir() or _IGNORED.intersection(parts):
                    continue
                kind = PurePosixPath(parts[-1]).suffix.lower()
                if owner and kind != ".ipynb":
                    continue
                if parts[0] == "/" or ".." in parts or ":" in parts[0]:
                    student = _student_of(parts[-1], assignment)
                    yield Submission(
                        student, problem="the zip's entry points outside the zip; it was not read"
                    )
                    continue
                naming = _naming_part(parts, assignment, stems if kind == ".zip" else ())
                student = owner or _student_of(naming, assignment)
                if kind == ".ipynb":
                    by_student.setdefault(student, []).append(member)
                elif kind == ".zip":
                    packed.setdefault(student, []).append(member)
                elif len(parts) > 1 and (match := _MOODLE.match(naming)):
                    others.setdefault(match["student"], parts[-1])
            if owner and owner not in by_student:
                yield Submission(owner, problem="the zip holds no notebook")
            for student, own in by_student.items():
                name = _choose([member.filename for member in own], assignment)
                yield _member(archive, next(m for m in own if m.filename == name), student)
            for student, member in ((s, m) for s, own in packed.items() for m in own):
                yield from _member_zip(archive, member, student, assignment)
            for student in others.keys() - by_student.keys() - packed.keys():
                yield Submission(student, problem=f"no notebook was handed in, only {others[student]}")
    except Exception as error:  # zipfile and its codecs have a dozen types for a damaged file
        if owner is None:
            raise UserError(f"cannot read {path}: {error}") from None
        yield Submission(owner, problem=f"the zip cannot be read ({error})")


def _naming_part(parts: tuple[str, ...], assignment: str, zips: Container[tuple] = ()) -> str:
    """The part of a member's path that names the student: the outermost that differs between students.

    zips: folders that hold several students' zips, and so are nobody's.
    """
    folders = [part for part in parts[:-1] if part not in (assignment, "submitted", "submissions")]
    return folders[0] if folders and parts[:-1] not in zips else parts[-1]


def _shared_folders(members: list[zipfile.ZipInfo]) -> set[tuple]:
    """Folders in which several zips lie beside each other, one a student."""
    zips = [PurePosixPath(member.filename.replace("\\", "/")) for member in members]
    counts = Counter(path.parts[:-1] for path in zips if path.suffix.lower() == ".zip")
    return {folder for folder, count in counts.items() if count > 1}


def _member_zip(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, student: str, assignment: str
) -> Iterator[Submission]:
    """What stands in a student's own zip inside a platform's."""
    entry = _member(archive, member, student)
    if entry.problem is not None:
        yield entry
        return
    for found in _from_zip(io.BytesIO(entry.data), assignment, student):
        yield replace(found, handed_in=found.handed_in or entry.handed_in)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, student: str) -> Submission:
    if stat.S_ISLNK(member.external_attr >> 16):
        return Submission(student, problem=_LINK)
    try:
        when = datetime.datetime(*member.date_time).astimezone()  # a zip's times are local
    except ValueError:
        when = None
    try:
        with archive.open(member) as file:
            data = file.read(MAX_BYTES + 1)
    except Exception as error:  # as above
        return Submission(student, problem=f"the zip's entry cannot be read ({error})", handed_in=when)
    return _sized(student, data, when)


def _student_of(name: str, assignment: str) -> str:
    """The student's name from a file's or folder's name."""
    name = writable(name).removesuffix(".ipynb").removesuffix(".zip")
    for pattern in (_MOODLE, _CANVAS):
        if match := pattern.match(name):
            return match["student"]
    short = re.sub(rf"[_\-. ]*{re.escape(assignment)}$|^{re.escape(assignment)}[_\-. ]+", "", name)
    return short or name


def writable(text: str) -> str:
    """The text; half a character, which JSON and names of files may hold but UTF-8 cannot, as "\\ud800"."""
    return text.encode(errors="backslashreplace").decode()


# ---- what is in a notebook


def cells_of(data: bytes) -> list[dict[str, Any]]:
    """The cells of a notebook file: {"type", "source", "id" (its grade_id or None)}; no other part is read.

    Raises UserError for what is no notebook of format 4.
    """
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not a notebook: not valid JSON ({str(error)[:100]})") from None
    if not isinstance(document, dict) or not isinstance(document.get("cells"), list):
        raise UserError("is not a notebook of format 4: it has no list of cells")
    cells = []
    for cell in document["cells"]:
        source = cell.get("source", "") if isinstance(cell, dict) else None
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if not isinstance(source, str):
            raise UserError("is not a notebook of format 4: a cell has no text")
        grading = cell.get("metadata")
        grading = grading.get("nbgrader") if isinstance(grading, dict) else None
        grade_id = grading.get("grade_id") if isinstance(grading, dict) else None
        own = grade_id if isinstance(grade_id, str) else None
        cells.append({"type": str(cell.get("cell_type")), "source": writable(source), "id": own})
    return cells
