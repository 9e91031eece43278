"""How good a ranking is: MRR, recall@k, mean rank, NDCG; intervals over dialogs, breakdowns, comparisons.

"Scores" everywhere: one list per dialog, in it one float array [O] per round (higher = better), or None for a
round without options. O is 100. "Predictions": the EvalAI list of {"image_id", "round_id", "ranks"}.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Some of these are not used below: a notebook finds all that measures in this one module.
from visdial_lab.baselines import answer_prior, constant_scores, question_prior  # noqa: F401
from visdial_lab.errors import UserError, shown
from visdial_lab.submission import validate_predictions
from visdial_lab.text_metrics import answer_pairs, answer_type, corpus_bleu, question_type, text_values
from visdial_lab.text_metrics import exact_match as exact_match
from visdial_lab.text_metrics import text_metrics as text_metrics
from visdial_lab.text_metrics import token_f1 as token_f1
from visdial_lab.visdial import Dialog

_KEYS = ("dialog", "round_id")  # of `round_values`; the other columns are metrics


def ranks_from_scores(scores, seed: int | Sequence[int] = 0) -> np.ndarray:
    """Ranks from 1 (highest score) for scores [..., O]; ties fall by a seeded shuffle.

    Never by index: VisDial's option order leaks the answer, so a stable sort would reward a model that knows
    nothing. Raises UserError for NaN and infinity.
    """
    scores = _finite(scores)
    order = np.argsort(-scores, axis=-1)  # order[..., 0] = the best option
    ordered = np.take_along_axis(scores, order, axis=-1)
    tied = (ordered[..., 1:] == ordered[..., :-1]).any(axis=-1)
    lottery = np.random.default_rng(seed).random(scores[tied].shape)
    order[tied] = np.lexsort((lottery, -scores[tied]), axis=-1)
    ranks = np.empty(scores.shape, dtype=int)
    np.put_along_axis(ranks, order, np.arange(1, scores.shape[-1] + 1), axis=-1)
    return ranks


def sparse_values(scores, gt, ties: str = "expected") -> dict[str, np.ndarray]:
    """Per-round values of MRR, R@1/5/10 and rank of the human answer. scores [N, O], gt [N] → name → [N].

    ties="expected": the mean over all orders of the tied options. With g options above and a group of m,
    the rank is uniform on g+1 … g+m, so E[1/rank] = (H(g+m) - H(g)) / m, P[rank ≤ k] = clip(k-g, 0, m) / m
    and E[rank] = g + (m+1)/2.  ties="worst": the human answer comes last among its equals.
    ties="official": option order decides, as in the challenge's evaluation code.
    Raises UserError for NaN and infinity.
    """
    scores, gt = np.atleast_2d(_finite(scores)), np.asarray(gt)
    scores = _settle(scores, ties, wanted=np.arange(scores.shape[1]) == gt[:, None])
    above, size = _above_and_level(scores, np.arange(len(gt)), gt)
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
    ties="worst": the least relevant first. A round where nothing is relevant has no NDCG: NaN.
    """
    relevance = np.atleast_2d(np.asarray(relevance, dtype=float))
    scores = _settle(np.atleast_2d(_finite(scores)), ties, wanted=relevance)
    row, option = np.nonzero(relevance)
    above, size = _above_and_level(scores, row, option)
    k = (relevance != 0).sum(axis=1)
    discount = 1.0 / np.log2(np.arange(2, scores.shape[1] + 2))
    running = np.concatenate([[0.0], np.cumsum(discount)])
    expected = (running[np.minimum(above + size, k[row])] - running[np.minimum(above, k[row])]) / size
    gained = np.bincount(row, relevance[row, option] * expected, len(scores))
    best = -np.sort(-relevance, axis=1) @ discount  # the k relevant options come first, zeros add nothing
    return np.divide(gained, best, out=np.full(len(scores), np.nan), where=best > 0)


def ndcg(scores, relevance, ties: str = "expected") -> float:
    """Mean of `ndcg_values` over the rounds that have one (NaN when there is none)."""
    values = ndcg_values(scores, relevance, ties)
    return float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else float("nan")


def _above_and_level(scores, row, option) -> tuple[np.ndarray, np.ndarray]:
    """How many options of its round score higher than each (row, option), and how many as high, with it."""
    own = scores[row, option][:, None]
    return (scores[row] > own).sum(axis=1), (scores[row] == own).sum(axis=1)


def _settle(scores: np.ndarray, ties: str, wanted: np.ndarray) -> np.ndarray:
    """Scores [N, O] with ties left in ("expected"), or settled by option order or against the `wanted`."""
    if ties == "expected":
        return scores
    if ties == "worst":
        order = np.lexsort((wanted, -scores), axis=1)
    elif ties == "official":
        order = np.argsort(-scores, axis=1, kind="stable")
    else:
        raise UserError(f"ties is {shown(ties)}, expected 'expected', 'worst' or 'official'")
    return -np.argsort(order, axis=1).astype(float)  # the inverse permutation is each option's place


