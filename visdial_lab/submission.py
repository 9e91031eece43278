"""EvalAI's format: checking predictions against dialogs, writing submissions, diagnosing those of others."""

import collections
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visdial_lab.errors import UserError, shown
from visdial_lab.files import atomic_path
from visdial_lab.visdial import Dialog, Round

Key = tuple[int, int]  # (image_id, round_id)
FULL = {"val": 20_640, "test": 8_000}  # entries that the server expects: all rounds, the last of each dialog
_FORM = "{image_id, round_id, ranks}"


def matched(predictions: Any, dialogs: Sequence[Dialog]) -> Iterator[tuple[str, dict, Round]]:
    """Every entry with its place in the list, for messages, and the round it is about.

    Raises UserError for what is no such list, an unknown image or round, a round given twice.
    """
    if not isinstance(predictions, list):
        raise UserError(f"predictions: expected a list of {_FORM}, got {shown(predictions)}")
    rounds = {(dialog.image_id, turn.round_id): turn for dialog in dialogs for turn in dialog.rounds}
    images = {image_id for image_id, _ in rounds}
    first_use: dict[Key, int] = {}
    for n, entry in enumerate(predictions):
        place = f"predictions[{n}]"
        if wrong := _malformed(entry):
            raise UserError(f"{place}{wrong}")
        image_id, round_id = key = entry["image_id"], entry["round_id"]
        if image_id not in images:
            rest = {e.get("image_id") for e in predictions[n:] if isinstance(e, dict)} - images
            listed = f"; unknown: {_listing(rest)}" if len(rest) > 1 else ""
            raise UserError(
                f"{place}.image_id {shown(image_id)} is in none of the dialogs; another split's?{listed}"
            )
        if key not in rounds:
            raise UserError(
                f"{place}.round_id: image {image_id} has no round {shown(round_id)}; the first is 1"
            )
        if first_use.setdefault(key, n) != n:
            raise UserError(
                f"{place}: round {round_id} of image {image_id} again, after predictions[{first_use[key]}]"
            )
        yield place, entry, rounds[key]


def validate_predictions(
    predictions: list, dialogs: Sequence[Dialog], allow_partial: bool = False
) -> np.ndarray:
    """Check an EvalAI list against the dialogs; return its ranks [rounds with options, O] in dialog order.

    Exactly one entry for every round that has options (val: all rounds; test: the last of each dialog).
    allow_partial: rounds may be missing; their ranks are 0.
    Raises UserError naming the entry: unknown image or round, given twice, missing, not a permutation.
    """
    ranks: dict[Key, list[int]] = {}
    for place, entry, turn in matched(predictions, dialogs):
        if turn.options is None:
            raise UserError(
                f"{place}: round {turn.round_id} of image {entry['image_id']} has no options to rank"
            )
        if wrong := _no_ranks(entry.get("ranks"), len(turn.options)):
            raise UserError(f"{place}{wrong}")
        ranks[entry["image_id"], turn.round_id] = entry["ranks"]
    wanted = _wanted(dialogs)
    missing = [key for key in wanted if key not in ranks]
    if missing and not allow_partial:
        more = f" and {len(missing) - 1} other rounds" if len(missing) > 1 else ""
        raise UserError(f"predictions: nothing for round {missing[0][1]} of image {missing[0][0]}{more}")
    return np.array([ranks.get(key) or [0] * len(turn.options) for key, turn in wanted.items()])


def write_submission(
    path: Path, predictions: list, dialogs: Sequence[Dialog], split: str, allow_partial: bool = False
) -> int:
    """Write what EvalAI takes, checked: val all rounds, test the last round of each dialog; return the count.

    Only image_id, round_id and ranks are kept, in the dialogs' order. Raises UserError when an entry does not
    fit, when it is not the whole split (unless `allow_partial`), or when `check_submission` finds a fault.
    """
    if split not in FULL:
        raise UserError(f"EvalAI takes submissions for val and test, not for {shown(split)}")
    if dialogs and (own := dialogs[0].split) != split:
        raise UserError(f"these are {own} dialogs; a {split} submission needs those of {split}")
    ranks = validate_predictions(predictions, dialogs, allow_partial)
    entries = [
        {"image_id": image_id, "round_id": round_id, "ranks": row}
        for (image_id, round_id), row in zip(_wanted(dialogs), ranks.tolist(), strict=True)
        if row[0]
    ]
    if problems := check_submission(entries, dialogs, allow_partial):
        raise UserError(f"no submission written: {problems[0]}")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(entries), encoding="utf-8")
    return len(entries)


