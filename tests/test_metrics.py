"""Metrics against the official numbers, against slow definitions, and against what must always hold."""

import copy
import dataclasses
import itertools
import json
import math
import statistics

import numpy as np
import pytest
from conftest import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from visdial_lab import metrics
from visdial_lab.errors import UserError
from visdial_lab.predictions import predictions
from visdial_lab.visdial import Dialog, Round, VisDial

# ---- slow definitions, written from the words of the challenge, not from our code


def slow_sparse(scores, gt) -> dict[str, float]:
    """Average over every order of tied options of the metrics of one round (few options only)."""
    found = {"mrr": [], "r@1": [], "r@5": [], "r@10": [], "mean": []}
    for order in tied_orders(scores):
        rank = order.index(gt) + 1
        found["mrr"].append(1 / rank)
        for k in (1, 5, 10):
            found[f"r@{k}"].append(float(rank <= k))
        found["mean"].append(rank)
    return {name: statistics.fmean(values) for name, values in found.items()}


def slow_ndcg(scores, relevance) -> float:
    """Average over every order of tied options of the official NDCG of one round."""
    k = sum(1 for r in relevance if r != 0)

    def dcg(order):
        return sum(relevance[option] / math.log2(place + 2) for place, option in enumerate(order[:k]))

    best = dcg(sorted(range(len(relevance)), key=lambda option: -relevance[option]))
    return statistics.fmean(dcg(order) for order in tied_orders(scores)) / best


def tied_orders(scores) -> list[list[int]]:
    """All ways to sort options by falling score."""
    groups = {}
    for option, score in enumerate(scores):
        groups.setdefault(-score, []).append(option)
    choices = [list(itertools.permutations(groups[key])) for key in sorted(groups)]
    return [[option for part in parts for option in part] for parts in itertools.product(*choices)]


FEW = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([-1e300, -1.0, 0.0, 0.5, 2.0]), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.0, 0.2, 0.4, 1.0]), min_size=n, max_size=n).filter(any),
        st.integers(0, n - 1),
    )
)


@settings(max_examples=200, deadline=None)
@given(FEW)
def test_expected_over_ties_is_the_average_over_all_orders(case):
    scores, relevance, gt = case
    assert metrics.sparse_metrics([scores], [gt]) == pytest.approx(slow_sparse(scores, gt), abs=1e-12)
    assert metrics.ndcg([scores], [relevance]) == pytest.approx(slow_ndcg(scores, relevance), abs=1e-12)


def random_case(rng):
    """One round: 1 to 100 options, many ties or none, relevance that may be all zero."""
    count = int(rng.integers(1, 101))
    levels = rng.choice([1, 2, 5, count, 10**9])
    scores = rng.integers(0, levels, count).astype(float)
    relevance = rng.choice([0.0, 0.2, 0.5, 1.0], count, p=[0.7, 0.1, 0.1, 0.1])
    relevance *= rng.random() > 0.1
    return scores, relevance, int(rng.integers(count))


def one_order(scores, first=None):
    """Options by falling score, tied ones by `first` (small comes first), else by place: plain Python."""
    return sorted(range(len(scores)), key=lambda o: (-scores[o], first[o] if first is not None else 0, o))


def slow_round(order, relevance, gt):
    """The challenge's metrics of one round and one order of its options, in the words of its rules."""
    rank = order.index(gt) + 1
    found = {"mrr": 1 / rank, "mean": rank} | {f"r@{k}": float(rank <= k) for k in (1, 5, 10)}
    k = len([r for r in relevance if r != 0])
    best = sum(r / math.log2(i + 2) for i, r in enumerate(sorted(relevance, reverse=True)[:k]))
    found["ndcg"] = (
        sum(relevance[o] / math.log2(i + 2) for i, o in enumerate(order[:k])) / best if k else None
    )
    return found


