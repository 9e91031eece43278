"""A training that survives a kill: its checkpoints lie in OUTPUT.training until the adapter is written.

So do the curves for TensorBoard, if they are wanted; these stay, in OUTPUT.curves.
"""

import shutil
from pathlib import Path
from typing import Any

from visdial_lab.errors import UserError, differences
from visdial_lab.files import check_replaceable, read_json, write_json, write_text

_COMPLETE = "complete"  # written last into a checkpoint: one that a kill has cut short lacks it


def finished(output: Path, made_from: dict[str, Any], replace: bool) -> bool:
    """Whether the adapter of this very run is there already.

    Raises UserError when another run's is, or files that are not ours, unless the former may be replaced.
    """
    check_replaceable(output, "lab.json")
    if not (output / "lab.json").is_file():
        return False
    there = read_json(output / "lab.json", "adapter's notes").get("made_from", {})
    if there != made_from and not replace:
        raise UserError(_another(output, "the adapter", there, made_from))
    return there == made_from


def check(output: Path, made_from: dict[str, Any], replace: bool) -> None:
    """Raise UserError when the folder for checkpoints holds another run's that may not be replaced, or
    anything else."""
    work = _folder(output)
    if there := _made_from(work):
        if there != made_from and not replace:
            raise UserError(_another(work, "checkpoints", there, made_from))
    elif work.exists() and any(work.iterdir()):
        raise UserError(f"{work} is in the way: no run of ours made it; move it away")


def begin(output: Path, made_from: dict[str, Any], replace: bool) -> Path:
    """The folder for the checkpoints of this run, new or as a kill has left it; raises as `check`."""
    check(output, made_from, replace)
    work = _folder(output)
    if _made_from(work) not in (None, made_from):
        shutil.rmtree(work)
    write_json(work / "run.json", made_from)
    return work


def remove(output: Path, made_from: dict[str, Any]) -> None:
    """Delete the checkpoints of this run: its adapter is written. Its curves move to OUTPUT.curves."""
    work = _folder(output)
    if _made_from(work) != made_from:
        return
    for curve in sorted(work.glob("runs/*")):  # a folder for each time that the run was begun or went on
        kept = output.with_name(f"{output.name}.curves")
        kept.mkdir(exist_ok=True)
        shutil.move(curve, kept / curve.name)
    shutil.rmtree(work, ignore_errors=True)


def _made_from(work: Path) -> dict[str, Any] | None:
    """What the run whose checkpoints lie there is made from; None when none of ours has begun."""
    path = work / "run.json"
    return read_json(path, "run's description") if path.is_file() else None


def _folder(output: Path) -> Path:
    return output.with_name(f"{output.name}.training")


def _another(place: Path, what: str, there: dict[str, Any], made_from: dict[str, Any]) -> str:
    return (
        f"{place} holds {what} of another run: {differences(there, made_from)}.\n"
        "Give the settings it was made with, or another output folder, or --replace to lose what is there"
    )


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint as whole: every file of it is on the disk."""
    write_text(checkpoint / _COMPLETE, "")


def last(work: Path) -> str | None:
    """The latest whole checkpoint to go on from, as transformers wants it; None to begin from the start."""
    whole = [marker.parent for marker in work.glob(f"checkpoint-*/{_COMPLETE}")]
    return str(max(whole, key=lambda folder: int(folder.name.partition("-")[2]))) if whole else None
