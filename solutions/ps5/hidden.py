"""Tests of problem set 5. Never shipped to students: they see the visible cases' inputs and outputs only."""

import numpy as np

from visdial_lab.exercises import Test, call


def _distinct(rng, n):
    """n different scores in random order."""
    return (rng.permutation(n) - n / 3) * 0.37


def _ranks_four(rng):
    yield call("ranks_from_scores", np.array([0.1, 0.9, 0.4, 0.7]))


def _ranks_any(rng):
    for n in (1, 10, 100, 100):
        yield call("ranks_from_scores", _distinct(rng, n))
    for bad in (np.nan, np.inf, -np.inf):
        scores = _distinct(rng, 20)
        scores[rng.integers(20)] = bad
        yield call("ranks_from_scores", scores)


def _tie_five(rng):
    yield call("expected_rank", np.array([5.0, 3.0, 3.0, 3.0, 1.0]), 1)


def _tie_any(rng):
    for n, levels in ((100, 10_000), (100, 30), (100, 4), (10, 1), (1, 1)):
        yield call("expected_rank", rng.integers(0, levels, n) / 4, int(rng.integers(n)))


def _sparse_small(rng):
    yield call(
        "sparse_metrics", np.array([[5.0, 3.0, 3.0, 3.0, 1.0], [0.1, 0.2, 0.3, 0.4, 0.5]]), np.array([2, 3])
    )


def _sparse_distinct(rng):
    for rounds in (1, 8, 20):
        scores = np.array([_distinct(rng, 100) for _ in range(rounds)])
        gt = rng.integers(0, 100, rounds)
        gt[0] = np.argsort(-scores[0])[4]  # a rank of 5
        if rounds > 1:
            gt[1], gt[2] = np.argsort(-scores[1])[9], np.argsort(-scores[2])[0]  # 10 and 1
        yield call("sparse_metrics", scores, gt)


def _sparse_ties(rng):
    for rounds, levels in ((6, 40), (12, 5), (4, 1)):
        yield call("sparse_metrics", rng.integers(0, levels, (rounds, 100)) / 4, rng.integers(0, 100, rounds))


def _relevance(rng, n, share=0.15):
    """A few of n options relevant, in steps of 0.2, at least one of them in between."""
    relevance = np.where(rng.random(n) < share, rng.integers(1, 6, n) / 5, 0.0)
    relevance[rng.permutation(n)[:2]] = 0.4, 1.0
    return relevance


def _ndcg_five(rng):
    yield call("ndcg", np.array([0.9, 0.8, 0.1, 0.7, 0.2]), np.array([0.0, 1.0, 0.0, 0.5, 1.0]))


def _ndcg_any(rng):
    for n in (6, 20, 100, 100, 100):
        relevance = _relevance(rng, n)
        # better than chance, so that something relevant stands among the first k
        order = np.argsort(rng.random(n) - relevance)
        scores = np.empty(n)
        scores[order] = -np.arange(n) * 0.37
        yield call("ndcg", scores, relevance)


def _ndcg_edges(rng):
    yield call("ndcg", _distinct(rng, 30), np.zeros(30))
    relevance = np.zeros(30)
    relevance[rng.integers(30)] = 0.2
    yield call(
        "ndcg", relevance + _distinct(rng, 30) / 1e3, relevance
    )  # one slightly relevant option, on top
    yield call("ndcg", _distinct(rng, 30), np.full(30, 0.6))


def _predictions(rng, images, rounds, options=6):
    return [
        {"image_id": image, "round_id": r, "ranks": (rng.permutation(options) + 1).tolist()}
        for image in images
        for r in range(1, rounds + 1)
    ]


def _dense(rng, images, rounds, options=6):
    return [
        {
            "image_id": i,
            "round_id": int(rng.integers(1, rounds + 1)),
            "gt_relevance": rng.random(options).tolist(),
        }
        for i in images
    ]


def _pair_two(rng):
    predictions = [
        {"image_id": 7, "round_id": 1, "ranks": [1, 2, 3]},
        {"image_id": 7, "round_id": 2, "ranks": [3, 1, 2]},
        {"image_id": 9, "round_id": 1, "ranks": [2, 1, 3]},
    ]
    dense = [
        {"image_id": 9, "round_id": 1, "gt_relevance": [0.0, 1.0, 0.0]},
        {"image_id": 7, "round_id": 2, "gt_relevance": [0.2, 0.0, 1.0]},
    ]
    yield call("pair_up", predictions, dense)


