"""Reading with errors that name the place, writing that never leaves half a file behind."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from visdial_lab.errors import UserError, listed, shown

# What goes wrong on the user's side while writing. Any other OSError is a bug of ours and stays one.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_PLACE = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it on success, remove it on any failure (Ctrl-C too).

    The suffix stays the same, because some writers (numpy, matplotlib) choose the format by it.
    Raises UserError when the disk is full or the place cannot be written.
    """
    path = Path(os.path.realpath(path))  # behind a link, so that the link survives
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"cannot write {path}: it is not a file; give the name of one")
    with _cleaned_up(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextlib.contextmanager
def atomic_folder(path: str | Path, marker: str = "lab.json") -> Iterator[Path]:
    """Give a new temporary folder beside `path`; it takes the place of `path` on success, else it is removed.

    A folder that is already there is replaced only when it is empty or holds a file called `marker`, that
    is, when we wrote it: `--output-dir ~` must not delete anyone's home. Raises UserError otherwise.
    """
    path = Path(os.path.realpath(path))
    check_replaceable(path, marker)
    with _cleaned_up(path) as temporary:
        temporary.mkdir()
        yield temporary
        retired = temporary.with_name(f"{temporary.name}.old")
        if path.exists():
            path.rename(retired)
        try:
            temporary.rename(path)
        except BaseException:  # put the old one back, whatever happened
            if retired.exists():
                retired.rename(path)
            raise
        shutil.rmtree(retired, ignore_errors=True)


def check_replaceable(path: Path, marker: str) -> None:
    """Raise UserError unless a folder that is there is empty or, by this file in it, known as ours.

    To be asked before hours of work, too: `atomic_folder` writes at their end.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise UserError(f"cannot write folder {path}: a file of that name is in the way")
    if os.path.isdir(path) and any(path.iterdir()) and not (path / marker).is_file():
        raise UserError(f"will not replace {path}: it holds other files (no {marker}); name a new folder")


@contextlib.contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Keep a second run away from the same work; the lock goes with the process, however that ends.

    what: what the second one is told, as "another download is at work in DIR". Raises UserError then, and
    when the place cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock).acquire(blocking=False)
    except Timeout:
        raise UserError(f"{what}; wait for it") from None
    except OSError as error:
        reason = f"{error.strerror or error}; choose another place"
        raise UserError(f"cannot write {lock.parent}: {reason}") from None
    with held:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()


@contextlib.contextmanager
def _cleaned_up(path: Path) -> Iterator[Path]:
    """The part common to files and folders: a temporary name, removing it, and readable write errors."""
    temporary = path.with_name(f".{path.stem[:80]}.tmp-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        about = str(error.filename)  # a folder that cannot be made, the temporary file, or some other file
        own = about.startswith(str(temporary)) or Path(about) in path.parents
        if error.errno not in _DISK | _PLACE and not own:
            raise
        raise UserError(
            f"cannot write {path}: {error.strerror}; free space or choose another place"
        ) from error
    finally:  # after a successful rename there is nothing left to remove
        shutil.rmtree(temporary, ignore_errors=True)  # a folder
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically. Raises UserError when the place cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, obj: Any, indent: int | None = 1) -> None:
    """Write standard JSON atomically, to be read by people or (indent None) all in one line.

    Raises ValueError on NaN, which JSON does not have.
    """
    write_text(path, json.dumps(obj, ensure_ascii=False, indent=indent, allow_nan=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write one JSON value a line, atomically and streaming (rows may be a generator); return the count."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_bytes(path: str | Path, what: str = "file") -> bytes:
    """Read a whole file. Raises UserError naming `what` and the file."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        folder, suffix = Path(path).parent, Path(path).suffix
        there = f"its folder holds {holds(folder, suffix)}" if folder.is_dir() else f"no folder {folder}"
        raise UserError(f"{what} not found: {path} ({there})") from None
    except IsADirectoryError:
        raise UserError(f"{what} expected at {path}, but that is a folder") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UserError(f"cannot read {what} {path}: {getattr(error, 'strerror', None) or error}") from None


def holds(folder: Path, suffix: str = "") -> str:
    """What lies in a folder, for a message about what does not: "a.json, b.json and 7 more", folders as "c/".

    suffix: only names that end so; when there are none, all.
    """
    try:
        there = [path for path in folder.iterdir() if not path.name.startswith(".") and path.exists()]
    except OSError as error:
        return f"what cannot be read ({error.strerror})"
    chosen = [path for path in there if path.name.endswith(suffix)] or there
    return listed(sorted(path.name + "/" * path.is_dir() for path in chosen), 5) or "nothing"


def read_text(path: str | Path, what: str = "file") -> str:
    """Read UTF-8 text. Raises UserError naming `what`, the file and, for bad bytes, the line."""
    data = read_bytes(path, what)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{what} {path}, line {line}: not UTF-8 text (byte {error.start}); is it another kind of file?"
        ) from None