def fast_round(scores, relevance, gt, ties):
    found = {name: column[0] for name, column in metrics.sparse_values([scores], [gt], ties).items()}
    gain = metrics.ndcg_values([scores], [relevance], ties)[0]
    return found | {"ndcg": None if math.isnan(gain) else gain}


def test_1200_random_cases_against_the_slow_definition():
    rng = np.random.default_rng(7)
    seen = set()
    for _ in range(1200):
        scores, relevance, gt = random_case(rng)
        slow = slow_round(one_order(scores), relevance, gt)
        assert fast_round(scores, relevance, gt, "official") == pytest.approx(slow, abs=1e-9)
        worst = slow_round(one_order(scores, np.arange(len(scores)) == gt), relevance, gt)
        worst["ndcg"] = slow_round(one_order(scores, relevance), relevance, gt)["ndcg"]
        assert fast_round(scores, relevance, gt, "worst") == pytest.approx(worst, abs=1e-9)
        ranks = metrics.ranks_from_scores(scores, seed=len(scores))  # one more way to break the ties
        by_rank = slow_round(one_order(-ranks), relevance, gt)
        assert fast_round(-ranks, relevance, gt, "expected") == pytest.approx(by_rank, abs=1e-9)
        seen |= {("options", len(scores)), ("relevant", int((relevance != 0).sum()))}
    assert {("options", 1), ("options", 100), ("relevant", 0), ("relevant", 1)} <= seen


def test_expected_is_what_shuffling_gives_in_the_long_run():
    rng = np.random.default_rng(3)
    for _ in range(20):
        scores, relevance, gt = random_case(rng)
        scores = np.round(scores) % 4
        shuffled = [
            slow_round(one_order(scores, rng.random(len(scores))), relevance, gt) for _ in range(1500)
        ]
        for name, value in fast_round(scores, relevance, gt, "expected").items():
            if value is not None:
                draws = [one[name] for one in shuffled]
                error = np.std(draws) / len(draws) ** 0.5
                assert abs(value - np.mean(draws)) <= 5 * error + 1e-9, name


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_between_the_worst_and_the_best_and_monotone(seed):
    rng = np.random.default_rng(seed)
    scores, relevance, gt = random_case(rng)
    worst, expected = (fast_round(scores, relevance, gt, ties) for ties in ("worst", "expected"))
    for name in ("mrr", "r@1", "r@5", "r@10", "ndcg"):
        if expected[name] is not None:
            assert 0 <= worst[name] <= expected[name] + 1e-12 <= 1 + 2e-12
    assert 1 <= expected["mean"] <= worst["mean"] <= len(scores)
    better = scores.copy()  # a higher score for the human answer never hurts
    better[gt] += rng.choice([0.5, 1.0, 3.0, 1e9])
    after = fast_round(better, relevance, gt, "expected")
    assert after["mean"] <= expected["mean"] and after["mrr"] >= expected["mrr"] - 1e-12
    if expected["ndcg"] is not None and relevance[gt] == relevance.max():  # nor for the most relevant
        assert fast_round(better, relevance, gt, "expected")["ndcg"] >= expected["ndcg"] - 1e-12


def test_rounds_do_not_mix():
    rng = np.random.default_rng(0)
    scores, gt = rng.integers(0, 4, (50, 7)).astype(float), rng.integers(0, 7, 50)
    relevance = rng.choice([0, 0.5, 1], (50, 7)) + np.eye(7)[gt]
    values = metrics.sparse_values(scores, gt)
    gains = metrics.ndcg_values(scores, relevance)
    for n in range(50):
        slow = slow_sparse(scores[n].tolist(), gt[n])
        assert {name: column[n] for name, column in values.items()} == pytest.approx(slow)
        assert gains[n] == pytest.approx(slow_ndcg(scores[n].tolist(), relevance[n].tolist()))