def _pair_any(rng):
    for count, rounds in ((4, 10), (7, 3)):
        images = (rng.permutation(900)[:count] + 1).tolist()
        predictions, dense = _predictions(rng, images, rounds), _dense(rng, images, rounds)
        shuffled = [predictions[i] for i in rng.permutation(len(predictions))]
        yield call("pair_up", shuffled, [dense[i] for i in rng.permutation(count)[1:]])
        missing = dense[0]["image_id"], dense[0]["round_id"]
        yield call("pair_up", [p for p in shuffled if (p["image_id"], p["round_id"]) != missing], dense)


def _interval_small(rng):
    values, dialog = np.array([1.0, 0.0, 0.0, 0.5, 0.2]), np.array([0, 1, 1, 1, 2])
    resamples = np.array([[0, 0, 1], [2, 1, 1], [0, 2, 2], [2, 0, 1]])
    yield call("bootstrap_interval", values, dialog, resamples, confidence=0.5)


def _resamples(rng, dialogs, samples=200):
    return rng.integers(0, dialogs, (samples, dialogs))


def _interval_even(rng):
    for dialogs in (5, 12):
        owner = np.repeat(np.arange(dialogs), 10)
        values = np.repeat(rng.random(dialogs), 10) * 0.7 + rng.random(10 * dialogs) * 0.3
        yield call("bootstrap_interval", values, owner, _resamples(rng, dialogs))
        yield call("bootstrap_interval", values, owner, _resamples(rng, dialogs), confidence=0.8)


def _interval_uneven(rng):
    for dialogs in (6, 15):
        lengths = rng.permutation(dialogs) % 10 + 1
        owner = rng.permutation(np.repeat(np.arange(dialogs), lengths))
        values = rng.random(len(owner)) / (1 + lengths[owner])  # long dialogs are harder
        yield call("bootstrap_interval", values, owner, _resamples(rng, dialogs))


# The five mistakes: each test's inputs are such that the other four mistakes do no harm.
# - A row whose order is its own inverse looks the same to the inverse permutation.
# - Rounds with the human answer at one rank: the last one alone has the same mean. Never at rank 5.
# - Rounds with the same scores: the round after the annotated one is as good. Never annotate the last one.
# - Relevance of 0 and 1 only: 2^relevance - 1 is the relevance.


def _row(rng, options, place, rank):
    """Scores with option `place` at `rank`, and an order that is its own inverse."""
    order = np.arange(options)
    order[[place, rank - 1]] = rank - 1, place
    rest = rng.permutation([i for i in range(options) if i not in (place, rank - 1)])
    for a, b in zip(rest[::2], rest[1::2], strict=False):
        order[[a, b]] = b, a
    return -order * 0.37


def _not_five(rng):
    return int(rng.choice([1, 2, 3, 4, 6, 8, 11, 17]))


def _dialogs(rng, options, ranks):
    """(dialogs, scores): for each dialog the ranks of the human answers."""
    dialogs, scores = [], []
    for image_id, own in zip((rng.permutation(900) + 1).tolist(), ranks, strict=False):
        places = rng.integers(0, options, len(own)).tolist()
        dialogs.append({"image_id": image_id, "gt": places})
        scores.append(np.array([_row(rng, options, p, r) for p, r in zip(places, own, strict=True)]))
    return dialogs, scores


def _annotated(rng, dialogs, scores, round_of, binary):
    entries = []
    for dialog, rows in zip(dialogs, scores, strict=True):
        relevance = np.zeros(rows.shape[1])
        some = np.argsort(-rows[0] + rng.normal(size=rows.shape[1]))[:6]  # some of the better ones
        relevance[some] = 1.0 if binary else rng.permutation([0.2, 0.4, 0.6, 0.8, 1.0, 0.4])
        entry = {"image_id": dialog["image_id"], "round_id": round_of(rows)}
        entries.append(entry | {"gt_relevance": relevance.tolist()})
    return entries


def _bug_five_small(rng):
    dialogs = [{"image_id": 7, "gt": [4]}, {"image_id": 9, "gt": [2]}]
    scores = [np.array([[0.7, 0.6, 0.5, 0.4, 0.3, 0.2]]), np.array([[0.5, 0.6, 0.4, 0.3, 0.1, 0.2]])]
    yield call("evaluate", dialogs, scores, [])