def read_json(path: str | Path, what: str = "JSON file") -> Any:
    """Read JSON. Raises UserError naming `what`, file, line and column: missing, cut off or invalid."""
    return _parse_json(read_text(path, what), f"{what} {path}", first_line=1)


def read_jsonl(path: str | Path, what: str = "JSON lines file") -> list[Any]:
    """Read one JSON value a line, skipping blank lines. Raises UserError as `read_json` does."""
    lines = enumerate(read_text(path, what).split("\n"), 1)
    return [_parse_json(line, f"{what} {path}", number) for number, line in lines if line.strip()]


def _parse_json(text: str, where: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {first_line + error.lineno - 1}, column {error.colno}"
        cut_off = error.pos >= len(text.rstrip())
        hint = "the file ends too early, fetch or write it again" if cut_off else error.msg
        raise UserError(f"{where}, {place}: not valid JSON ({hint})") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of more than 4300 digits
        raise UserError(f"{where}, from line {first_line}: not usable JSON ({error})") from None


def sha256(path: str | Path) -> str:
    """Fingerprint a file, or a folder: sorted relative names, sizes and bytes of all files below it."""
    path, digest = Path(path), hashlib.sha256()
    try:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            if file != path:
                digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)  # reads in pieces, into the digest given
    except OSError as error:
        raise UserError(f"cannot read {error.filename or path}: {error.strerror}") from None
    return digest.hexdigest()


def model_fingerprint(folder_or_name: str | Path) -> str:
    """What identifies a model: a folder's sha256, or the name of a model that is not on this machine."""
    folder = resolve(folder_or_name)
    return sha256(folder) if folder.is_dir() else str(folder_or_name)


def fingerprint(*parts: Any) -> str:
    """One short hash over values that JSON can hold: equal hashes, equal inputs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def course_root() -> Path:
    """Find the course folder, so that notebooks work from any folder inside it.

    It is $VISDIAL_LAB_ROOT, else the first of the working folder, its parents and the checkout this package
    lives in that holds data/scenes. Raises UserError when there is none.
    """
    if given := os.environ.get("VISDIAL_LAB_ROOT"):
        if not Path(given).is_dir():
            raise UserError(f"VISDIAL_LAB_ROOT names {given}, which is not a folder; correct it or unset it")
        return Path(given).absolute()
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).absolute().parents[1]):
        if (folder / "data" / "scenes").is_dir():
            return folder
    raise UserError(
        "course folder not found: run inside it, or set VISDIAL_LAB_ROOT to the folder that holds data/scenes"
    )


def resolve(path: str | Path) -> Path:
    """A path from a config or a record made absolute: from here if it exists here, else from the course.

    Raises UserError for one that cannot be: too long a name, a folder that may not be entered; and for the
    embedded data and model outside of any course folder, because they are nowhere else.
    """
    path = Path(os.path.expanduser(path))  # leaves ~nobody as it is, where Path.expanduser fails
    try:
        there = path.exists()
    except OSError as error:
        raise UserError(f"cannot use the path {shown(str(path))}: {error.strerror}") from None
    if not there:
        try:
            return course_root() / path
        except UserError as error:  # for other paths, the message will name a place right here
            if path.parts[:2] in (("data", "scenes"), ("data", "gemma3-scenes")):
                raise UserError(f"{error} (wanted: {path.as_posix()})") from None
    return path.absolute()


def portable(path: str | Path) -> str:
    """The path as we write it into files: relative to the course folder if inside it, so files can move."""
    with contextlib.suppress(UserError, ValueError):
        return Path(os.path.abspath(path)).relative_to(course_root()).as_posix()
    return str(path)
