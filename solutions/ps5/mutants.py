"""Planted wrong answers for problem set 5, each with the points that the whole set then earns."""

from visdial_lab.exercises import Mutant

PUBLISHED = """
def evaluate(dialogs, scores, dense):
    def ranks_of(row):
        return np.argsort(-row) + 1

    found = []
    for dialog, rows in zip(dialogs, scores, strict=True):
        for row, place in zip(rows, dialog["gt"], strict=True):
            rank = ranks_of(row)[place]
        found.append(rank)
    found = np.array(found)
    by_image = {dialog["image_id"]: rows for dialog, rows in zip(dialogs, scores, strict=True)}
    gains = []
    for entry in dense:
        rows = by_image[entry["image_id"]]
        if entry["round_id"] >= len(rows):
            continue
        ranks = ranks_of(rows[entry["round_id"]])
        relevance = np.array(entry["gt_relevance"])
        k = np.count_nonzero(relevance)
        gain = 2**relevance - 1
        gained = (gain / np.log2(ranks + 1))[ranks <= k].sum()
        best = np.sort(gain)[::-1][:k]
        gains.append(gained / (best / np.log2(np.arange(2, k + 2))).sum())
    return {
        "mrr": float((1 / found).mean()),
        "r@5": float((found < 5).mean()),
        "ndcg": float(np.mean(gains)) if gains else float("nan"),
    }
"""
REPAIRS = {
    "inverse": ("return np.argsort(-row) + 1", "return np.argsort(np.argsort(-row)) + 1"),
    "last": ("        found.append(rank)", "            found.append(rank)"),
    "index": ('ranks_of(rows[entry["round_id"]])', 'ranks_of(rows[entry["round_id"] - 1])'),
    "left out": ('if entry["round_id"] >= len(rows)', "if False"),
    "gain": ("2**relevance - 1", "relevance"),
    "border": ("found < 5", "found <= 5"),
}


def _but(*left: str) -> str:
    """The published evaluation with all mistakes repaired but these."""
    code = PUBLISHED
    for name, (wrong, right) in REPAIRS.items():
        code = code if name in left else code.replace(wrong, right)
    return code


MUTANTS = [
    Mutant(
        "the inverse permutation as ranks",
        "ps5.ranks",
        """
def ranks_from_scores(scores):
    if not np.isfinite(scores).all():
        raise ValueError("not finite")
    return np.argsort(-scores) + 1
""",
        18,
    ),
    Mutant(
        "NaN ranked like a number",
        "ps5.ranks",
        """
def ranks_from_scores(scores):
    return np.argsort(np.argsort(-scores)) + 1
""",
        19,
    ),
    Mutant(
        "ties fall by the option order",
        "ps5.tie",
        """
def expected_rank(scores, gt):
    order = np.argsort(-scores, kind="stable")
    return float(np.flatnonzero(order == gt)[0] + 1)
""",
        18,
    ),
    Mutant(
        "one over the expected rank",
        "ps5.sparse",
        """
def sparse_metrics(scores, gt):
    own = scores[np.arange(len(gt)), gt][:, None]
    ranks = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) + 1) / 2
    values = {f"r@{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}
    return values | {"mrr": float((1 / ranks).mean()), "mean": float(ranks.mean())}
""",
        18,
    ),
    Mutant(
        "recall with < k",
        "ps5.sparse",
        """
def sparse_metrics(scores, gt):
    own = scores[np.arange(len(gt)), gt][:, None]
    values = {"mrr": [], "r@1": [], "r@5": [], "r@10": [], "mean": []}
    for above, level in zip((scores > own).sum(axis=1), (scores == own).sum(axis=1)):
        possible = above + np.arange(1, level + 1)
        values["mrr"].append((1 / possible).mean())
        for k in (1, 5, 10):
            values[f"r@{k}"].append((possible < k).mean())
        values["mean"].append(possible.mean())
    return {name: float(np.mean(column)) for name, column in values.items()}
""",
        18,
    ),
    Mutant(
        "exponential gain over all places",
        "ps5.ndcg",
        """
def ndcg(scores, relevance):
    discount = np.log2(np.arange(2, len(scores) + 2))
    gain = 2**relevance - 1
    possible = (np.sort(gain)[::-1] / discount).sum()
    return float((gain[np.argsort(-scores)] / discount).sum() / possible) if possible else float("nan")
""",
        18,
    ),
    Mutant(
        "the round after the annotated one",
        "ps5.pair",
        """
def pair_up(predictions, dense):
    ranks = {(entry["image_id"], entry["round_id"] - 1): entry["ranks"] for entry in predictions}
    pairs = []
    for entry in dense:
        key = entry["image_id"], entry["round_id"]
        if key in ranks:
            pairs.append((ranks[key], entry["gt_relevance"]))
    return pairs
""",
        18,
    ),
    Mutant(
        "a missing prediction is left out",
        "ps5.pair",
        """
def pair_up(predictions, dense):
    ranks = {(entry["image_id"], entry["round_id"]): entry["ranks"] for entry in predictions}
    keys = [(entry["image_id"], entry["round_id"]) for entry in dense]
    return [(ranks[key], entry["gt_relevance"]) for key, entry in zip(keys, dense) if key in ranks]
""",
        19,
    ),
    Mutant(
        "every dialog weighs the same",
        "ps5.interval",
        """
def bootstrap_interval(values, dialog, resamples, confidence=0.95):
    means = np.array([values[dialog == d].mean() for d in range(dialog.max() + 1)])[resamples].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
""",
        18,
    ),
    Mutant(
        "a dialog drawn twice counts once",
        "ps5.interval",
        """
def bootstrap_interval(values, dialog, resamples, confidence=0.95):
    means = [values[np.isin(dialog, row)].mean() for row in resamples]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
""",
        17,
    ),
    Mutant("nothing repaired", "ps5.bug", PUBLISHED, 15),
    Mutant("the inverse permutation is left", "ps5.bug", _but("inverse"), 19),
    Mutant("only last rounds are scored", "ps5.bug", _but("last"), 19),
    Mutant("the round after the annotated one is left", "ps5.bug", _but("index", "left out"), 19),
    Mutant("right round, but the last one is still left out", "ps5.bug", _but("left out"), 19),
    Mutant("the gain is left", "ps5.bug", _but("gain"), 19),
    Mutant("the border of R@5 is left", "ps5.bug", _but("border"), 19),
    Mutant("only the border of R@5 is repaired", "ps5.bug", PUBLISHED.replace("found < 5", "found <= 5"), 16),
]
