"""Training records from dialogs: one line of JSON a dialog, in the conversational format that TRL reads.
And the evaluation set: every question with its history, options and relevance, under one content hash.
"""

import collections
import functools
import hashlib
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from visdial_lab.chat import chat_messages, join_reminder, parts
from visdial_lab.errors import UserError, counted, naming
from visdial_lab.files import portable, read_json, read_jsonl, write_jsonl, write_text
from visdial_lab.teacher import reminders
from visdial_lab.text_metrics import question_type
from visdial_lab.visdial import Dialog, VisDial

_FIELDS = {"id": str, "image_id": int, "image": str | None, "source": str, "messages": list}  # of a record


def records(
    visdial: VisDial,
    sample_count: int | None = None,
    rounds: str | int = "all",
    seed: int = 0,
    style: str = "plain",
    stratify: str | None = None,
) -> Iterator[dict]:
    """Yield one training record a dialog: {"id", "image_id", "image", "source", "messages"}.

    sample_count: a seeded sample of so many dialogs, in file order (None = all).
    rounds: "all", or how many from the beginning: each of these answers is learnt. "last": the whole dialog,
    of which only the last answer is learnt. "random": cut after a random round, whose answer alone is learnt.
    stratify: "question-type" takes as many questions of each type as there are (a type that has too few gives
    all it has); needs rounds="random", where a record teaches one question.
    style: "plain", or "reminder": before each answer the `teacher` recalls what matters.
    Answers that are not learnt have "weight": 0, as in OpenAI's fine-tuning format. Rounds without a
    published answer teach nothing and are left out. Raises UserError for a sample larger than the split,
    empty texts, `rounds` and `stratify` out of range, and reminders about anything but the embedded scenes.
    """
    kinds = scene_kinds(visdial) if style == "reminder" else {}
    for index, round_id in _chosen(visdial, sample_count, rounds, seed, stratify):
        dialog = visdial.without_options(index)
        turns = [(turn.question, turn.answer) for turn in dialog.rounds if turn.answer is not None]
        if isinstance(rounds, int):
            turns = turns[:rounds]
        elif rounds == "random":
            last = round_id or random.Random(f"{seed} {dialog.image_id}").randint(1, max(1, len(turns)))
            turns = turns[:last]
        if style == "reminder":
            recalled = reminders(kinds[dialog.image_id], dialog.caption, turns)
            turns = [(q, join_reminder(text, a)) for text, (q, a) in zip(recalled, turns, strict=True)]
        if turns:
            last_only, name = rounds in ("last", "random"), f"{dialog.split}-{dialog.image_id}"
            yield record(dialog, name, f"visdial-{dialog.split}", turns, last_only)


def record(
    dialog: Dialog, name: str, source: str, turns: list[tuple[str, str]], last_only: bool
) -> dict[str, Any]:
    """A record of these (question, answer) pairs about a dialog's picture; last_only: one answer is learnt.

    Raises UserError for empty texts.
    """
    with naming(f"dialog {dialog.image_id}"):
        messages = chat_messages(turns, dialog.caption)
    return {
        "id": name,
        "image_id": dialog.image_id,
        "image": None if dialog.image_path is None else portable(dialog.image_path),
        "source": source,
        "messages": only_last_learnt(messages) if last_only else messages,
    }


def scene_kinds(visdial: VisDial) -> dict[int, list[str]]:
    """{image id: the kinds of things in its picture}, all that the teacher is told of a scene's truth."""
    path = visdial.path.parent / f"truth_{visdial.split}.json"
    if not path.is_file():
        raise UserError(
            f"{path.name} is not beside the dialogs: the teacher by rules knows the embedded scenes only; "
            "for other pictures let a big model write the reminders (generate api --style reminder)"
        )
    truth = read_json(path, "truth file")
    return {note["image_id"]: [thing["kind"] for thing in note["scene"]["things"]] for note in truth}


def only_last_learnt(messages: list[dict]) -> list[dict]:
    """The same messages, with "weight": 0 on every answer but the last."""
    return [
        message | ({"weight": 0} if message["role"] == "assistant" and message is not messages[-1] else {})
        for message in messages
    ]


def _chosen(
    visdial: VisDial, sample_count: int | None, rounds: str | int, seed: int, stratify: str | None
) -> Iterable[tuple[int, int | None]]:
    """(place of the dialog, round_id or None) of each record, in file order."""
    if rounds not in ("all", "last", "random") and (type(rounds) is not int or rounds < 1):
        raise UserError(f'rounds: expected "all", "last", "random" or a whole number from 1, got {rounds!r}')
    if sample_count is not None and not 0 < sample_count <= len(visdial):
        there = counted(len(visdial), "dialog")
        raise UserError(
            f"sample_count is {sample_count}, but the {visdial.split} split has {there}, "
            "and a dialog gives one record"
        )
    count = len(visdial) if sample_count is None else sample_count
    if stratify is not None:
        if stratify != "question-type" or rounds != "random":
            raise UserError(f'stratify: expected "question-type" with rounds "random", got {stratify!r}')
        return sorted(_balanced(visdial, count, seed).items())
    everyone = range(len(visdial))
    chosen = everyone if sample_count is None else sorted(random.Random(seed).sample(everyone, count))
    return ((place, None) for place in chosen)