def test_official_ties_follow_the_option_order():
    scores, relevance = [[1.0, 1.0, 3.0, 1.0]], [[0.0, 0.0, 0.0, 1.0]]
    assert metrics.sparse_values(scores, [1], ties="official")["mean"] == [3]
    assert metrics.sparse_values(scores, [0], ties="official")["mean"] == [2]
    assert metrics.sparse_values(scores, [1])["mean"] == [3] and metrics.sparse_values(scores, [0])[
        "mean"
    ] == [3]
    relevance = [[0.0, 1.0, 0.5, 0.0]]
    no_ties = [[3.0, 2.0, 4.0, 1.0]]
    official = metrics.ndcg(scores, relevance, ties="official")
    assert official == metrics.ndcg(no_ties, relevance) != metrics.ndcg(scores, relevance)
    with pytest.raises(UserError, match="ties is 'index'"):
        metrics.sparse_values(scores, [0], ties="index")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 100))
def test_what_must_always_hold(seed, levels):
    rng = np.random.default_rng(seed)
    scores, gt = rng.integers(0, levels, (3, 100)) * 0.5, rng.integers(0, 100, 3)
    relevance = rng.choice([0, 0.2, 1], (3, 100), p=[0.9, 0.05, 0.05]) + np.eye(100)[gt]
    found = metrics.sparse_metrics(scores, gt) | {"ndcg": metrics.ndcg(scores, relevance)}
    assert 0 <= found["r@1"] <= found["r@5"] <= found["r@10"] <= 1 and 1 <= found["mean"] <= 100
    assert 1 / found["mean"] <= found["mrr"] + 1e-12 and found["r@1"] <= found["mrr"] <= 1  # Jensen
    assert 0 <= found["ndcg"] <= 1 + 1e-12
    shuffle = rng.permutation(100)  # the order in which options are listed must not matter
    place = np.argsort(shuffle)
    again = metrics.sparse_metrics(scores[:, shuffle], place[gt])
    again["ndcg"] = metrics.ndcg(scores[:, shuffle], relevance[:, shuffle])
    assert again == pytest.approx(found)
    assert metrics.sparse_metrics(np.exp(scores / 50), gt) == pytest.approx(
        metrics.sparse_metrics(scores, gt)
    )
    best = metrics.sparse_metrics(np.eye(100)[gt], gt) | {"ndcg": metrics.ndcg(relevance, relevance)}
    assert best == pytest.approx({"mrr": 1, "r@1": 1, "r@5": 1, "r@10": 1, "mean": 1, "ndcg": 1})


def test_random_baseline_in_closed_form():
    constant = np.zeros((1, 100))
    found = metrics.sparse_metrics(constant, [17])
    harmonic = sum(1 / r for r in range(1, 101)) / 100
    assert found == pytest.approx({"mrr": harmonic, "r@1": 0.01, "r@5": 0.05, "r@10": 0.1, "mean": 50.5})


def test_nothing_relevant_has_no_ndcg():
    values = metrics.ndcg_values(np.eye(2, 5), [[0.0] * 5, [0, 1.0, 0, 0, 0]])
    assert (
        np.isnan(values[0])
        and values[1] == 1
        and metrics.ndcg(np.eye(2, 5), [[0.0] * 5, [0, 1, 0, 0, 0]]) == 1
    )
    assert math.isnan(metrics.ndcg([[1, 2]], [[0, 0]]))


# ---- ranks


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_ranks_are_a_permutation_that_follows_the_scores(seed, levels):
    scores = np.random.default_rng(seed).integers(0, levels, (2, 3, 100)).astype(float)
    ranks = metrics.ranks_from_scores(scores, seed)
    assert ranks.shape == scores.shape and (np.sort(ranks) == np.arange(1, 101)).all()
    by_rank = np.take_along_axis(scores, np.argsort(ranks, axis=-1), axis=-1)
    assert (np.diff(by_rank) <= 0).all()
    assert (ranks == metrics.ranks_from_scores(scores, seed)).all()