def check_submission(
    entries: Any, dialogs: Sequence[Dialog] | None = None, allow_partial: bool = False
) -> list[str]:
    """Everything that is wrong with a submission made elsewhere, a line each; empty when nothing is.

    Knows ranks or rounds counted from 0, inverse permutations, ranks upside down, missing, duplicate and
    unknown entries, wrong rounds, and malformed ones with their place. What was recognised is mended before
    the next check, so that one mistake does not hide another. Without `dialogs` a file is only checked
    against itself.
    """
    if not isinstance(entries, list) or not entries:
        return [f"expected a list of {_FORM}, got {shown(entries)}"]
    problems = []
    bad = {n: wrong for n, entry in enumerate(entries) if (wrong := _malformed(entry))}
    lists = {
        n: entry["ranks"] for n, entry in enumerate(entries) if n not in bad and _whole(entry.get("ranks"))
    }
    from_zero = bool(lists) and all(sorted(row) == list(range(len(row))) for row in lists.values())
    if from_zero:
        problems.append("ranks are counted from 0 (0 to 99 in every list); the best option has rank 1: add 1")
        lists = {n: [rank + 1 for rank in row] for n, row in lists.items()}
    usual = max(map(len, lists.values()), default=100)
    for n, entry in enumerate(entries):
        if n not in bad and (wrong := _no_ranks(lists.get(n, entry.get("ranks")), usual)):
            bad[n] = wrong
    if bad:
        n = min(bad)
        problems.append(f"predictions[{n}]{bad[n]}{_others(len(bad), 'entries', 'malformed')}")
    keys = [(entry["image_id"], entry["round_id"]) for n, entry in enumerate(entries) if n not in bad]
    rows = [lists[n] for n in range(len(entries)) if n not in bad]
    if any(round_id == 0 for _, round_id in keys):
        problems.append("rounds are counted from 0; round_id of a dialog's first round is 1: add 1")
        keys = [(image_id, round_id + 1) for image_id, round_id in keys]
    problems += _check_keys(keys, dialogs, allow_partial)
    if rows:
        problems += _check_direction(keys, np.array(rows), dialogs)
    return problems


def _check_keys(keys: list[Key], dialogs: Sequence[Dialog] | None, allow_partial: bool) -> Iterator[str]:
    """Duplicate, unknown, missing entries and wrong rounds."""
    twice = [key for key, count in collections.Counter(keys).items() if count > 1]
    if twice:
        yield f"{_name(twice[0])} is there more than once{_others(len(twice), 'rounds', 'given twice')}"
    given = set(keys)
    rounds = collections.defaultdict(set)
    for image_id, round_id in given:
        rounds[image_id].add(round_id)
    if dialogs is None:  # val: ten rounds an image; test: one
        several = any(len(own) > 1 for own in rounds.values())
        wanted = {(image, r) for image in rounds for r in (range(1, 11) if several else rounds[image])}
        split = "val" if several else "test"
    else:
        wanted, split = set(_wanted(dialogs)), dialogs[0].split
        every = {(dialog.image_id, turn.round_id) for dialog in dialogs for turn in dialog.rounds}
        if unknown := sorted(rounds.keys() - {image_id for image_id, _ in every}):
            yield f"{len(unknown)} unknown images, in none of the dialogs: {_listing(unknown)}"
        given = {key for key in given if key[0] not in set(unknown)}
        if early := (given & every) - wanted:
            yield (
                f"{_name(min(early))} is not the dialog's last{_others(len(early), 'rounds', 'too early')}: "
                "test takes the last round only"
            )
        given -= early
    if wrong := sorted(given - wanted):
        yield f"{_name(wrong[0])} does not exist{_others(len(wrong), 'rounds', 'wrong')}"
    if missing := sorted(wanted - given):
        last = dialogs is not None and given and given == {(d.image_id, len(d.rounds)) for d in dialogs}
        hint = "; only the last rounds are here, as test wants it, but val wants all" if last else ""
        if not allow_partial:
            yield f"{_name(missing[0])} is missing{_others(len(missing), 'rounds', 'missing')}{hint}"
    elif len(wanted) != FULL.get(split) and not allow_partial:
        yield (
            f"{len(wanted):,} rounds, but the whole {split} split has {FULL.get(split, 0):,} to be ranked "
            "(--allow-partial if that is meant)"
        )


