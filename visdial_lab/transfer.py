"""One file over an unreliable network: goes on where it stopped, tries again, believes nothing unchecked."""

import hashlib
import os
import shutil
import stat
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import httpx
import msgspec
from PIL import Image

from visdial_lab.errors import WorkFailed
from visdial_lab.progress import Progress

TRIES, PAUSE = 6, 1.0  # attempts in a row without progress; seconds before the second, doubled for the next

Report = Callable[[int, str], None]
Exact = tuple[int, str] | None


class Gone(WorkFailed):
    """The server does not have the file, or does not give it to us."""


class _Again(Exception):
    """This attempt failed, the next may not."""


def fetch(
    client: httpx.Client, url: str, part: Path, target: Path, report: Report, exact: Exact = None
) -> None:
    """Fetch one file into `part`, going on from what is there already; when it is whole, it becomes `target`.

    report(bytes, name) is told what arrives. exact: size and md5, where they are known; otherwise a zip, a
    photo or JSON is looked into. At most TRIES attempts in a row may bring less than a megabyte.
    Raises Gone when the server says that it will not give it, WorkFailed when it does not manage to.
    """
    failures = 0
    while True:
        before = length(part)
        try:
            _receive(client, url, part, lambda count: report(count, target.name))
            _check(part, target.suffix, exact)
            os.replace(part, target)
            return
        except (_Again, httpx.HTTPError) as error:
            failures = 1 if length(part) >= before + (1 << 20) else failures + 1
            if failures >= TRIES:
                what = str(error) or type(error).__name__
                raise WorkFailed(f"{url}: {what} ({TRIES} attempts)") from None
            time.sleep(PAUSE * 2 ** (failures - 1))


def _receive(client: httpx.Client, url: str, part: Path, report: Callable[[int], None]) -> None:
    """One request. What arrives is appended to `part`, or replaces it if the server starts from the front."""
    have = length(part)
    with client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
        status = response.status_code
        if status in (401, 403, 404, 410):  # some stores answer 403 for what they do not have
            raise Gone(f"{url}: the server answers {status} {response.reason_phrase}")
        if status == 416:  # nothing after what we have: it may be whole
            return
        if status == 429 or status >= 500:
            if (wait := response.headers.get("Retry-After", "")).isdecimal():
                time.sleep(min(int(wait), 60))
            raise _Again(f"the server answers {status}")
        if status not in (200, 206):
            raise WorkFailed(f"{url}: the server answers {status} {response.reason_phrase}")
        if "text/html" in response.headers.get("Content-Type", ""):
            raise _Again("a web page came instead of the file")
        goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if status == 206 and not goes_on:
            part.unlink(missing_ok=True)
            raise _Again("the server sent another part than was asked for")
        with part.open("ab" if status == 206 else "wb") as file:
            report(0 if status == 206 else -have)
            for chunk in response.iter_raw():
                file.write(chunk)
                report(len(chunk))


def _check(part: Path, suffix: str, exact: Exact) -> None:
    """_Again, and the file removed, unless it is whole and of its kind."""
    problem = None
    try:
        if exact and length(part) != exact[0]:
            problem = f"{length(part):,} bytes came, expected {exact[0]:,}"
        elif exact:
            with part.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            problem = None if found == exact[1] else f"wrong checksum (md5 {found}, expected {exact[1]})"
        elif suffix == ".zip":
            with zipfile.ZipFile(part) as archive:
                problem = archive.testzip() and "damaged zip"
        elif suffix == ".json":
            msgspec.json.decode(part.read_bytes(), type=msgspec.Raw)
        elif suffix == ".jpg":
            with Image.open(part) as picture:
                picture.draft("L", (80, 80))  # the fast way through all of its bytes
                picture.load()
    except Exception as error:  # the three libraries raise a dozen different types on damaged files
        problem = f"damaged {suffix[1:]} ({error})"
    if problem:
        part.unlink(missing_ok=True)
        raise _Again(problem)


def safe_members(archive: zipfile.ZipFile, about: int) -> dict[str, zipfile.ZipInfo]:
    """{last part of the name: member}. ValueError for a zip that wants out of its folder, or is a bomb.

    about: the bytes that it is expected to unpack to.
    """
    for member in archive.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        outside = path.is_absolute() or ".." in path.parts or ":" in path.name
        if outside or stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"it is not safe to unpack ({member.filename[:60]!a})")
    size = sum(member.file_size for member in archive.infolist())
    if size > 2 * about + (1 << 20):
        raise ValueError(f"it would unpack to {size_text(size)}, expected about {size_text(about)}")
    return {PurePosixPath(member.filename).name: member for member in archive.infolist()}


def unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Unpack one member to a path of our choice."""
    with archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def size_text(count: float) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def meter(total: int, progress: Progress) -> Report:
    """Give report(bytes, name), for any thread: it counts, and tells `progress` twice a second.

    progress(done, total, note): megabytes, and speed and time left, which change every ten seconds.
    """
    lock, began = threading.Lock(), time.monotonic()
    done, told, noted, note = 0, 0.0, began, ""

    def report(count: int, name: str) -> None:
        nonlocal done, told, noted, note
        with lock:
            done, now = done + count, time.monotonic()
            if now - noted > (10 if note else 2) and done > 0:
                rate, noted = done / (now - began), now
                left = max(0, total - done) / rate
                left = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
                note = f"{name}, {rate / 1e6:.1f} MB/s, {left} left"
            if now - told > 0.5:
                told = now
                progress(round(done / 1e6), round(max(total, done) / 1e6), note)

    return report
