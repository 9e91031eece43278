"""EvalAI's format: what is written, what is refused, and what `check_submission` recognises."""

import copy
import json

import numpy as np
import pytest
from conftest import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from visdial_lab import baselines
from visdial_lab.errors import UserError
from visdial_lab.predictions import predictions as predict
from visdial_lab.submission import FULL, check_submission, validate_predictions, write_submission
from visdial_lab.visdial import VisDial


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """12 made-up val dialogs of 3 rounds, predictions that are rather good, and 12 test dialogs with some."""
    folder = make_dataset(tmp_path_factory.mktemp("submission") / "d", dialogs=12)
    val, test = VisDial.load(folder), VisDial.load(folder, "test")
    rng = np.random.default_rng(0)
    scores = [[rng.normal(size=100) + 3 * np.eye(100)[t.gt_index] for t in d.rounds] for d in val]
    prior = baselines.answer_prior(VisDial.load(folder, "train"))
    return val, predict(val, scores), test, predict(test, prior(test))


def inverse(entries):
    return [entry | {"ranks": (np.argsort(entry["ranks"]) + 1).tolist()} for entry in entries]


def upside_down(entries):
    return [entry | {"ranks": [101 - rank for rank in entry["ranks"]]} for entry in entries]


def from_zero(key, entries):
    less = {"ranks": lambda e: [rank - 1 for rank in e["ranks"]], "round_id": lambda e: e["round_id"] - 1}
    return [entry | {key: less[key](entry)} for entry in entries]


# ---- recognising what is wrong


def test_nothing_is_wrong_with_a_good_one(made):
    val, good, test, good_test = made
    assert check_submission(good, val, allow_partial=True) == []
    assert check_submission(good[::-1], val, allow_partial=True) == []
    assert check_submission(good_test, test, allow_partial=True) == []
    (only,) = check_submission(good, val)
    assert only == "36 rounds, but val has 20,640 to rank (--allow-partial if that is meant)"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (inverse, ["ranks look like an inverse permutation"]),
        (upside_down, ["ranks look like upside down"]),
        (lambda p: from_zero("ranks", p), ["ranks are counted from 0"]),
        (lambda p: from_zero("round_id", p), ["rounds are counted from 0"]),
        (
            lambda p: from_zero("round_id", from_zero("ranks", inverse(p))),
            ["ranks are counted from 0", "rounds are counted from 0", "inverse permutation"],
        ),
        (lambda p: [*p, p[3], p[4]], ["round 1 of image 1002 is there more than once (2 such)"]),
        (lambda p: [*p, p[3] | {"image_id": 7}], ["1 unknown image, in none of the dialogs: 7"]),
        (
            lambda p: [*p, *(p[0] | {"image_id": n} for n in range(9))],
            ["9 unknown images, in none of the dialogs: 0, 1, 2, 3, 4, 5, 6, 7 and 1 more"],
        ),
        (lambda p: [*p, p[3] | {"round_id": 4}], ["round 4 of image 1002 does not exist (1 such)"]),
        (lambda p: [*p, p[3] | {"round_id": 0}], ["round 0 of image 1002 does not exist (1 such)"]),
        (lambda p: [*p[:3], {}, *p[3:]], ["predictions[3].image_id: expected a whole number, got null"]),
        (lambda p: [*p, {"image_id": 1001, "round_id": True}], ["predictions[36].round_id"]),
        (lambda p: [*p, 5], ["predictions[36]: expected an object"]),
        (lambda p: [*p, p[3] | {"ranks": [0.5] * 100}], ["predictions[36].ranks: expected a list of 100"]),
        (lambda p: [*p, p[3] | {"ranks": [1] * 100}], ["predictions[36].ranks is not an order of 1 to 100"]),
        (lambda p: [*p, p[3] | {"ranks": p[3]["ranks"][:50]}], ["predictions[36].ranks is not an order"]),
        (
            lambda p: [*p, *[{"image_id": 1001}] * 5],
            [*(f"predictions[{n}].round_id" for n in (36, 37, 38)), "5 entries are malformed"],
        ),
    ],
)
def test_recognised(made, spoil, expected):
    val, good, _, _ = made
    found = check_submission(spoil(copy.deepcopy(good)), val, allow_partial=True)
    assert len(found) == len(expected)
    for problem, words in zip(found, expected, strict=True):
        assert words in problem and "\n" not in problem and len(problem) < 300


def test_missing_and_wrong_rounds(made):
    val, good, test, good_test = made
    assert check_submission(good[:30] + good[31:], val)[0] == "round 1 of image 1011 is missing (1 such)"
    found = check_submission([entry for entry in good if entry["round_id"] == 3], val)
    assert found == [
        "round 1 of image 1001 is missing; only last rounds are here, as test wants it, but val wants all "
        "(24 such)"
    ]
    early = {"image_id": 2002, "round_id": 1, "ranks": good[0]["ranks"]}
    found = check_submission([early, *good_test], test, allow_partial=True)
    assert found == ["round 1 of image 2002 is not the last of its dialog; test takes no other (1 such)"]


@pytest.mark.parametrize("wrong", [None, {}, [], "x", 3, {"data": {}}])
def test_no_list_of_predictions(made, wrong):
    (only,) = check_submission(wrong, made[0])
    assert only.startswith("expected a list of {image_id, round_id, ranks}")


