"""Training records from dialogs: one line of JSON a dialog, in the conversational format that TRL reads."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from visdial_lab.chat import chat_messages, join_reminder
from visdial_lab.errors import UserError
from visdial_lab.files import portable, read_json, read_jsonl, write_jsonl
from visdial_lab.teacher import reminders
from visdial_lab.visdial import VisDial

_FIELDS = {"id": str, "image_id": int, "image": str | None, "source": str, "messages": list}  # of a record


def records(
    visdial: VisDial,
    sample_count: int | None = None,
    rounds: str | int = "all",
    seed: int = 0,
    style: str = "plain",
) -> Iterator[dict]:
    """Yield one training record a dialog: {"id", "image_id", "image", "source", "messages"}.

    sample_count: a seeded sample of so many dialogs, in file order (None = all).
    rounds: "all", or how many rounds from the beginning. Rounds without a published answer teach nothing and
    are left out. style: "plain", or "reminder": before each answer the `teacher` recalls what matters.
    Raises UserError for a sample larger than the split, empty texts, `rounds` out of range, and reminders
    about anything but the embedded scenes.
    """
    if rounds != "all" and (isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1):
        raise UserError(f'rounds: expected "all" or a whole number from 1, got {rounds!r}')
    chosen = range(len(visdial))
    if sample_count is not None:
        if not 0 < sample_count <= len(visdial):
            raise UserError(
                f"sample_count is {sample_count}, but the {visdial.split} split has {len(visdial)} dialogs"
            )
        chosen = sorted(random.Random(seed).sample(chosen, sample_count))
    kinds = _scene_kinds(visdial) if style == "reminder" else {}
    for index in chosen:
        dialog = visdial[index]
        turns = [(turn.question, turn.answer) for turn in dialog.rounds if turn.answer is not None]
        turns = turns if rounds == "all" else turns[:rounds]
        if style == "reminder":
            recalled = reminders(kinds[dialog.image_id], dialog.caption, turns)
            turns = [(q, join_reminder(text, a)) for text, (q, a) in zip(recalled, turns, strict=True)]
        if turns:
            yield {
                "id": f"{dialog.split}-{dialog.image_id}",
                "image_id": dialog.image_id,
                "image": None if dialog.image_path is None else portable(dialog.image_path),
                "source": f"visdial-{dialog.split}",
                "messages": chat_messages(turns, dialog.caption, f"dialog {dialog.image_id}: "),
            }


def _scene_kinds(visdial: VisDial) -> dict[int, list[str]]:
    """{image id: the kinds of things in its picture}, all that the teacher is told of a scene's truth."""
    path = visdial.path.parent / f"truth_{visdial.split}.json"
    if not path.is_file():
        raise UserError(
            f"{path.name} is not beside the dialogs: the teacher by rules knows the embedded scenes only; "
            "for other pictures let a big model write the reminders (generate api --style reminder)"
        )
    truth = read_json(path, "truth file")
    return {note["image_id"]: [thing["kind"] for thing in note["scene"]["things"]] for note in truth}


def write_records(
    path: str | Path,
    visdial: VisDial,
    sample_count: int | None = None,
    rounds: str | int = "all",
    seed: int = 0,
    style: str = "plain",
) -> int:
    """Write `records(…)` to a .jsonl file, atomically, and return how many."""
    return write_jsonl(path, records(visdial, sample_count, rounds, seed, style))


def read_records(path: str | Path) -> list[dict]:
    """Read records and check every one. Raises UserError naming file, record and field of a mistake."""
    rows = read_jsonl(path, "records file")
    if not rows:
        raise UserError(f"records file {path} is empty; generate records first")
    for number, row in enumerate(rows, 1):
        if problem := _problem(row):
            raise UserError(f"records file {path}, record {number}: {problem}")
    return rows


def _problem(row: Any) -> str | None:
    """What is wrong with a record, or None."""
    if not isinstance(row, dict):
        return f"expected an object with {', '.join(_FIELDS)}"
    for key, kind in _FIELDS.items():
        if key not in row:
            return f"{key} is missing"
        if not isinstance(row[key], kind) or isinstance(row[key], bool):
            return f"{key} has the wrong type ({type(row[key]).__name__})"
    if len(row["messages"]) < 2 or len(row["messages"]) % 2:
        return "messages should be pairs of user and assistant turns"
    for place, message in enumerate(row["messages"]):
        role, where = ("assistant" if place % 2 else "user"), f"messages[{place}]"
        if not isinstance(message, dict) or message.get("role") != role:
            return f"{where}.role should be {role!r}"
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            return f"{where}.content should be text or a list of parts"
        kinds = [part.get("type") for part in parts]
        if kinds != ["text"] and (kinds != ["image", "text"] or place > 0):
            hint = "expected ['text'] (the first turn may hold ['image', 'text'])"
            return f"{where}.content holds {kinds}, {hint}"
        if not isinstance(parts[-1].get("text"), str) or not parts[-1]["text"].strip():
            return f"{where}.content has no text"
    return None