def _balanced(visdial: VisDial, count: int, seed: int) -> dict[int, int]:
    """{place of a dialog: round_id}: `count` dialogs, a round from each, every type of question alike.

    The rarest type goes first and takes its share of what is still wanted, or all it has.
    """
    by_type, kind = collections.defaultdict(list), functools.cache(question_type)  # many questions recur
    for place, round_id, question in visdial.answered():
        by_type[kind(question)].append((place, round_id))
    rng, taken = random.Random(seed), {}
    queues = [rng.sample(found, len(found)) for _, found in sorted(by_type.items())]
    queues.sort(key=len)
    for number, queue in enumerate(queues):
        share = -(-(count - len(taken)) // (len(queues) - number))
        for place, round_id in queue:
            if share and place not in taken:
                taken[place], share = round_id, share - 1
    for place, round_id in (one for queue in queues for one in queue):  # a dialog may have no other type
        if len(taken) < count:
            taken.setdefault(place, round_id)
    return taken


def write_records(path: str | Path, visdial: VisDial, *options: Any, **more: Any) -> int:
    """Write `records(visdial, …)` to a .jsonl file, atomically, and return how many."""
    return write_jsonl(path, records(visdial, *options, **more))


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
        if message.get("weight") not in (None, 0, 1) or (role == "user" and message.get("weight") == 1):
            return f"{where}.weight should be 0 (not learnt) or 1, and stand at an answer"
        content = parts({"content": message.get("content")})
        if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
            return f"{where}.content should be text or a list of parts"
        kinds = [part.get("type") for part in content]
        if kinds != ["text"] and (kinds != ["image", "text"] or place > 0):
            hint = "expected ['text'] (the first turn may hold ['image', 'text'])"
            return f"{where}.content holds {kinds}, {hint}"
        if not isinstance(content[-1].get("text"), str) or not content[-1]["text"].strip():
            return f"{where}.content has no text"
    if all(message.get("weight") == 0 for message in row["messages"][1::2]):
        return "every answer has weight 0: nothing would be learnt"
    return None


EVALUATION_FORMAT = "visdial-lab evaluation set 1"


def evaluation_set(visdial: VisDial) -> dict[str, Any]:
    """What two people must share to evaluate on the same thing, with a hash that shows whether they do.

    → {"format", "split", "content_sha256", "items": [{"image_id", "round_id" (from 1), "caption", "history":
    [[question, answer] …], "question", "answer", "options": [100], "gt_index", "relevance": [100] or null}]},
    one item for each round that has options, by image id. The hash is that of the canonical JSON of format,
    split and items; pictures are named by their ids alone, so that it is the same wherever they lie.
    Raises UserError when the split has no options, or two dialogs about one picture.
    """
    items = []
    for dialog in visdial:
        history: list[list[str | None]] = []
        for turn in dialog.rounds:
            if turn.options is not None:
                about = {"image_id": dialog.image_id, "caption": dialog.caption, "history": list(history)}
                known = {key: value for key, value in vars(turn).items() if value is not None}
                nothing = dict.fromkeys(("answer", "gt_index", "relevance"))  # as in the test split
                items.append(about | nothing | known)
            history.append([turn.question, turn.answer])
    if not items:
        raise UserError(f"{visdial.path}: no round has options: there is nothing to rank")
    items.sort(key=lambda item: (item["image_id"], item["round_id"]))
    keys = [(item["image_id"], item["round_id"]) for item in items]
    if len(set(keys)) < len(keys):
        twice = next(key for key, following in itertools.pairwise(keys) if key == following)
        raise UserError(f"{visdial.path}: image {twice[0]} has two dialogs; an evaluation needs one")
    content = {"format": EVALUATION_FORMAT, "split": visdial.split, "items": items}
    return content | {"content_sha256": _content_hash(content)}


def write_evaluation_set(path: str | Path, visdial: VisDial) -> dict[str, Any]:
    """Write `evaluation_set(…)`, the same bytes from the same data on any machine, and return it."""
    found = evaluation_set(visdial)
    write_text(path, _canonical(found) + "\n")
    return found


def read_evaluation_set(path: str | Path) -> dict[str, Any]:
    """Read an evaluation set. Raises UserError when it is none, or was changed after it had been written."""
    found = read_json(path, "evaluation set")
    if not isinstance(found, dict) or found.get("format") != EVALUATION_FORMAT:
        raise UserError(f"{path} is no evaluation set; `visdial-lab generate eval` writes one")
    content = {key: value for key, value in found.items() if key != "content_sha256"}
    if found.get("content_sha256") != _content_hash(content):
        raise UserError(f"{path} was changed: its content has not the hash that it names")
    return found


def _content_hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _canonical(value: Any) -> str:
    """JSON with one spelling only: sorted keys, no spaces, no escapes that need not be."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