def test_ranks_are_ranks_and_not_the_inverse_permutation():
    assert metrics.ranks_from_scores([10.0, 40.0, 30.0, 20.0]).tolist() == [4, 1, 2, 3]


def test_ties_do_not_follow_the_index():
    ranks = np.stack([metrics.ranks_from_scores(np.zeros(100), seed=(5, n)) for n in range(400)])
    assert abs(ranks[:, 0].mean() - 50.5) < 6 and abs(ranks[:, 99].mean() - 50.5) < 6  # 4 standard errors
    assert len({tuple(row) for row in ranks}) == 400


def test_nan_is_an_error_with_its_place():
    scores = np.zeros((2, 5))
    scores[1, 3] = np.nan
    with pytest.raises(UserError, match=r"scores\[1, 3\] is NaN"):
        metrics.sparse_metrics(scores, [0, 0])
    with pytest.raises(UserError, match=r"scores\[1, 3\] is NaN"):
        metrics.ndcg(scores, np.ones((2, 5)))
    scores[1, 3], scores[0, 2] = 0, -np.inf
    for use in (lambda s: metrics.sparse_metrics(s, [0, 0]), metrics.ranks_from_scores):
        with pytest.raises(UserError, match=r"scores\[0, 2\] is -inf"):
            use(scores)
    scores[0, 2], scores[1, 3] = 0, np.nan
    with pytest.raises(UserError, match="NaN"):
        metrics.ranks_from_scores(scores)


# ---- the official numbers


@pytest.mark.parametrize("name", ["random", "informed"])
def test_same_as_the_official_code(shared_data, real_val, name):
    folder, val = shared_data / "visdial", real_val
    official = json.loads((folder / "golden_116_official_metrics.json").read_text())[name]
    predictions = json.loads((folder / f"golden_116_{name}.json").read_text())
    result = metrics.evaluate(val, predictions, bootstrap_samples=50)
    # the official code computes in float32: relative for the mean rank, absolute for the fractions
    assert result["metrics"] == pytest.approx(official, rel=1e-6, abs=1e-6)
    assert (result["n_rounds"], result["n_dense"]) == (1160, 116)
    assert metrics.evaluate(val, predictions[::-1], 50) == result  # order of entries is free
    by_official_ties = metrics.evaluate(val, predictions, 50, ties="official")
    assert by_official_ties["metrics"] == pytest.approx(result["metrics"])


def test_same_as_the_official_algorithm_and_far_faster():
    """A tenth of the val split; tests/benchmarks/metrics.py measures all of it."""
    from benchmarks import metrics as benchmark

    data = benchmark.make_data(dialogs=200)
    slow, wanted = benchmark.best_of(lambda: benchmark.official(*data), 1)
    fast, (ranks, found) = benchmark.best_of(lambda: benchmark.ours(*data), 5)
    assert found == pytest.approx(wanted, rel=1e-5)
    assert (ranks.reshape(-1, 100)[np.arange(2000), data[1].ravel()] <= 10).mean() == found["r@10"]
    assert slow > 20 * fast


# ---- evaluate on the tiny dataset


def predict(dialogs, scores=None) -> list[dict]:
    return predictions(dialogs, scores or metrics.constant_scores(dialogs))


def noisy_scores(dialogs, seed=0) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=100) + 2 * np.eye(100)[t.gt_index] for t in d.rounds] for d in dialogs]


def test_scores_and_their_ranks_evaluate_alike(tiny):
    val = VisDial.load(tiny)
    scores = noisy_scores(val)
    one, two = metrics.evaluate(val, scores), metrics.evaluate(val, predict(val, scores))
    assert one == two and list(one["metrics"]) == ["mrr", "r@1", "r@5", "r@10", "mean", "ndcg"]
    assert one["n_rounds"] == 12 and one["n_dense"] == 4
    gt = [turn.gt_index for dialog in val for turn in dialog.rounds]
    assert one["metrics"]["mrr"] == pytest.approx(metrics.sparse_metrics(np.concatenate(scores), gt)["mrr"])
    json.dumps(one, allow_nan=False)