def _bug_inverse(rng):
    for count in (3, 6):
        dialogs, scores = [], []
        for image_id in (rng.permutation(900)[:count] + 1).tolist():
            circle, order = rng.permutation(20), np.empty(20, int)
            order[circle] = np.roll(circle, 1)  # one big cycle: nowhere its own inverse
            place = int(rng.choice(np.flatnonzero(order != 4)))
            dialogs.append({"image_id": image_id, "gt": [place] * 3})
            scores.append(np.array([-order * 0.37] * 3))
        yield call("evaluate", dialogs, scores, [])
        yield call("evaluate", dialogs, scores, _annotated(rng, dialogs, scores, lambda rows: 1, binary=True))


def _bug_last(rng):
    for count in (1, 4, 7):
        ranks = [[1, 2, *(_not_five(rng) for _ in range(rng.integers(0, 9))), 6] for _ in range(count)]
        dialogs, scores = _dialogs(rng, 20, ranks)
        yield call("evaluate", dialogs, scores, [])


def _bug_round(rng):
    for count in (3, 6):
        rounds = int(rng.integers(2, 11))  # as many in each dialog
        ranks = [[_not_five(rng)] * rounds for _ in range(count)]
        dialogs, scores = _dialogs(rng, 20, ranks)
        for round_of in (lambda rows: 1, len, lambda rows: int(rng.integers(1, len(rows) + 1))):
            dense = _annotated(rng, dialogs, scores, round_of, binary=True)
            yield call("evaluate", dialogs, scores, dense[::-1])
        yield call("evaluate", dialogs, scores, dense[1:])


def _bug_gain(rng):
    for count in (2, 5):
        ranks = [[_not_five(rng)] for _ in range(count)]
        dialogs, scores = _dialogs(rng, 20, ranks)
        dialogs = [dialog | {"gt": dialog["gt"] * 4} for dialog in dialogs]
        scores = [np.repeat(rows, 4, axis=0) for rows in scores]
        round_of = lambda rows: int(rng.integers(1, 4))  # noqa: E731
        yield call("evaluate", dialogs, scores, _annotated(rng, dialogs, scores, round_of, binary=False))


TESTS = [
    Test("ps5.ranks", "four options", "write ranks, not their inverse", 1, _ranks_four, visible=True),
    Test("ps5.ranks", "100 options, NaN and infinity", "refuse what has no order", 1, _ranks_any),
    Test("ps5.tie", "three of five options tie", "take an expectation over ties", 1, _tie_five, visible=True),
    Test("ps5.tie", "no ties, many, only ties", "never let the order decide", 1, _tie_any),
    Test("ps5.sparse", "two small rounds", "know MRR, R@k and mean rank", 1, _sparse_small, visible=True),
    Test("ps5.sparse", "100 options, no ties", "count rank k among the first k", 1, _sparse_distinct),
    Test("ps5.sparse", "100 options, many ties", "average 1 / rank, not rank", 1, _sparse_ties),
    Test("ps5.ndcg", "the example", "compute NDCG by hand", 1, _ndcg_five, visible=True),
    Test("ps5.ndcg", "more options", "know the challenge's k and gain", 1, _ndcg_any),
    Test("ps5.ndcg", "nothing, one or all relevant", "know when there is no NDCG", 1, _ndcg_edges),
    Test("ps5.pair", "two annotations", "match image and round", 1, _pair_two, visible=True),
    Test("ps5.pair", "any order, one missing", "leave nothing out silently", 1, _pair_any),
    Test("ps5.interval", "three dialogs", "resample dialogs, not rounds", 1, _interval_small, visible=True),
    Test("ps5.interval", "dialogs of ten rounds", "put an interval around a metric", 1, _interval_even),
    Test("ps5.interval", "dialogs of all lengths", "weigh dialogs as the metric does", 1, _interval_uneven),
    Test("ps5.bug", "among the first five", "find an error at the border", 1, _bug_five_small, visible=True),
    Test("ps5.bug", "ranks and their inverse", "find an inverse permutation", 1, _bug_inverse),
    Test("ps5.bug", "every round counts", "find a result that is overwritten", 1, _bug_last),
    Test("ps5.bug", "the annotated round", "find an index that is off by one", 1, _bug_round),
    Test("ps5.bug", "the gain", "find another metric's formula", 1, _bug_gain),
]
