"""The tests of problem set 3, visible and hidden. Students never get this file."""

import numpy as np
import torch

from visdial_lab.exercises import Test, call

FIVE = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])  # the levels of the example in the text
FLOAT32 = {"rtol": 1e-4, "atol": 1e-3}  # values up to 100: another order of sums moves the fifth digit
LAYERS = ["q_proj", "v_proj", "up_proj", "down_proj"]


def _tensor(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


def _adapter(rng, rows, columns, r):
    """Weight, A and B of a layer, and alpha."""
    alpha = float(rng.integers(1, 40)) / 2
    return _tensor(rng, rows, columns), _tensor(rng, r, columns), _tensor(rng, rows, r), alpha


def _sizes(rng, count):
    """Rows, columns and a rank that is not 1: for rank 1 a forgotten division by r would go unseen."""
    for _ in range(count):
        yield int(rng.integers(2, 9)), int(rng.integers(2, 9)), int(rng.integers(2, 6))


def _levels(rng):
    """Some ascending levels from -1 to 1, unevenly spaced."""
    inner = np.sort(rng.uniform(-0.95, 0.95, size=int(rng.integers(3, 14))))
    return np.array([-1.0, *inner, 1.0])


def _weights(rng, levels, block, size):
    """Weights that never lie in the middle between two levels, where the last digit would decide the code."""
    middles = (levels[1:] + levels[:-1]) / 2
    shares = rng.uniform(-1, 1, size=size)
    while (near := np.abs(shares[:, None] - middles).min(axis=1) < 1e-4).any():
        shares[near] = rng.uniform(-1, 1, size=near.sum())
    for start in range(0, size, block):
        largest = int(rng.integers(start, min(start + block, size)))
        shares[largest] = rng.choice([-1.0, 1.0])
        shares[start : start + block] *= 10 ** rng.uniform(-2, 2)
    return shares


def _forward_by_hand(rng):
    weight, a, b = torch.eye(2), torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0], [0.0]])
    yield call("lora_forward", torch.tensor([3.0, 4.0]), weight, a, b, 2)
    yield call("lora_forward", _tensor(rng, 3, 4), *_adapter(rng, 5, 4, 2))


def _forward(rng):
    for dimensions, (rows, columns, r) in enumerate(_sizes(rng, 4)):
        leading = rng.integers(1, 4, size=dimensions)
        yield call("lora_forward", _tensor(rng, *leading, columns), *_adapter(rng, rows, columns, r))


def _start_one(rng):
    yield call("start_facts", 48, 512, 8, 0)


def _start(rng):
    for rows, columns, r in ((300, 700, 4), (64, 256, 16), (512, 512, 8)):
        yield call("start_facts", rows, columns, r, int(rng.integers(2**31)))


def _merge_values(rng):
    for name in ("merge", "unmerge"):
        yield call(name, *_adapter(rng, 3, 4, 2))


def _merge_twice(rng):
    for rows, columns, r in _sizes(rng, 4):
        yield call("merge_twice", *_adapter(rng, rows, columns, r))


def _adapters_one_name(rng):
    yield call("adapted", 1, ["q_proj"], 2, 4)


def _adapters_names(rng):
    some = sorted(rng.choice(LAYERS, size=2, replace=False).tolist())
    for targets in (some, ["head", "norm", "v_proj"], ["tokens", *LAYERS], ["down_proj", "proj"]):
        yield call("adapted", int(rng.integers(1000)), targets, int(rng.integers(1, 5)), 8)


def _adapters_training(rng):
    for targets in (rng.choice(LAYERS, size=2, replace=False).tolist(), ["head", "up_proj"]):
        for steps in (2, 3):  # after one, only b has moved: that depends on ps3.start
            yield call("after_training", int(rng.integers(1000)), targets, int(rng.integers(1, 5)), 8, steps)


def _adapters_nothing(rng):
    for targets in (["proj"], ["norm", "tokens"], [], ["Q_proj"]):
        yield call("adapted", int(rng.integers(1000)), targets, 2, 4)


def _levels_few(rng):
    yield call("normal_levels", 2)
    yield call("normal_levels", 3)


def _levels_many(rng):
    yield call("normal_levels")
    for bits in rng.choice([5, 6, 7, 8], size=2, replace=False):
        yield call("normal_levels", int(bits), float(rng.uniform(0.9, 0.99)))


def _quantise_example(rng):
    yield call("quantise", np.array([0.4, -2.0, 0.0, 1.2, 0.01, -0.03]), FIVE, 4)
    yield call("dequantise", np.array([2, 0, 2, 3, 3, 0], np.uint8), np.array([2.0, 0.03]), FIVE, 4, (2, 3))


def _quantise(rng):
    for rows, columns, block in ((4, 24, 16), (7, 5, 8), (3, 11, 40), (1, 130, 64)):
        levels = _levels(rng)
        weights = _weights(rng, levels, block, rows * columns)
        yield call("quantise", weights.reshape(rows, columns), levels, block)


def _quantise_zeros(rng):
    for block in (4, 8):
        levels = np.sort(np.append(_levels(rng), 0.0))
        weights = _weights(rng, levels, block, 4 * block)
        weights[block : 2 * block] = 0
        yield call("quantise", weights, levels, block)
    yield call("quantise", np.zeros((2, 3)), FIVE, 4)