def test_without_dense_annotations_there_is_no_ndcg(tiny):
    val = VisDial.load(tiny / "visdial_1.0_val.json")
    result = metrics.evaluate(val, predict(val))
    assert "ndcg" not in result["metrics"] and "ndcg" not in result["intervals"] and result["n_dense"] == 0


def test_intervals_are_a_bootstrap_over_dialogs(tiny):
    val = VisDial.load(tiny)
    scores = noisy_scores(val)
    result = metrics.evaluate(val, scores, bootstrap_samples=4000, confidence=0.9, seed=1)
    assert result == metrics.evaluate(val, scores, bootstrap_samples=4000, confidence=0.9, seed=1)
    assert result != metrics.evaluate(val, scores, bootstrap_samples=4000, confidence=0.9, seed=2)
    for name, (low, high) in result["intervals"].items():
        assert low <= result["metrics"][name] <= high
    # every way to draw 4 dialogs from 4, exactly
    per_dialog = [
        metrics.sparse_values(own, [t.gt_index for t in d.rounds])["mrr"]
        for own, d in zip(scores, val, strict=True)
    ]
    means = [np.mean([per_dialog[i].mean() for i in draw]) for draw in itertools.product(range(4), repeat=4)]
    assert result["intervals"]["mrr"] == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=0.03)
    wide = metrics.evaluate(val, scores, confidence=0.99)["intervals"]["mrr"]
    narrow = metrics.evaluate(val, scores, confidence=0.5)["intervals"]["mrr"]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_dialogs_of_different_length_weigh_by_rounds():
    values = {"dialog": np.array([0, 0, 0, 1]), "x": np.array([1.0, 1.0, 1.0, 0.0])}
    assert metrics.summarise(values, 4000, 0.98)["intervals"]["x"] == [0, 1]
    # the mixed draw: three rounds of one dialog, one of the other
    assert metrics.summarise(values, 4000, 0.4)["intervals"]["x"] == [0.75, 0.75]
    values["y"] = np.array([np.nan, 1.0, 1.0, 0.0])  # rounds without a value do not count
    assert metrics.summarise(values, 4000, 0.4)["intervals"]["y"] == pytest.approx([2 / 3, 2 / 3])


def test_priors(tiny):
    train, val = VisDial.load(tiny, "train"), VisDial.load(tiny)
    frequency = [t.answer for d in train for t in d.rounds]
    scores = metrics.answer_prior(train)(val)
    for dialog, own in zip(val, scores, strict=True):
        for turn, row in zip(dialog.rounds, own, strict=True):
            assert [int(score) for score in row] == [frequency.count(option) for option in turn.options]
    turn = train[0].rounds[0]
    seen = metrics.question_prior(train)(train)[0][0]
    pairs = [(t.question.split()[:2], t.answer) for d in train for t in d.rounds]
    for option, score in zip(turn.options, seen, strict=True):
        assert int(score) == pairs.count((turn.question.split()[:2], option))
    assert metrics.answer_prior(train)(VisDial.load(tiny, "test"))[1][0] is None


def test_question_prior_looks_at_two_words_then_at_frequency():
    said = [("is it red", "yes"), ("is there a dog", "no"), ("is there a cat", "no"), ("how many", "2")]
    train = [
        Dialog(
            1, "", tuple(Round(i, q, a, None, None, None) for i, (q, a) in enumerate(said, 1)), None, "train"
        )
    ]
    asked = Round(1, "is it wet", None, ("2", "no", "yes", "maybe"), None, None)
    row = metrics.question_prior(train)([Dialog(2, "", (asked,), None, "val")])[0][0]
    assert np.argsort(-row).tolist() == [2, 1, 0, 3] and row[2] > 1 > row[1] > row[0] > row[3] == 0