def _check_direction(keys: list[Key], ranks: np.ndarray, dialogs: Sequence[Dialog] | None) -> Iterator[str]:
    """Whether reading the ranks another way would score far better, by the best evidence there is.

    Each option gets a merit: being the human answer; where that is secret, how many rounds offer it (popular
    answers are); without dialogs its place modulo 10 (VisDial's order leaks popularity). Merit at the top is
    Σ merit / rank, with merits of mean 0 and variance 1 in each round, so that chance gives about 0.
    """
    places = np.arange(ranks.shape[1])
    turns = {(dialog.image_id, turn.round_id): turn for dialog in dialogs or () for turn in dialog.rounds}
    known = [turns[key] for key in keys if key in turns and turns[key].options is not None]
    if dialogs is None:
        merit, why = np.tile(-(places % 10.0), (len(ranks), 1)), "by the order in which VisDial lists options"
    else:
        offered = collections.Counter(option for turn in known for option in turn.options)
        secret = any(turn.gt_index is None for turn in known)
        merit = np.array(
            [[offered[o] for o in t.options] if secret else places == t.gt_index for t in known], dtype=float
        )
        ranks = ranks[[n for n, key in enumerate(keys) if key in turns and turns[key].options is not None]]
        why = "by how popular the options are" if secret else "by where the human answers land"
    if len(merit) < 10 or ranks.shape != merit.shape:
        return
    merit = (merit - merit.mean(axis=1, keepdims=True)) / (merit.std(axis=1, keepdims=True) + 1e-9)
    at_the_top = {
        name: (merit / other).sum(axis=1)
        for name, other in {
            "as given": ranks,
            "an inverse permutation (a list of options, best first, instead of each option's rank)": (
                np.argsort(ranks, axis=1) + 1
            ),
            "upside down (the best option has the highest number)": ranks.shape[1] + 1 - ranks,
        }.items()
    }
    given = at_the_top.pop("as given")
    name, best = max(at_the_top.items(), key=lambda item: item[1].mean())
    gain = best - given
    certain = gain.mean() > 6 * gain.std() / len(gain) ** 0.5
    if certain and best.mean() > 2 * given.mean():
        yield f"the ranks look like {name}: read that way they are far better, {why}"


def _malformed(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return f": expected an object with image_id, round_id and ranks, got {shown(entry)}"
    for key in ("image_id", "round_id"):
        if type(entry.get(key)) is not int:
            return f".{key}: expected a whole number, got {shown(entry.get(key))}"
    return None


def _whole(ranks: Any) -> bool:
    return isinstance(ranks, list) and set(map(type, ranks)) == {int}


def _no_ranks(ranks: Any, count: int) -> str | None:
    if not _whole(ranks):
        return f".ranks: expected a list of {count} whole numbers, got {shown(ranks)}"
    if sorted(ranks) != list(range(1, count + 1)):
        return f".ranks is not an order of 1 to {count}: every rank exactly once"
    return None


def _wanted(dialogs: Iterable[Dialog]) -> dict[Key, Round]:
    return {(dialog.image_id, t.round_id): t for dialog in dialogs for t in dialog.rounds if t.options}


def _name(key: Key) -> str:
    return f"round {key[1]} of image {key[0]}"


def _others(count: int, what: str, how: str) -> str:
    return f" ({count:,} {what} {how})" if count > 1 else ""


def _listing(ids: Iterable[Any], most: int = 8) -> str:
    ids = sorted(ids, key=str)
    return ", ".join(shown(i) for i in ids[:most]) + (
        f" and {len(ids) - most} more" if len(ids) > most else ""
    )