def _dequantise(rng):
    for rows, columns, block in ((4, 24, 16), (7, 5, 8), (3, 11, 40), (1, 130, 64)):
        levels, size = _levels(rng), rows * columns
        codes = rng.integers(0, len(levels), size=size).astype(np.uint8)
        absmax = np.abs(rng.normal(size=-(-size // block)))
        yield call("dequantise", codes, absmax, levels, block, (rows, columns))


def _bound_few(rng):
    yield call("error_bounds", np.array([1.0, 10.0]), np.array([-1.0, -0.2, 1.0]), 3, 5)
    yield call("worst_share", np.array([[1.0, 0.75, 0.1], [2.0, -2.0, 0.2]]), FIVE, 3)


def _bound(rng):
    for block in (8, 16, 64):
        levels, size = _levels(rng), int(rng.integers(100, 200))
        absmax = np.abs(rng.normal(size=-(-size // block)))
        absmax[1] = 0
        yield call("error_bounds", absmax, levels, block, size)
        weights = rng.normal(size=(4, 2 * block))
        weights[1] = 0
        yield call("worst_share", weights, levels, block)


def _size_few(rng):
    yield call("adapter_size", {"layers.0.q_proj": (2048, 2560), "layers.0.k_proj": (1024, 2560)}, 16)
    yield call("bits_per_weight", 4, 64)
    yield call("bits_per_weight", 4, 64, 256)


def _size(rng):
    for r in (1, 7):
        shapes = {f"layers.{n}": tuple(rng.integers(10, 5000, size=2).tolist()) for n in range(9)}
        yield call("adapter_size", shapes, r)
    for bits, block, double in ((2, 32, None), (4, 128, 64), (8, 256, 512)):
        yield call("bits_per_weight", bits, block, double)


TESTS = [
    Test(
        "ps3.forward",
        "the example by hand, and one with r = 2",
        goal="put the low-rank path beside a linear layer",
        points=1,
        draw=_forward_by_hand,
        **FLOAT32,
        visible=True,
    ),
    Test(
        "ps3.forward",
        "other ranks, scales and numbers of dimensions",
        goal="scale by alpha / r, whatever r is, and treat batches and tokens alike",
        points=1,
        draw=_forward,
        **FLOAT32,
    ),
    Test(
        "ps3.start",
        "a random, b zero",
        goal="begin fine-tuning exactly at the base model",
        points=1,
        draw=_start_one,
        visible=True,
    ),
    Test(
        "ps3.start",
        "other shapes and seeds",
        goal="draw A with PEFT's spread, reproducibly",
        points=1,
        draw=_start,
    ),
    Test(
        "ps3.merge",
        "a small layer",
        goal="fold an adapter into the weight, and take it out again",
        points=1,
        draw=_merge_values,
        **FLOAT32,
        visible=True,
    ),
    Test(
        "ps3.merge",
        "there and back; the tensor handed in stays as it is",
        goal="merge without destroying the base that others share",
        points=1,
        draw=_merge_twice,
        **FLOAT32,
    ),
    Test(
        "ps3.adapters",
        "one name",
        goal="replace the right layers",
        points=1,
        draw=_adapters_one_name,
        visible=True,
    ),
    Test(
        "ps3.adapters",
        "several names, also of parts that are no linear layers",
        goal="train the new matrices and freeze everything else",
        points=1,
        draw=_adapters_names,
    ),
    Test(
        "ps3.adapters",
        "gradients and movement after some steps",
        goal="gradients only where they belong",
        points=1,
        draw=_adapters_training,
    ),
    Test(
        "ps3.adapters",
        "nothing to replace",
        goal="refuse to train nothing in silence",
        points=1,
        draw=_adapters_nothing,
    ),
    Test(
        "ps3.levels",
        "two and three bits",
        goal="derive levels from the quantiles of a normal distribution",
        points=1,
        draw=_levels_few,
        visible=True,
    ),
    Test(
        "ps3.levels",
        "NF4, and more bits from another offset",
        goal="know the recipe, not the table",
        points=1,
        draw=_levels_many,
    ),
    Test(
        "ps3.quantise",
        "the example in the text",
        goal="round weights to levels, and turn codes back into weights",
        points=1,
        draw=_quantise_example,
        visible=True,
    ),
    Test(
        "ps3.quantise",
        "codes and absmax of matrices in blocks",
        goal="take each block's own absmax and the nearest level, also in a shorter last block",
        points=1,
        draw=_quantise,
    ),
    Test(
        "ps3.quantise",
        "blocks of zeros",
        goal="divide by no zero",
        points=1,
        draw=_quantise_zeros,
    ),
    Test(
        "ps3.quantise",
        "weights from codes",
        goal="multiply each level by its own block's absmax",
        points=1,
        draw=_dequantise,
    ),
    Test(
        "ps3.bound",
        "three and five levels",
        goal="bound the error of a rounded weight",
        points=1,
        draw=_bound_few,
        visible=True,
    ),
    Test(
        "ps3.bound",
        "uneven levels, blocks of zeros",
        goal="derive the bound from the largest gap, and prove it on data",
        points=1,
        draw=_bound,
    ),
    Test(
        "ps3.size",
        "Gemma's numbers",
        goal="count what is trained and what is stored",
        points=1,
        draw=_size_few,
        visible=True,
    ),
    Test(
        "ps3.size",
        "other shapes, ranks and blocks",
        goal="count with any rank, block and number of bits",
        points=1,
        draw=_size,
    ),
]