def test_the_test_split_cannot_be_evaluated_but_its_predictions_be_checked(tiny):
    test = VisDial.load(tiny, "test")
    predictions = predict(test)
    assert metrics.validate_predictions(predictions, test).shape == (4, 100)
    with pytest.raises(UserError, match="no human answers"):
        metrics.evaluate(test, predictions)
    predictions.append(predictions[1] | {"round_id": 1})
    with pytest.raises(UserError, match=r"predictions\[4\]: round 1 of image 2002 has no options"):
        metrics.validate_predictions(predictions, test)


# ---- two runs, and parts of one


def test_runs_over_different_rounds_are_compared_on_those_that_both_have(tiny):
    dialogs = list(VisDial.load(tiny, "val"))
    rng = np.random.default_rng(0)
    scores = [[rng.normal(size=100) for _ in dialog.rounds] for dialog in dialogs]
    whole, part = metrics.round_values(dialogs, scores), metrics.round_values(dialogs[:2], scores[:2])
    follow_ups = {name: column[whole["round_id"] > 1] for name, column in whole.items()}
    ours, theirs = metrics.shared(follow_ups, part)
    assert ours["dialog"].tolist() == theirs["dialog"].tolist() == [0, 0, 1, 1]
    assert ours["round_id"].tolist() == [2, 3, 2, 3]
    assert metrics.compare(ours, theirs)["mrr"]["difference"] == 0
    assert [len(column) for column in metrics.shared(whole, whole)[1].values()] == [12] * len(whole)


def test_a_paired_comparison_is_sharper_than_two_intervals(tiny):
    val = VisDial.load(make_dataset(tiny.parent / "more", dialogs=40))
    scores = noisy_scores(val)
    better = [[row + 0.3 * np.eye(100)[t.gt_index] for row, t in zip(own, d.rounds, strict=True)]
              for own, d in zip(scores, val, strict=True)]  # fmt: skip
    one, two = metrics.round_values(val, better), metrics.round_values(val, scores)
    found = metrics.compare(one, two)
    results = metrics.summarise(one), metrics.summarise(two)
    for name, entry in found.items():
        gain = results[0]["metrics"][name] - results[1]["metrics"][name]
        assert entry["difference"] == pytest.approx(gain)
        assert entry["interval"][0] <= entry["difference"] <= entry["interval"][1]
    assert set(found) == set(results[0]["metrics"])
    low, high = found["mrr"]["interval"]
    assert low > 0 and found["mrr"]["improved"] == 1  # and yet the two intervals overlap:
    assert results[0]["intervals"]["mrr"][0] < results[1]["intervals"]["mrr"][1]
    assert found["mean"]["difference"] < 0 and found["mean"]["improved"] > 0.95  # lower is better
    back = metrics.compare(two, one)["mrr"]
    assert back["interval"] == pytest.approx([-high, -low]) and back["improved"] == 0
    same = metrics.compare(one, one)["mrr"]
    assert same == {"difference": 0, "interval": [0, 0], "improved": 0.5}
    part = {name: column[3:] for name, column in two.items()}
    with pytest.raises(UserError, match="do not cover the same rounds"):
        metrics.compare(one, part)


