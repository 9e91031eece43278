"""Whatever a file holds: it is read exactly as it stands or refused in a line or two, fast and small.

Structure-aware changes replace, delete, double or move parts of a valid tree; byte-level ones cut, flip,
insert and splice. What loads is compared, field by field, with what Python's own parser reads.
"""

import copy
import json
import math
import random
import resource
import time

import pytest
from conftest import make_dense, make_document

from visdial_lab.errors import UserError
from visdial_lab.visdial import VisDial

ODD = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    99,
    100,
    152,
    153,
    2**31,
    2**63,
    2**64,
    10**40,
    1.0,
    1.5,
    -0.0,
    1e300,
    math.nan,
]
ODD += [
    math.inf,
    "",
    "0",
    "\ud800",
    "\0",
    "x" * 9,
    "né",
    [],
    {},
    [[]],
    [0] * 100,
    [0] * 101,
    {"data": []},
    {"ranks": [1]},
]
BYTES = [
    b"",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b'"',
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"NaN",
    b"-",
    b"1e999",
    b"\\u",
    b"9" * 40,
]
BYTES += [b"\xef\xbb\xbf", b"null", b"true", b"[" * 3000, b" " * 300, b"\\ud83d\\ude00"]


def bases() -> list[tuple[dict, list]]:
    """Small valid pairs of dialogs and dense annotations, one of each kind of file."""
    val, test = make_document(dialogs=2, rounds=2), make_document("test", dialogs=3, rounds=3)
    bare = copy.deepcopy(val)
    for entry in bare["data"]["dialogs"]:
        for turn in entry["dialog"]:
            del turn["answer_options"], turn["gt_index"]
    return [(val, make_dense(val)), (test, []), (bare, []), (val, make_dense(val, "relevance"))]


def places(tree, path=()) -> list[tuple]:
    """Paths of all places in a JSON tree, of long lists only the first few."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree[:4]) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inside for place in places(value, (*path, key)))]


def change(tree, rng):
    """A copy of the tree with one place replaced, deleted, doubled or swapped with another."""
    path = rng.choice(places(tree))
    if not path:
        return rng.choice([*ODD, tree])
    tree = copy.deepcopy(tree)
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    how, key = rng.choice(["replace", "replace", "delete", "double", "rename", "graft"]), path[-1]
    if how == "replace":
        holder[key] = rng.choice(ODD)
    elif how == "delete":
        del holder[key]
    elif how == "graft":
        part = tree
        for step in rng.choice(places(tree)):
            part = part[step]
        holder[key] = copy.deepcopy(part)
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[rng.choice(["x", *holder])] = holder.pop(key)
    return tree


def damage(data: bytes, rng) -> bytes:
    """The bytes cut off, with bits flipped, with something put in or over, or with a stretch moved."""
    at, to = sorted(rng.choices(range(len(data) + 1), k=2))
    noise = rng.choice([*BYTES, rng.randbytes(rng.randrange(5))])
    how = rng.randrange(5)
    if how == 0:
        return data[:at]
    if how == 1:
        flipped = bytearray(data)
        for place in rng.choices(range(len(data)), k=rng.randint(1, 4)):
            flipped[place] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if how == 2:
        return data[:at] + noise + data[at:]
    return data[:at] + noise + (data[at + len(noise) :] if how == 3 else data[to:])


def inputs(seed: int, count: int):
    rng, pairs = random.Random(seed), bases()
    for _ in range(count):
        trees = list(copy.copy(rng.choice(pairs)))
        which = rng.randrange(2) if trees[1] else 0
        for _ in range(rng.randint(1, 2) if rng.random() < 0.6 else 0):
            trees[which] = change(trees[which], rng)
        files = [
            json.dumps(tree, ensure_ascii=rng.random() < 0.8).encode(errors="surrogatepass") for tree in trees
        ]
        if rng.random() < 0.45 and files[which]:
            files[which] = damage(files[which], rng)
        yield files


def check(folder, files) -> bool:
    """Load the pair; True if it was read (and then exactly), False if it was refused (and then cleanly)."""
    (folder / "dialogs.json").write_bytes(files[0])
    (folder / "dense.json").write_bytes(files[1])
    try:
        dialogs = VisDial.load(folder / "dialogs.json", dense=folder / "dense.json")
    except UserError as error:
        _check_message(error, folder)
        salvage(folder, files[0])
        return False
    data = json.loads(files[0].decode("utf-8-sig", errors="replace"))["data"]  # skipped texts may be bad
    dense = json.loads(files[1].decode("utf-8-sig"))
    relevance = {(a["image_id"], a["round_id"]): a.get("relevance") or a["gt_relevance"] for a in dense}
    assert len(dialogs) == len(data["dialogs"])
    for dialog, entry in zip(dialogs, data["dialogs"], strict=True):
        assert (dialog.image_id, dialog.caption) == (entry["image_id"], entry["caption"])
        for turn, given in zip(dialog.rounds, entry["dialog"], strict=True):
            options = given.get("answer_options")
            assert turn.question == data["questions"][given["question"]]
            assert turn.answer == (data["answers"][given["answer"]] if "answer" in given else None)
            assert turn.options == (tuple(data["answers"][i] for i in options) if options else None)
            assert turn.gt_index == given.get("gt_index")
            assert turn.gt_index is None or turn.options[turn.gt_index] == turn.answer
            expected = relevance.pop((dialog.image_id, turn.round_id), None)
            assert turn.relevance == (tuple(expected) if expected else None)
            assert turn.relevance is None or all(0 <= value <= 1 for value in turn.relevance)
    assert not relevance and dialogs[:1]._repr_html_()
    return True


def _check_message(error, folder="") -> None:
    text = str(error)
    assert len(text.splitlines()) <= 2 and len(text) < 700 and str(folder) in text and text.isprintable()
    text.encode()


def salvage(folder, data: bytes) -> None:
    """Load without the dialogs at fault: what is left is what a file of the others alone gives."""
    bad = {}
    try:
        dialogs = VisDial.load(folder / "dialogs.json", on_bad=bad.__setitem__)
    except UserError as error:
        _check_message(error, folder)
        return
    for n, reason in bad.items():
        assert f"data.dialogs[{n}]" in reason
        _check_message(reason)
    document = json.loads(data.decode("utf-8-sig", errors="replace"))  # texts that nobody reads may be bad
    entries = document["data"]["dialogs"]
    assert len(dialogs) + len(bad) == len(entries) and len(dialogs)
    document["data"]["dialogs"] = [one for n, one in enumerate(entries) if n not in bad]
    (folder / "good.json").write_text(json.dumps(document))
    assert list(dialogs) == list(VisDial.load(folder / "good.json"))


def run(folder, seed: int, count: int) -> tuple[int, float]:
    """(how many were read, slowest in seconds of this process: other programs don't count)."""
    read, slowest = 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for files in inputs(seed, count):
        began = time.process_time()
        read += check(folder, files)
        slowest = max(slowest, time.process_time() - began)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 64 * 1024 and slowest < 5
    return read, slowest


@pytest.mark.slow
def test_some_thousand_mutated_files(tmp_path):
    read, _ = run(tmp_path, seed=1, count=2500)
    assert 100 < read < 2000  # both ways out are taken


@pytest.mark.slow
def test_many_thousand_mutated_files(tmp_path):
    read, slowest = run(tmp_path, seed=2, count=12_000)
    print(f"12,000 mutated pairs: {read} read exactly, {12_000 - read} refused, slowest {slowest:.3f} s")
