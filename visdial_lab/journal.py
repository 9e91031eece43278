"""Long jobs that survive a kill: what is finished is appended to a journal beside the result, line by line.

The journal of R.json is R.json.part-0; a job of several processes has one for each, .part-1, .part-2 … The
first line says what all values were made from, every other one is [key, value], and the key tells of which
input it is the value. The same command, given again, reads them all, does what is left, and removes them once
the result is written.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from visdial_lab import __version__
from visdial_lab.errors import UserError, differences
from visdial_lab.files import model_fingerprint, read_json, resolve, write_text

_SYNC_SECONDS = 5  # how much work a power cut may cost; a killed process loses nothing


def key(name: int, content: Any) -> str:
    """The key of an input's value, as "17:9f86d081884c7d65": its name and a fingerprint of what is in it.

    So a file of inputs may be mended between two runs: what was mended is done, the rest is kept.
    """
    return f"{name}:{hashlib.sha256(repr(content).encode(errors='surrogatepass')).hexdigest()[:16]}"


def sources(model_path: str | Path, **settings: Any) -> dict[str, Any]:
    """What every value depends on, to stand in a journal's first line: weights, settings, version."""
    adapter, base = resolve(model_path) / "adapter_config.json", None
    if adapter.is_file():
        base = model_fingerprint(read_json(adapter).get("base_model_name_or_path", ""))
    made_from = {"model": model_fingerprint(model_path), "base model": base}
    return made_from | settings | {"visdial_lab": __version__}


def paths(output: Path) -> list[Path]:
    """The journals beside this result."""
    return sorted(output.parent.glob(f"{glob.escape(output.name)}.part-*"))


def read(output: Path, made_from: dict, keys: Collection | None = None, resume: bool = True) -> dict:
    """{key: value} of all journals of a result, for these keys (None: all); a last line that a kill has cut
    off goes.

    Without `resume` they are deleted instead. Raises UserError when a journal was made from something else,
    and says what differs.
    """
    if not resume:
        remove(output)
    found: dict = {}
    for path in paths(output):
        try:
            there, entries = _read_one(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        if not entries:  # begun, but nothing was finished: nothing to go on with
            path.unlink()
            continue
        changes = differences(there, made_from)
        known = {key: value for key, value in entries.items() if keys is None or key in keys}
        if changes or not known:
            raise UserError(
                f"{path} holds unfinished work made from something else: "
                f"{changes or 'another input file'}.\n"
                "Give the options it was begun with, or another output file, or --no-resume to begin anew"
            )
        found |= known
    return found


def _read_one(path: Path) -> tuple[dict, dict]:
    """(what a journal was made from, its entries). Raises UserError for a file that is not ours."""
    entries: dict = {}
    with path.open("r+b") as file:
        try:
            made_from = json.loads(file.readline())["made_from"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is in the way: it is no journal of this command; move it away") from None
        whole = file.tell()
        for line in file:
            try:
                key, value = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, TypeError):  # cut off, or never on the disk: nothing from here on
                break
            entries[key] = value
            whole += len(line)
        file.truncate(whole)
    return made_from, entries


@contextlib.contextmanager
def writing(
    output: Path, made_from: dict, number: int = 0, sync_seconds: float | None = None
) -> Iterator[Callable[[Any, Any], None]]:
    """Give write(key, value), which appends to the journal of process `number`.

    sync_seconds: how much work a power cut may cost (None: 5); with 0, every entry is on the disk when write
    returns.
    Raises UserError when the place cannot be written or the disk is full.
    """
    if os.path.exists(output) and not output.is_file():  # os.path: for it, too long a name is no error
        raise UserError(f"cannot write {output}: it is not a file; give the name of one")
    path = output.with_name(f"{output.name}.part-{number}")
    header = json.dumps({"made_from": made_from}) + "\n"
    if not os.path.exists(path):
        write_text(path, header)
    try:
        with path.open("ab", buffering=0) as file:  # a line a system call: nothing waits in a buffer
            synced = time.monotonic()

            def write(key: Any, value: Any) -> None:
                nonlocal synced
                line = (json.dumps([key, value], allow_nan=False) + "\n").encode()
                try:
                    if file.write(line) < len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    if time.monotonic() - synced >= (_SYNC_SECONDS if sync_seconds is None else sync_seconds):
                        os.fsync(file.fileno())
                        synced = time.monotonic()
                except OSError as error:
                    reason = f"{error.strerror}; what was finished before is kept"
                    raise UserError(f"cannot write {path}: {reason}") from None

            yield write
    finally:
        if os.path.exists(path) and path.stat().st_size == len(header):  # nothing was finished
            path.unlink()


def remove(output: Path) -> None:
    """Delete the journals of a result: it is written, or the work is to begin anew."""
    for path in paths(output):
        path.unlink()
