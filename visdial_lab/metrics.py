"""Scores of an answerer: MRR, recall@k, mean rank, NDCG, text overlap, bootstrap intervals, and exact priors.

"Scores" everywhere: one list per dialog, in it one float array [O] per round (higher = better), or None for a
round without options. O is 100. "Predictions": the EvalAI list of {"image_id", "round_id", "ranks"}.
"""

import collections
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from visdial_lab.errors import UserError, shown
from visdial_lab.predictions import ranks_from_scores as ranks_from_scores  # offered here too
from visdial_lab.visdial import Dialog, Round


def sparse_values(scores, gt, ties: str = "expected") -> dict[str, np.ndarray]:
    """Per-round values of MRR, R@1/5/10 and rank of the human answer. scores [N, O], gt [N] → name → [N].

    ties="expected": the mean over all orders of the tied options. With g options above and a group of m,
    the rank is uniform on g+1 … g+m, so E[1/rank] = (H(g+m) - H(g)) / m, P[rank ≤ k] = clip(k-g, 0, m) / m
    and E[rank] = g + (m+1)/2.  ties="official": option order decides, as in the challenge's evaluation code.
    Raises UserError for NaN.
    """
    scores, gt = _settle(scores, ties), np.asarray(gt)
    own = np.take_along_axis(scores, gt[:, None], axis=1)
    above, size = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, scores.shape[1] + 1))])
    values = {"mrr": (harmonic[above + size] - harmonic[above]) / size}
    for k in (1, 5, 10):
        values[f"r@{k}"] = np.clip(k - above, 0, size) / size
    values["mean"] = above + (size + 1) / 2
    return values


def sparse_metrics(scores, gt, ties: str = "expected") -> dict[str, float]:
    """The means of `sparse_values` over all rounds: fractions, and "mean" in ranks."""
    return {name: float(values.mean()) for name, values in sparse_values(scores, gt, ties).items()}


def ndcg_values(scores, relevance, ties: str = "expected") -> np.ndarray:
    """NDCG of each annotated round, by the challenge's formula. scores, relevance [N, O] → [N].

    k = number of options with relevance ≠ 0; DCG = Σ relevance · d(rank), d(r) = 1/log2(r+1) for r ≤ k and 0
    beyond; NDCG = DCG / DCG of the best order. DCG is linear in the d(rank), so its mean over all orders of
    tied options takes the mean of d over the group's ranks g+1 … g+m: (D(g+m) - D(g)) / m, D the running sum.
    A round where nothing is relevant has no NDCG: NaN.
    """
    scores = _settle(scores, ties)
    relevance = np.atleast_2d(np.asarray(relevance, dtype=float))
    above = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)  # [N, O]: options that score higher,
    size = (scores[:, None, :] == scores[:, :, None]).sum(axis=2)  # and as high, itself included
    k = (relevance != 0).sum(axis=1, keepdims=True)
    discount = 1.0 / np.log2(np.arange(2, scores.shape[1] + 2))
    running = np.concatenate([[0.0], np.cumsum(discount)])
    expected = (running[np.minimum(above + size, k)] - running[np.minimum(above, k)]) / size
    best = -np.sort(-relevance, axis=1) @ discount  # the k relevant options come first, zeros add nothing
    with np.errstate(invalid="ignore"):
        return (relevance * expected).sum(axis=1) / best


def ndcg(scores, relevance, ties: str = "expected") -> float:
    """Mean of `ndcg_values` over the rounds that have one (NaN when there is none)."""
    values = ndcg_values(scores, relevance, ties)
    return float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else float("nan")