def test_breakdowns_add_up(tiny):
    val = VisDial.load(tiny)
    values = metrics.round_values(val, noisy_scores(val))
    whole = metrics.summarise(values)
    truth = {
        (d.image_id, t.round_id): {
            "kind": "odd" if t.round_id % 2 else "even",
            "needs_history": t.round_id > 1,
        }
        for d in val
        for t in d.rounds
    }
    for known in (None, truth):
        parts = metrics.breakdowns(values, val, known, bootstrap_samples=50)
        assert list(parts) == ["round", "question", "answer"] + ["history"] * bool(known)
        for groups in parts.values():
            assert sum(group["n_rounds"] for group in groups.values()) == whole["n_rounds"]
            for name in ("mrr", "r@5", "mean"):
                weighted = sum(group["n_rounds"] * group["metrics"][name] for group in groups.values())
                assert weighted / whole["n_rounds"] == pytest.approx(whole["metrics"][name])
        assert list(parts["round"]) == ["1", "2", "3"]
        assert parts["round"]["2"]["metrics"]["ndcg"] == pytest.approx(whole["metrics"]["ndcg"])
        assert "ndcg" not in parts["round"]["1"]["metrics"]
    assert {name: group["n_rounds"] for name, group in parts["question"].items()} == {"odd": 8, "even": 4}
    assert {name: group["n_rounds"] for name, group in parts["history"].items()} == {
        "needed": 8,
        "not needed": 4,
    }
    first = metrics.evaluate(only_first(val), [[own[0], None, None] for own in noisy_scores(val)])
    assert parts["round"]["1"]["metrics"] == pytest.approx(first["metrics"])


def only_first(val):
    """The dialogs with options in the first round only."""
    bare = {"options": None, "gt_index": None, "relevance": None}
    return [
        dataclasses.replace(d, rounds=(d.rounds[0], *(dataclasses.replace(t, **bare) for t in d.rounds[1:])))
        for d in val
    ]


def test_missing_rounds_may_be_left_out_when_asked(tiny):
    val = VisDial.load(tiny)
    predictions = predict(val, noisy_scores(val))
    part = predictions[:7]
    with pytest.raises(UserError, match="nothing for round 2 of image 1003 and 4 other rounds"):
        metrics.evaluate(val, part)
    result = metrics.evaluate(val, part, allow_partial=True)
    values = metrics.round_values(val, predictions)
    assert result["n_rounds"] == 7 and result["metrics"]["mrr"] == pytest.approx(values["mrr"][:7].mean())
    with pytest.raises(UserError, match="not one of the dialogs' rounds"):
        metrics.evaluate(val, [], allow_partial=True)


def change(n, **keys):
    return lambda p: p[n].update(keys)


BAD = [
    (lambda p: p.pop(7), "nothing for round 2 of image 1003"),
    (lambda p: (p.pop(7), p.pop(1)), "nothing for round 2 of image 1001 and 1 other rounds"),
    (lambda p: p.append(p[3]), "predictions[12]: round 1 of image 1002 again, after predictions[3]"),
    (lambda p: p[4].pop("ranks"), "predictions[4].ranks: expected a list of 100 whole numbers, got null"),
    (lambda p: p[4]["ranks"].pop(), "predictions[4].ranks is not an order of 1 to 100"),
    (lambda p: p[4]["ranks"].__setitem__(0, 0), "predictions[4].ranks is not an order"),
    (lambda p: p[4]["ranks"].__setitem__(0, p[4]["ranks"][1]), "predictions[4].ranks is not an order"),
    (
        lambda p: p[4]["ranks"].__setitem__(0, 1.0),
        "predictions[4].ranks: expected a list of 100 whole numbers",
    ),
    (
        lambda p: p[4]["ranks"].__setitem__(0, True),
        "predictions[4].ranks: expected a list of 100 whole numbers",
    ),
    (change(4, ranks=None), "predictions[4].ranks: expected a list"),
    (change(4, round_id=0), "predictions[4].round_id: image 1002 has no round 0; the first is 1"),
    (change(4, round_id=4), "predictions[4].round_id: image 1002 has no round 4"),
    (change(4, round_id="2"), "predictions[4].round_id: expected a whole number, got '2'"),
    (change(4, round_id=True), "predictions[4].round_id: expected a whole number, got True"),
    (change(4, image_id=5), "predictions[4].image_id 5 is in none of the dialogs"),
    (lambda p: p[4].pop("image_id"), "predictions[4].image_id: expected a whole number, got null"),
    (lambda p: p.__setitem__(4, [1]), "predictions[4]: expected an object"),
    (change(4, answer=3), "predictions[4].answer: expected text, got 3"),
    (lambda p: p.clear(), "nothing for round 1 of image 1001 and 11 other rounds"),
]