def _finite(scores) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    if len(bad := np.argwhere(~np.isfinite(scores))):
        place = tuple(bad[0].tolist())
        value = str(scores[place]).replace("nan", "NaN")
        raise UserError(f"scores{[*place]} is {value}: too high a learning rate, or fp16?")
    return scores


# ---- over a data set: one row a round, the rest follows from it


def round_values(
    dialogs: Sequence[Dialog], predictions: list, ties: str = "expected", allow_partial: bool = False
) -> dict[str, np.ndarray]:
    """Every metric of every round that has options, from an EvalAI list or from scores.

    → {"dialog": place in `dialogs`, "round_id", "mrr", "r@1", "r@5", "r@10", "mean", and where there is
    something to compare with "ndcg", "exact_match", …}: arrays [rounds], NaN where a round has no such value.
    allow_partial leaves out the rounds without an entry instead of refusing the list.
    Raises UserError when the predictions do not fit the dialogs, or the dialogs hold no human answers.
    """
    dialogs = list(dialogs)  # a VisDial builds a dialog whenever it is asked: ask once
    rounds = [(i, turn) for i, d in enumerate(dialogs) for turn in d.rounds if turn.options is not None]
    if not rounds or any(turn.gt_index is None for _, turn in rounds):
        lacks = "human answers to compare with" if rounds else "answer options to rank"
        raise UserError(f"the dialogs have no {lacks}; evaluate on the val split")
    raw = isinstance(predictions, list) and {type(entry) for entry in predictions} in ({list}, {tuple})
    if raw:
        scores = _stack(predictions, dialogs)
    else:
        scores = -validate_predictions(predictions, dialogs, allow_partial)
        there = scores.any(axis=1)  # a round without an entry has ranks of 0
        rounds, scores = [pair for pair, given in zip(rounds, there, strict=True) if given], scores[there]
    keys = np.array([(i, turn.round_id, turn.gt_index) for i, turn in rounds], dtype=int).reshape(-1, 3)
    values = {"dialog": keys[:, 0], "round_id": keys[:, 1], **sparse_values(scores, keys[:, 2], ties)}
    dense = [n for n, (_, turn) in enumerate(rounds) if turn.relevance is not None]
    if dense:
        values["ndcg"] = np.full(len(rounds), np.nan)
        values["ndcg"][dense] = ndcg_values(scores[dense], [rounds[n][1].relevance for n in dense], ties)
    if not raw and any("answer" in entry for entry in predictions):
        pairs = answer_pairs(predictions, dialogs)
        row = {(dialogs[i].image_id, turn.round_id): n for n, (i, turn) in enumerate(rounds)}
        said = [row[key] for key, _, _ in pairs]
        for name, column in text_values(pairs).items():
            values[name] = np.full(len(rounds), np.nan)
            values[name][said] = column
    return values


def evaluate(
    dialogs: Sequence[Dialog],
    predictions: list,
    bootstrap_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    ties: str = "expected",
    allow_partial: bool = False,
) -> dict[str, Any]:
    """Everything at once, from an EvalAI list or from scores.

    → {"metrics": {"mrr", "r@1", "r@5", "r@10", "mean", "ndcg"}, "intervals": {the same keys: [low, high]},
    "n_rounds", "n_dense"}: fractions, "mean" in ranks. "ndcg" is left out where nothing is annotated; an
    EvalAI list with generated answers adds the metrics of `text_metrics` ("bleu" without an interval).
    Intervals: percentile bootstrap over dialogs, since the ten rounds of a dialog are not independent.
    Raises UserError when the predictions do not fit the dialogs, or the dialogs hold no human answers.
    """
    values = round_values(dialogs, predictions, ties, allow_partial)
    result = summarise(values, bootstrap_samples, confidence, seed)
    if "exact_match" in values:
        result["metrics"]["bleu"] = corpus_bleu(answer_pairs(predictions, dialogs))
    return result