def evaluate(
    dialogs: Sequence[Dialog],
    predictions: list,
    bootstrap_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    ties: str = "expected",
) -> dict[str, Any]:
    """Everything at once, from an EvalAI list or from scores.

    → {"metrics": {"mrr", "r@1", "r@5", "r@10", "mean", "ndcg"}, "intervals": {the same keys: [low, high]},
    "n_rounds", "n_dense"}: fractions, "mean" in ranks. "ndcg" is left out where nothing is annotated; an
    EvalAI list with generated answers adds "exact_match" and "token_f1".
    Intervals: percentile bootstrap over dialogs, since the ten rounds of a dialog are not independent.
    Raises UserError when the predictions do not fit the dialogs, or the dialogs hold no human answers.
    """
    dialogs = list(dialogs)  # a VisDial builds a dialog whenever it is asked: ask once
    rounds = [
        (i, turn) for i, dialog in enumerate(dialogs) for turn in dialog.rounds if turn.options is not None
    ]
    if not rounds or any(turn.gt_index is None for _, turn in rounds):
        lacks = "human answers to compare with" if rounds else "answer options to rank"
        raise UserError(f"the dialogs have no {lacks}; evaluate on the val split")
    raw = isinstance(predictions, list) and {type(entry) for entry in predictions} in ({list}, {tuple})
    scores = _stack(predictions, dialogs) if raw else -validate_predictions(predictions, dialogs)
    owner = np.array([i for i, _ in rounds])  # [rounds]: the dialog that each round belongs to
    values = sparse_values(scores, [turn.gt_index for _, turn in rounds], ties)
    table = [(name, owner, column) for name, column in values.items()]
    dense = [n for n, (_, turn) in enumerate(rounds) if turn.relevance is not None and any(turn.relevance)]
    if dense:
        relevance = [rounds[n][1].relevance for n in dense]
        table.append(("ndcg", owner[dense], ndcg_values(scores[dense], relevance, ties)))
    if not raw and any("answer" in entry for entry in predictions):
        table += _text_table(predictions, dialogs)
    return {
        "metrics": {name: float(column.mean()) for name, _, column in table},
        "intervals": _bootstrap(table, len(dialogs), bootstrap_samples, confidence, seed),
        "n_rounds": len(rounds),
        "n_dense": len(dense),
    }


def text_metrics(predictions: list, dialogs: Sequence[Dialog]) -> dict[str, float]:
    """Mean exact match and token F1 of the generated "answer"s, for lists that need not cover every round.

    → {"exact_match", "token_f1"} as fractions. Raises UserError when an entry does not fit the dialogs.
    """
    return {name: float(column.mean()) for name, _, column in _text_table(predictions, dialogs)}


