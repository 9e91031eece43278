"""EvalAI's format: checking predictions against dialogs, writing submissions, diagnosing those of others."""

import collections
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visdial_lab.errors import UserError, counted, listed, shown
from visdial_lab.files import write_json
from visdial_lab.visdial import Dialog, Round

Key = tuple[int, int]  # (image_id, round_id)
FULL = {"val": 20_640, "test": 8_000}  # entries that the server expects: all rounds, the last of each dialog
_FORM = "{image_id, round_id, ranks}"


def matched(predictions: Any, dialogs: Sequence[Dialog]) -> Iterator[tuple[str, dict, Round]]:
    """Every entry with its place in the list, for messages, and the round it is about.

    Raises UserError for what is no such list, an unknown image or round, a round given twice.
    """
    if isinstance(predictions, dict) and "data" in predictions:
        raise UserError("this holds dialogs, not predictions; were two files swapped?")
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
            rest = {other["image_id"] for other in predictions[n:] if not _malformed(other)} - images
            all_such = f" ({len(rest)} such: {listed(map(shown, rest), 8)})" if len(rest) > 1 else ""
            raise UserError(f"{place}.image_id {shown(image_id)} is in none of the dialogs{all_such}")
        if key not in rounds:
            lacks = f"image {image_id} has no round {shown(round_id)}; the first is 1"
            raise UserError(f"{place}.round_id: {lacks}")
        if (first := first_use.setdefault(key, n)) != n:
            raise UserError(
                f"{place}: round {round_id} of image {image_id} again, after predictions[{first}]"
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
    dialogs = list(dialogs)  # a VisDial builds a dialog whenever it is asked: ask once
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
    write_json(path, entries, indent=None)
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
    dialogs = None if dialogs is None else list(dialogs)
    problems, good, bad = [], [], []
    lists = [entry["ranks"] for entry in entries if isinstance(entry, dict) and _whole(entry.get("ranks"))]
    shift = 1 if lists and all(sorted(row) == list(range(len(row))) for row in lists) else 0
    if shift:
        problems.append("ranks are counted from 0; the best option has rank 1: add 1 to each")
    usual = max(map(len, lists), default=100)
    for n, entry in enumerate(entries):
        if wrong := _malformed(entry) or _no_ranks(entry.get("ranks"), usual, shift):
            bad.append(f"predictions[{n}]{wrong}")
        else:
            good.append((entry["image_id"], entry["round_id"], [rank + shift for rank in entry["ranks"]]))
    problems += bad[:3] + [f"{len(bad):,} entries are malformed"] * (len(bad) > 3)
    if not good:
        return problems
    keys = [(image_id, round_id) for image_id, round_id, _ in good]
    later = [(image_id, round_id + 1) for image_id, round_id in keys]
    real = {(i, n) for i, _ in keys for n in range(1, 11)} if dialogs is None else set(_wanted(dialogs))
    if sum(key in real for key in later) > sum(key in real for key in keys):
        problems.append("rounds are counted from 0; a dialog's first round has round_id 1: add 1 to each")
        keys = later
    problems += _check_keys(keys, dialogs, allow_partial)
    return [*problems, *_check_direction(keys, np.array([ranks for _, _, ranks in good]), dialogs)]


def _check_keys(keys: list[Key], dialogs: Sequence[Dialog] | None, allow_partial: bool) -> Iterator[str]:
    """Duplicate, unknown, missing entries and wrong rounds."""
    given, images, unknown, early, hint = set(keys), {image_id for image_id, _ in keys}, set(), set(), ""
    if dialogs is None:  # an image has ten rounds in val and one entry in test
        split = "val" if len(given) > len(images) else "test"
        wanted = {(image_id, n) for image_id in images for n in range(1, 11)} if split == "val" else given
    else:
        wanted, split = set(_wanted(dialogs)), dialogs[0].split
        every = {(dialog.image_id, turn.round_id) for dialog in dialogs for turn in dialog.rounds}
        unknown = images - {image_id for image_id, _ in every}
        early = (given & every) - wanted
        if split != "test" and given == {(dialog.image_id, len(dialog.rounds)) for dialog in dialogs}:
            hint = "; only last rounds are here, as test wants it, but val wants all"
    missing = set() if allow_partial else wanted - given
    if unknown:
        yield f"{counted(len(unknown), 'unknown image')}, in none of the dialogs: {listed(unknown, 8)}"
    for says, which in (
        ("is there more than once", {key for key, times in collections.Counter(keys).items() if times > 1}),
        ("is not the last of its dialog; test takes no other", early),
        ("does not exist", {key for key in given - wanted - early if key[0] not in unknown}),
        (f"is missing{hint}", missing),
    ):
        if which:
            image_id, round_id = min(which)
            yield f"round {round_id} of image {image_id} {says} ({len(which):,} such)"
    if not missing and not allow_partial and len(wanted) != FULL.get(split):
        count, whole = counted(len(wanted), "round"), FULL.get(split, 0)
        yield f"{count}, but {split} has {whole:,} to rank (--allow-partial if that is meant)"


def _check_direction(keys: list[Key], ranks: np.ndarray, dialogs: Sequence[Dialog] | None) -> Iterator[str]:
    """Whether reading the ranks another way would score far better, by the best evidence there is.

    Each option gets a merit: being the human answer; where that is secret, how many rounds offer it (popular
    answers are); without dialogs its place modulo 10 (VisDial's order leaks popularity). Merit at the top is
    Σ merit / rank, with merits of mean 0 and variance 1 in each round, so that chance gives about 0.
    """
    places = np.arange(ranks.shape[1])
    merit, why = np.tile(-(places % 10.0), (len(ranks), 1)), "the order in which VisDial lists options"
    if dialogs is not None:
        wanted = _wanted(dialogs)
        known = [wanted[key] for key in keys if key in wanted and len(wanted[key].options) == len(places)]
        if not known:
            return
        ranks = ranks[[key in wanted for key in keys]]
        merit, why = np.array([places == t.gt_index for t in known], float), "the human answers"
        if any(turn.gt_index is None for turn in known):
            offered = collections.Counter(option for turn in known for option in turn.options)
            merit = np.array([[offered[option] for option in turn.options] for turn in known], float)
            why = "how often options are offered"
    merit = (merit - merit.mean(axis=1, keepdims=True)) / (merit.std(axis=1, keepdims=True) + 1e-9)
    readings = {
        "an inverse permutation (options from best to worst, not the rank of each option)": (
            np.argsort(ranks, axis=1) + 1
        ),
        "upside down (the best option has the highest number)": len(places) + 1 - ranks,
    }
    given = (merit / ranks).sum(axis=1)
    gains = {name: (merit / other).sum(axis=1) - given for name, other in readings.items()}
    name, gain = max(gains.items(), key=lambda item: item[1].mean())
    if len(gain) >= 10 and gain.mean() > max(given.mean(), 6 * gain.std() / len(gain) ** 0.5):
        yield f"the ranks look like {name}: read that way they are far better, judging by {why}"


def _malformed(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return f": expected an object with image_id, round_id and ranks, got {shown(entry)}"
    for key in ("image_id", "round_id"):
        if type(entry.get(key)) is not int:
            return f".{key}: expected a whole number, got {shown(entry.get(key))}"
    return None


def _whole(ranks: Any) -> bool:
    return isinstance(ranks, list) and set(map(type, ranks)) == {int}


def _no_ranks(ranks: Any, count: int, shift: int = 0) -> str | None:
    if not _whole(ranks):
        return f".ranks: expected a list of {count} whole numbers, got {shown(ranks)}"
    if sorted(ranks) != list(range(1 - shift, count + 1 - shift)):
        return f".ranks is not an order of 1 to {count}: every rank exactly once"
    return None


def _wanted(dialogs: Iterable[Dialog]) -> dict[Key, Round]:
    return {(dialog.image_id, t.round_id): t for dialog in dialogs for t in dialog.rounds if t.options}