def summarise(
    values: Mapping[str, np.ndarray], bootstrap_samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Means and intervals of the columns of `round_values`; the shape of the result is `evaluate`'s."""
    names, columns, _, edges = _resample(values, bootstrap_samples, confidence, seed)
    return {
        "metrics": dict(zip(names, np.nanmean(columns, axis=0).tolist(), strict=True)),
        "intervals": dict(zip(names, edges, strict=True)),
        "n_rounds": len(columns),
        "n_dense": int((~np.isnan(values["ndcg"])).sum()) if "ndcg" in values else 0,
    }


def shared(
    values: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The rows of both (`round_values` on the same dialogs) whose round the other has too, for `compare`."""
    found = []
    for own, their in ((values, others), (others, values)):
        there = set(zip(*(their[key].tolist() for key in _KEYS), strict=True))
        keys = zip(*(own[key].tolist() for key in _KEYS), strict=True)
        keep = np.array([key in there for key in keys], dtype=bool)
        found.append({name: column[keep] for name, column in own.items()})
    return found[0], found[1]


def compare(
    values: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], **bootstrap: Any
) -> dict[str, dict[str, Any]]:
    """Two runs over the same rounds (`round_values` of each): what the first has more of each metric.

    → {metric: {"difference", "interval": [low, high], "improved": share of the resamples in which the first
    is better, that is, above, or for "mean" below}}. Paired: both runs see the same resampled dialogs, so
    that what makes a dialog hard for both cancels out. bootstrap: as `summarise`.
    Raises UserError when the rounds are not the same.
    """
    if not all(np.array_equal(values[key], others[key]) for key in _KEYS):
        raise UserError("the two runs do not cover the same rounds; compare runs over the same dialogs")
    gains = {key: values[key] for key in _KEYS}
    gains |= {name: values[name] - others[name] for name in values if name in others and name not in _KEYS}
    names, columns, means, edges = _resample(gains, **bootstrap)
    found = {}
    for n, name in enumerate(names):
        better = means[~np.isnan(means[:, n]), n] * (-1 if name == "mean" else 1)
        improved = float((np.sign(better) / 2 + 0.5).mean())  # a draw counts half
        difference = float(np.nanmean(columns[:, n]))
        found[name] = {"difference": difference, "interval": edges[n], "improved": improved}
    return found


def _resample(
    values: Mapping[str, np.ndarray], bootstrap_samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[list[str], np.ndarray, np.ndarray, list[list[float]]]:
    """(names, columns [N, C], bootstrap means [samples, C], intervals [C]) of the metrics that have values.

    A resample draws as many dialogs as there are, with replacement, that is, gives dialog i a weight w_i; its
    mean is Σ w_i·sum_i / Σ w_i·count_i. All columns use the same weights: two matrix products.
    """
    names = [name for name, column in values.items() if name not in _KEYS and not np.isnan(column).all()]
    if not names:
        raise UserError("predictions: not one of the dialogs' rounds is in there")
    columns = np.stack([values[name] for name in names], axis=1)
    dialogs, owner = np.unique(values["dialog"], return_inverse=True)
    n, there = len(dialogs), ~np.isnan(columns)
    sums = np.stack([np.bincount(owner, column, n) for column in np.where(there, columns, 0).T], axis=1)
    counts = np.stack([np.bincount(owner, column, n) for column in there.T], axis=1)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), bootstrap_samples).astype(float)
    with np.errstate(invalid="ignore"):  # NaN: no dialog with such a value was drawn
        means = (weights @ sums) / (weights @ counts)
    edges = np.nanquantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return names, columns, means, edges.T.tolist()


def breakdowns(
    values: Mapping[str, np.ndarray],
    dialogs: Sequence[Dialog],
    truth: Mapping[tuple[int, int], Mapping[str, Any]] | None = None,
    **bootstrap: Any,
) -> dict[str, dict[str, dict[str, Any]]]:
    """The metrics by round, by type of question and of answer, and by need for history where that is known.

    values: of `round_values` on these dialogs. truth: {(image_id, round_id): {"kind", "needs_history"}}, as
    the embedded data has it; without it the question's first words tell its type. bootstrap: as `summarise`.
    → {"round" | "question" | "answer" | "history": {label: result of `summarise`}}, common labels first.
    """
    dialogs = list(dialogs)
    labels: dict[str, list[str]] = collections.defaultdict(list)
    for i, round_id in zip(values["dialog"], values["round_id"], strict=True):
        turn = dialogs[i].rounds[round_id - 1]
        known = (truth or {}).get((dialogs[i].image_id, turn.round_id), {})
        labels["round"].append(str(round_id))
        labels["question"].append(known.get("kind") or question_type(turn.question))
        labels["answer"].append(answer_type(turn.answer))
        if truth:
            history = {True: "needed", False: "not needed"}
            labels["history"].append(history.get(known.get("needs_history"), "unknown"))
    found: dict[str, dict[str, dict[str, Any]]] = collections.defaultdict(dict)
    for by, own in labels.items():
        often = [label for label, _ in collections.Counter(own).most_common()]
        for label in sorted(often, key=int) if by == "round" else often:
            rows = np.array(own) == label
            found[by][label] = summarise({name: column[rows] for name, column in values.items()}, **bootstrap)
    return dict(found)


def _stack(scores: list, dialogs: Sequence[Dialog]) -> np.ndarray:
    """Scores as one array [rounds with options, O]. Raises UserError naming image, round and option."""
    if len(scores) != len(dialogs):
        raise UserError(f"got scores for {len(scores)} dialogs, expected {len(dialogs)}")
    rows = []
    for dialog, own in zip(dialogs, scores, strict=True):
        if len(own) != len(dialog.rounds):
            raise UserError(f"image {dialog.image_id}: scores for {len(own)} of {len(dialog.rounds)} rounds")
        for turn, row in zip(dialog.rounds, own, strict=True):
            if turn.options is None:
                continue
            place = f"image {dialog.image_id}, round {turn.round_id}"
            if np.shape(row) != (len(turn.options),):
                raise UserError(f"{place}: expected {len(turn.options)} scores, got {shown(row)}")
            if (bad := ~np.isfinite(row)).any():
                raise UserError(f"{place}, option {bad.argmax()}: the score is {row[bad.argmax()]}")
            rows.append(row)
    return np.array(rows, dtype=float)