def _text_table(predictions: list, dialogs: Sequence[Dialog]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    position = {dialog.image_id: i for i, dialog in enumerate(dialogs)}
    owner, pairs = [], []
    for place, entry, turn in _matched(predictions, dialogs):
        if type(entry.get("answer", "")) is not str:
            raise UserError(f"{place}.answer: expected text, got {shown(entry['answer'])}")
        if "answer" in entry and turn.answer is not None:
            owner.append(position[entry["image_id"]])
            pairs.append((entry["answer"], turn.answer))
    if not pairs:
        raise UserError("predictions: no generated answer to a round that has a human one")
    compare = (("exact_match", exact_match), ("token_f1", token_f1))
    return [(name, np.array(owner), np.array([same(*pair) for pair in pairs])) for name, same in compare]


def _bootstrap(table, n_dialogs: int, samples: int, confidence: float, seed: int) -> dict[str, list[float]]:
    """Percentile intervals of means over values that come in dialogs. table: [(name, owner [n], values [n])].

    A resample draws n_dialogs dialogs with replacement, that is, gives dialog i a weight w_i; its metric is
    Σ w_i·sum_i / Σ w_i·count_i. All resamples and metrics use the same weights: two matrix products.
    """
    names = [name for name, _, _ in table]
    sums = np.stack([np.bincount(owner, values, n_dialogs) for _, owner, values in table], axis=1)
    counts = np.stack([np.bincount(owner, minlength=n_dialogs) for _, owner, _ in table], axis=1)
    weights = np.random.default_rng(seed).multinomial(
        n_dialogs, np.full(n_dialogs, 1 / n_dialogs), size=samples
    )
    with np.errstate(invalid="ignore"):
        means = (weights @ sums) / (weights @ counts)  # [samples, metrics]; NaN: no annotated dialog drawn
    edges = np.nanquantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return {name: [float(low), float(high)] for name, low, high in zip(names, *edges, strict=True)}


def validate_predictions(predictions: list, dialogs: Sequence[Dialog]) -> np.ndarray:
    """Check an EvalAI list against the dialogs; return its ranks [rounds with options, O] in dialog order.

    Exactly one entry for every round that has options (val: all rounds; test: the last of each dialog).
    Raises UserError naming the entry: unknown image or round, given twice, missing, not a permutation.
    """
    ranks: dict[tuple[int, int], list[int]] = {}
    for place, entry, turn in _matched(predictions, dialogs):
        if turn.options is None:
            raise UserError(
                f"{place}: round {turn.round_id} of image {entry['image_id']} has no options to rank"
            )
        given, count = entry.get("ranks"), len(turn.options)
        if not isinstance(given, list) or set(map(type, given)) != {int}:
            raise UserError(f"{place}.ranks: expected a list of {count} whole numbers, got {shown(given)}")
        if sorted(given) != list(range(1, count + 1)):
            raise UserError(f"{place}.ranks is not an order of 1 to {count}: every rank exactly once")
        ranks[entry["image_id"], turn.round_id] = given
    wanted = [
        (dialog.image_id, turn.round_id) for dialog in dialogs for turn in dialog.rounds if turn.options
    ]
    missing = [key for key in wanted if key not in ranks]
    if missing:
        more = f" and {len(missing) - 1} other rounds" if len(missing) > 1 else ""
        raise UserError(f"predictions: nothing for round {missing[0][1]} of image {missing[0][0]}{more}")
    return np.array([ranks[key] for key in wanted])


def _matched(predictions: Any, dialogs: Sequence[Dialog]) -> Iterator[tuple[str, dict, Round]]:
    """Every entry with its place in the list, for messages, and the round it is about."""
    if not isinstance(predictions, list):
        raise UserError(
            f"predictions: expected a list of {{image_id, round_id, ranks}}, got {shown(predictions)}"
        )
    rounds = {(dialog.image_id, turn.round_id): turn for dialog in dialogs for turn in dialog.rounds}
    images = {image_id for image_id, _ in rounds}
    first_use: dict[tuple[int, int], int] = {}
    for n, entry in enumerate(predictions):
        place = f"predictions[{n}]"
        if not isinstance(entry, dict):
            raise UserError(
                f"{place}: expected an object with image_id, round_id and ranks, got {shown(entry)}"
            )
        for key in ("image_id", "round_id"):
            if type(entry.get(key)) is not int:
                raise UserError(f"{place}.{key}: expected a whole number, got {shown(entry.get(key))}")
        image_id, round_id = key = entry["image_id"], entry["round_id"]
        if image_id not in images:
            raise UserError(f"{place}.image_id {shown(image_id)} is in none of the dialogs; another split's?")
        if key not in rounds:
            raise UserError(
                f"{place}.round_id: image {image_id} has no round {shown(round_id)}; the first is 1"
            )
        if first_use.setdefault(key, n) != n:
            raise UserError(
                f"{place}: round {round_id} of image {image_id} again, after predictions[{first_use[key]}]"
            )
        yield place, entry, rounds[key]


def constant_scores(dialogs: Sequence[Dialog]) -> list[list[np.ndarray | None]]:
    """The random baseline, exactly: every option ties, so `evaluate` gives the closed-form expectation."""
    return _score(dialogs, lambda question, option: 0.0)


def answer_prior(train: Sequence[Dialog]) -> Callable[[Sequence[Dialog]], list]:
    """A scorer that only knows how often each answer was given in training: no image, no question."""
    frequency = collections.Counter(turn.answer for dialog in train for turn in dialog.rounds)
    return lambda dialogs: _score(dialogs, lambda question, option: frequency[option])


def question_prior(train: Sequence[Dialog]) -> Callable[[Sequence[Dialog]], list]:
    """A scorer that knows how often an answer followed the question's first two words ("is it").

    Where that count ties (mostly at 0), the answer's overall frequency decides.
    """
    frequency, following = collections.Counter(), collections.defaultdict(collections.Counter)
    for dialog in train:
        for turn in dialog.rounds:
            frequency[turn.answer] += 1
            following[_first_words(turn.question)][turn.answer] += 1
    total = 1 + sum(frequency.values())
    return lambda dialogs: _score(
        dialogs,
        lambda question, option: following[_first_words(question)][option] + frequency[option] / total,
    )


def _first_words(question: str) -> tuple[str, ...]:
    return tuple(question.split()[:2])


def _score(dialogs: Sequence[Dialog], value: Callable[[str, str], float]) -> list[list[np.ndarray | None]]:
    """Scores of every round that has options, by value(question, option)."""
    return [
        [
            turn.options and np.array([value(turn.question, o) for o in turn.options], float)
            for turn in dialog.rounds
        ]
        for dialog in dialogs
    ]


def normalise(text: str) -> list[str]:
    """Words of an answer, made comparable: lower case, no punctuation, no articles ("A dog." → [dog])."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower().replace("'", ""))
    return [word for word in words if word not in ("a", "an", "the")]


def exact_match(answer: str, human: str) -> float:
    """1 when both answers have the same words after `normalise`, else 0."""
    return float(normalise(answer) == normalise(human))


def token_f1(answer: str, human: str) -> float:
    """Overlap of the two answers' words: harmonic mean of precision and recall (as in SQuAD), 0 to 1."""
    got, wanted = normalise(answer), normalise(human)
    if not got or not wanted:
        return float(got == wanted)
    shared = sum((collections.Counter(got) & collections.Counter(wanted)).values())
    return 2 * shared / (len(got) + len(wanted))


def _numbers(scores) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    if np.isnan(scores).any():
        place = ", ".join(str(i) for i in np.argwhere(np.isnan(scores))[0])
        raise UserError(f"scores[{place}] is NaN: the model is broken (too high a learning rate, or fp16?)")
    return scores


def _settle(scores, ties: str) -> np.ndarray:
    """Scores [N, O] with ties left in ("expected") or settled as a stable sort does ("official")."""
    scores = np.atleast_2d(_numbers(scores))
    if ties == "expected":
        return scores
    if ties != "official":
        raise UserError(f"ties is {shown(ties)}, expected 'expected' or 'official'")
    order = np.argsort(-scores, axis=1, kind="stable")
    return -np.argsort(order, axis=1).astype(float)  # the inverse permutation is each option's place


def _stack(scores: list, dialogs: Sequence[Dialog]) -> np.ndarray:
    """Scores as one array [rounds with options, O]. Raises UserError naming image, round and option."""
    if len(scores) != len(dialogs):
        raise UserError(f"got scores for {len(scores)} dialogs, expected {len(dialogs)}")
    rows = []
    for dialog, own in zip(dialogs, scores, strict=True):
        if len(own) != len(dialog.rounds):
            raise UserError(
                f"image {dialog.image_id} has {len(dialog.rounds)} rounds, got scores for {len(own)}"
            )
        for turn, row in zip(dialog.rounds, own, strict=True):
            if turn.options is None:
                continue
            place = f"image {dialog.image_id}, round {turn.round_id}"
            if np.shape(row) != (len(turn.options),):
                raise UserError(f"{place}: expected {len(turn.options)} scores, got {shown(row)}")
            if np.isnan(row).any():
                raise UserError(f"{place}, option {np.isnan(row).argmax()}: the score is NaN")
            rows.append(row)
    return np.array(rows, dtype=float)