@pytest.mark.parametrize(("spoil", "expected"), BAD, ids=[expected for _, expected in BAD])
def test_bad_predictions_are_named_with_their_place(tiny, spoil, expected):
    val = VisDial.load(tiny)
    predictions = predict(val)
    spoil(predictions)
    with pytest.raises(UserError) as caught:
        metrics.evaluate(val, predictions)
    assert expected in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("wrong", [None, {}, {"image_id": 1}, 3, "x"])
def test_predictions_that_are_no_list(tiny, wrong):
    with pytest.raises(UserError, match="predictions: expected a list"):
        metrics.evaluate(VisDial.load(tiny), wrong)


def test_bad_scores_are_named_with_their_place(tiny):
    val = VisDial.load(tiny)
    for spoil, expected in (
        (lambda s: s.pop(), "scores for 3 dialogs, expected 4"),
        (lambda s: s[1].pop(), "image 1002: scores for 2 of 3 rounds"),
        (lambda s: s[1].__setitem__(2, None), "image 1002, round 3: expected 100 scores, got null"),
        (lambda s: s[1].__setitem__(2, np.zeros(99)), "image 1002, round 3: expected 100 scores"),
        (lambda s: s[1][2].__setitem__(40, np.nan), "image 1002, round 3, option 40: the score is nan"),
        (lambda s: s[1][2].__setitem__(7, np.inf), "image 1002, round 3, option 7: the score is inf"),
    ):
        scores = noisy_scores(val)
        spoil(scores)
        with pytest.raises(UserError) as caught:
            metrics.evaluate(val, scores)
        assert expected in str(caught.value) and len(str(caught.value)) < 300


ODD = st.sampled_from([None, True, -1, 0, 1, 2, 101, 1001, 10**30, 1.5, math.nan, "", "x", [], {}, [[]]])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2), st.sampled_from(["image_id", "round_id", "ranks", "answer", 0, 99]), ODD)
def test_fuzzed_predictions(tmp_path_factory, n, key, value):
    val = FUZZED.get("val") or FUZZED.setdefault("val", tiny_val(tmp_path_factory.mktemp("fuzz")))
    predictions = copy.deepcopy(FUZZED.setdefault("predictions", predict(val)))
    if isinstance(key, int):
        predictions[n]["ranks"][key] = value
    else:
        predictions[n][key] = value
    try:
        result = metrics.evaluate(val, predictions, bootstrap_samples=5)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 300
    else:
        assert result["n_rounds"] == 3


FUZZED = {}


def tiny_val(folder) -> VisDial:
    return VisDial.load(make_dataset(folder / "d", dialogs=1), "val")


# ---- generated answers (their metrics one by one: test_text_metrics.py)


def test_generated_answers_are_evaluated_beside_the_ranks(tiny):
    val = VisDial.load(tiny)
    predictions = predict(val)
    predictions[0]["answer"] = val[0].rounds[0].answer.upper() + "."
    predictions[5]["answer"] = "purple"
    result = metrics.evaluate(val, predictions)
    assert result["metrics"]["exact_match"] == result["metrics"]["token_f1"] == 0.5
    assert set(result["metrics"]) - set(result["intervals"]) == {"bleu"}
    found = metrics.text_metrics(predictions[:3], val)
    assert found["exact_match"] == found["token_f1"] == found["rouge_l"] == 1.0
    without_ranks = [{"image_id": 1002, "round_id": 3, "answer": "purple"}]
    assert metrics.text_metrics(without_ranks, val)["exact_match"] == 0
    for wrong, expected in (
        ([], "no generated answer"),
        ([{"image_id": 1}], "round_id"),
        (None, "expected a list"),
    ):
        with pytest.raises(UserError, match=expected):
            metrics.text_metrics(wrong, val)
