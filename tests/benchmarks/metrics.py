"""How fast the metrics are at the size of VisDial's full val split, beside the official algorithm.

`python tests/benchmarks/metrics.py` prints one JSON object; seconds are the best of some repeats, one thread.
The official evaluation turns scores into ranks with a Python loop over every option of every round, one
tensor element at a time (2 million), and computes NDCG round by round; `official` below takes the same steps.
Start it with OMP_NUM_THREADS=1 to keep other threads out of numpy too; ours uses none.
"""

import json
import math
import sys
import time

import numpy as np
import torch

from visdial_lab import metrics

DIALOGS, ROUNDS, OPTIONS = 2064, 10, 100  # the val split


def make_data(dialogs: int = DIALOGS, seed: int = 0):
    """Scores without ties, human answers, and relevance of one round a dialog (about 10 relevant options)."""
    rng = np.random.default_rng(seed)
    gt = rng.integers(0, OPTIONS, (dialogs, ROUNDS))
    scores = rng.normal(size=(dialogs, ROUNDS, OPTIONS)).astype(np.float32)
    np.put_along_axis(scores, gt[..., None], np.take_along_axis(scores, gt[..., None], 2) + 2, 2)
    annotated = rng.integers(0, ROUNDS, dialogs)
    relevance = rng.choice([0, 0.2, 0.4, 0.6, 0.8, 1.0], (dialogs, OPTIONS), p=[0.9] + [0.02] * 5)
    relevance[np.arange(dialogs), gt[np.arange(dialogs), annotated]] = 1.0
    return scores, gt, annotated, relevance.astype(np.float32)


def official_ranks(scores: torch.Tensor) -> torch.Tensor:
    """Ranks from 1, [..., options], filled in one by one."""
    flat = scores.reshape(-1, scores.shape[-1])
    _, best_first = flat.sort(1, descending=True)
    ranks = best_first.clone().fill_(0)
    for i in range(best_first.size(0)):
        for j in range(best_first.size(1)):
            ranks[i][best_first[i][j]] = j
    return (ranks + 1).view(scores.shape)


def official(scores, gt, annotated, relevance) -> dict[str, float]:
    """All six metrics by the official algorithm: all rounds first, then NDCG of the annotated ones."""
    scores, gt, relevance = torch.from_numpy(scores), torch.from_numpy(gt), torch.from_numpy(relevance)
    ranks = official_ranks(scores)
    human = ranks.view(-1, OPTIONS)[torch.arange(gt.numel()), gt.view(-1)].float()
    gains = []
    chosen = official_ranks(scores[torch.arange(len(gt)), torch.from_numpy(annotated)].unsqueeze(1)).squeeze(
        1
    )
    for own, wanted in zip(chosen, relevance, strict=True):
        k = int((wanted != 0).sum())
        discount = torch.log2(torch.arange(k).float() + 2)
        _, places = own.sort()
        best, _ = wanted.sort(descending=True)
        gains.append(float((wanted[places][:k] / discount).sum() / (best[:k] / discount).sum()))
    recall = {f"r@{k}": float((human <= k).float().mean()) for k in (1, 5, 10)}
    mrr = float((1 / human.double()).mean())
    return {"mrr": mrr, "mean": float(human.mean()), "ndcg": math.fsum(gains) / len(gains)} | recall


def ours(scores, gt, annotated, relevance) -> tuple[np.ndarray, dict[str, float]]:
    """The ranks of all rounds, and all six metrics."""
    ranks = metrics.ranks_from_scores(scores)
    found = metrics.sparse_metrics(scores.reshape(-1, OPTIONS), gt.reshape(-1))
    return ranks, found | {"ndcg": metrics.ndcg(scores[np.arange(len(gt)), annotated], relevance)}


def values_of(scores, gt, annotated, relevance) -> dict[str, np.ndarray]:
    """What `round_values` makes of dialogs, for `summarise` to resample."""
    values = {"dialog": np.repeat(np.arange(len(gt)), ROUNDS)}
    values |= metrics.sparse_values(scores.reshape(-1, OPTIONS), gt.reshape(-1))
    values["ndcg"] = np.full(gt.size, np.nan)
    own = np.arange(len(gt)) * ROUNDS + annotated
    values["ndcg"][own] = metrics.ndcg_values(scores[np.arange(len(gt)), annotated], relevance)
    return values


def best_of(work, repeats: int) -> tuple[float, object]:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - began)
    return min(times), result


def main(repeats: int = 5) -> dict:
    torch.set_num_threads(1)
    data = make_data()
    seconds, (ranks, found) = best_of(lambda: ours(*data), repeats)
    bootstrap, _ = best_of(lambda: metrics.summarise(values_of(*data), 1000), repeats)
    scoring, _ = best_of(lambda: values_of(*data), repeats)
    slow, wanted = best_of(lambda: official(*data), 1)
    again, _ = best_of(lambda: ours(*data), repeats)  # the machine may have been busy before or after
    assert all(abs(found[name] - value) < 1e-5 * max(1, abs(value)) for name, value in wanted.items()), (
        found, wanted,
    )  # fmt: skip
    assert ranks.shape == (DIALOGS, ROUNDS, OPTIONS)
    return {
        "rounds": DIALOGS * ROUNDS,
        "ranks_and_metrics_seconds": round(min(seconds, again), 4),
        "official_seconds": round(slow, 2),
        "times_faster": round(slow / min(seconds, again), 1),
        "bootstrap_1000_seconds": round(bootstrap - scoring, 3),
        "threads": torch.get_num_threads(),
        "numpy": np.__version__,
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:])), indent=1))