def test_without_dialogs_a_file_is_checked_against_itself(made):
    _, good, _, good_test = made
    assert "round 4 of image 1001 is missing (84 such)" in check_submission(good)  # val has ten rounds
    (only,) = check_submission(good_test)
    assert only.startswith("12 rounds, but test has 8,000")
    found = check_submission(from_zero("round_id", from_zero("ranks", [*good, good[0]])))
    assert "ranks are counted from 0" in found[0] and "rounds are counted from 0" in found[1]
    assert "round 1 of image 1001 is there more than once (1 such)" in found


@pytest.fixture(scope="module")
def real(shared_data, real_val):
    folder, val = shared_data / "visdial", real_val
    test = VisDial.load(folder / "visdial_1.0_test_first50.json")
    prior = baselines.question_prior(VisDial.load(folder / "visdial_1.0_val_text_1851.json"))
    golden = json.loads((folder / "golden_116_informed.json").read_text())
    return {
        "val": (val, golden),
        "prior": (val, predict(val, prior(val))),
        "test": (test, predict(test, prior(test))),
    }


@pytest.mark.parametrize("name", ["val", "prior", "test"])
def test_real_inverse_permutations_show_with_and_without_the_dialogs(real, name):
    dialogs, entries = real[name]
    evidence = "how often options are offered" if name == "test" else "the human answers"
    for known, by in ((dialogs, evidence), (None, "the order in which VisDial lists options")):
        assert check_submission(entries, known, True) == []
        for spoil, words in ((inverse, "an inverse permutation"), (upside_down, "upside down")):
            (only,) = check_submission(spoil(entries), known, True)
            assert f"the ranks look like {words}" in only and only.endswith(f"far better, judging by {by}")


def test_what_is_random_either_way_is_not_accused(real, shared_data):
    val, _ = real["val"]
    entries = json.loads((shared_data / "visdial" / "golden_116_random.json").read_text())
    for known in (val, None):
        for spoil in (list, inverse, upside_down):
            assert check_submission(spoil(entries), known, True) == []


ODD = st.sampled_from([None, True, -1, 0, 1, 2, 101, 1001, 10**30, 1.5, "", "x", [], {}, [[]]])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["image_id", "round_id", "ranks", 0, 9]), ODD)))
def test_fuzzed_submissions_never_crash(made, changes):
    val, good, _, _ = made
    entries = copy.deepcopy(good[:12])
    for n, key, value in changes:
        if isinstance(key, int):
            entries[n]["ranks"] = [*good[n]["ranks"][:key], value, *good[n]["ranks"][key + 1 :]]
        else:
            entries[n][key] = value
    for known in (val, None):
        for problem in check_submission(entries, known):
            assert len(problem) < 300 and "\n" not in problem


# ---- writing one


def test_written_in_order_without_what_the_server_does_not_take(made, tmp_path):
    val, good, test, good_test = made
    path = tmp_path / "out" / "val.json"
    spoken = [entry | {"answer": "yes"} for entry in good[::-1]]
    assert write_submission(path, spoken, val, "val", allow_partial=True) == 36
    assert json.loads(path.read_text()) == good
    assert write_submission(path, good[5:20], val, "val", allow_partial=True) == 15
    assert json.loads(path.read_text()) == good[5:20]
    assert write_submission(path, good_test, test, "test", allow_partial=True) == 12
    written = json.loads(path.read_text())
    assert [entry["round_id"] for entry in written] == [len(d.rounds) for d in test]


def test_refused_and_nothing_written(made, tmp_path):
    val, good, test, good_test = made
    path = tmp_path / "s.json"
    early = {"image_id": 2002, "round_id": 1, "ranks": good[0]["ranks"]}
    for entries, dialogs, split, expected in (
        (good, val, "val", "36 rounds, but val has 20,640 to rank (--allow-partial"),
        (good_test, test, "test", "12 rounds, but test has 8,000"),
        (good[1:], val, "val", "nothing for round 1 of image 1001"),
        (good, val, "test", "these are val dialogs; a test submission needs those of test"),
        (good, val, "train", "EvalAI takes submissions for val and test"),
        ([*good_test, early], test, "test", "round 1 of image 2002 has no options"),
    ):
        with pytest.raises(UserError) as caught:
            write_submission(path, entries, dialogs, split)
        assert expected in str(caught.value)
    with pytest.raises(UserError, match="no submission written: the ranks look like an inverse permutation"):
        write_submission(path, inverse(good), val, "val", allow_partial=True)
    assert not list(tmp_path.iterdir())


def test_a_whole_val_split_is_accepted(tmp_path):
    """2,064 dialogs of ten rounds, as many as there are, and not one less."""
    from visdial_lab.visdial import Dialog, Round

    options = tuple(f"answer {n}" for n in range(100))
    ranks = list(range(1, 101))
    val = [
        Dialog(i, "", tuple(Round(n, "q", options[0], options, 0, None) for n in range(1, 11)), None, "val")
        for i in range(2064)
    ]
    entries = [
        {"image_id": d.image_id, "round_id": t.round_id, "ranks": ranks} for d in val for t in d.rounds
    ]
    assert len(entries) == FULL["val"] and check_submission(entries, val) == []
    assert write_submission(tmp_path / "val.json", entries, val, "val") == 20_640
    assert validate_predictions(entries, val).shape == (20_640, 100)
    with pytest.raises(UserError, match="20,630 rounds, but val has 20,640"):
        write_submission(tmp_path / "short.json", entries[:-10], val[:-1], "val")
