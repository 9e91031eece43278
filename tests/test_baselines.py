"""The baselines on real dialogs against published numbers, and what each may look at."""

import itertools

import numpy as np
import pytest

from visdial_lab import baselines, metrics
from visdial_lab.visdial import Dialog, Round, VisDial

# shared/data/README.md: 213 real val dialogs, the official code, per cent and ranks
PUBLISHED = {
    "position": (13.0, 3.2, 19.3, 39.2, 23.5, 20.3),
    "answer": (28.8, 17.8, 38.2, 40.2, 39.0, 25.9),
    "question": (34.0, 24.8, 41.8, 44.9, 37.0, 38.1),
}
KEYS = ("mrr", "r@1", "r@5", "r@10", "mean", "ndcg")


@pytest.fixture(scope="module")
def real(shared_data, real_val):
    train = VisDial.load(shared_data / "visdial" / "visdial_1.0_val_text_1851.json")
    return real_val, {
        "random": baselines.constant_scores(real_val),
        "position": baselines.position_scores(real_val),
        "answer": baselines.answer_prior(train)(real_val),
        "question": baselines.question_prior(train)(real_val),
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_lie_in_our_intervals(real, name):
    """99 %, because both sides are samples: 116 dialogs here, 213 there."""
    val, scores = real
    found = metrics.evaluate(val, scores[name], confidence=0.99, ties="official")
    for key, published in zip(KEYS, PUBLISHED[name], strict=True):
        low, high = found["intervals"][key]
        assert low <= published / (1 if key == "mean" else 100) <= high, key


def test_random_has_a_closed_form(real):
    val, scores = real
    found = metrics.evaluate(val, scores["random"])
    harmonic = sum(1 / rank for rank in range(1, 101)) / 100
    exact = {"mrr": harmonic, "r@1": 0.01, "r@5": 0.05, "r@10": 0.1, "mean": 50.5}
    assert {key: found["metrics"][key] for key in exact} == pytest.approx(exact)
    low, high = found["intervals"]["ndcg"]
    assert low <= 0.104 <= high
    rng = np.random.default_rng(0)
    shuffled = [
        metrics.evaluate(val, [[rng.random(100) for _ in d.rounds] for d in val], 1)["metrics"]["ndcg"]
        for _ in range(40)
    ]
    assert found["metrics"]["ndcg"] == pytest.approx(np.mean(shuffled), abs=0.006)


def test_each_knows_more_than_the_one_before(real):
    val, scores = real
    values = [metrics.round_values(val, own) for own in scores.values()]
    for less, more in itertools.pairwise(values):
        found = metrics.compare(more, less)
        assert found["mrr"]["improved"] == 1 and found["mrr"]["interval"][0] > 0


def test_position_is_worth_nothing_where_options_are_shuffled(scenes):
    val = VisDial.load(scenes)
    low, high = metrics.evaluate(val, baselines.position_scores(val))["intervals"]["mrr"]
    assert low <= 0.0519 <= high


def test_first_words_of_any_number():
    said = [("is it red", "yes"), ("is it a dog", "no"), ("is it a dog", "no"), ("is it red", "maybe")]
    rounds = [Round(i, q, a, None, None, None) for i, (q, a) in enumerate(said, 1)]
    train = [Dialog(1, "", tuple(rounds), None, "train")]
    asked = Round(1, "is it red", None, ("no", "yes", "maybe", "blue"), None, None)
    val = [Dialog(2, "", (asked,), None, "val")]
    for words, best in ((0, 2), (2, 2), (3, 1)):
        row = baselines.question_prior(train, words)(val)[0][0]
        assert int(row.max()) == best
    assert np.argsort(-row, kind="stable").tolist() == [1, 2, 0, 3]
    assert 0 < row[0] < 1 and row[3] == 0
