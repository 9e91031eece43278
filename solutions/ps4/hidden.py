"""The tests of problem set 4, visible and hidden. Students never get this file."""

import numpy as np
import torch

from visdial_lab.exercises import Test, build, call

EXAMPLE = [[5], [5, 8, 9], [6, 8]]  # of the text
LAYERS = 3


def _text(rng, length):
    return rng.integers(2, 300, size=length).tolist()


def _candidates(rng, count, words=4, longest=5):
    """Candidates of few different words: many of them begin alike, some twice, some inside another."""
    words = rng.choice(np.arange(2, 300), size=words, replace=False)
    return [rng.choice(words, size=rng.integers(1, longest + 1)).tolist() for _ in range(count)]


def _model(rng):
    return build("tiny_model", int(rng.integers(10_000)))


def _scored(function, rng, cases):
    for length, count in cases:
        yield call(function, _model(rng), _text(rng, length), _candidates(rng, count))


def _parents(rng, size):
    return [int(rng.integers(-1, node)) for node in range(size)]


def _logprobs_three(rng):
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0], [3.0, 0.0, 0.0, 1.0], [9.0, 9.0, 0.0, 1.0]])
    yield call("token_logprobs", logits, [1, 3, 0])
    yield call("token_logprobs", torch.from_numpy(rng.normal(size=(5, 6))), [1, 5, 5, 0, 2])


def _logprobs(rng):
    for size, scale in ((2, 1), (20, 3), (9, 500)):  # 500: probabilities that are zero in floating point
        logits = torch.from_numpy(scale * rng.normal(size=(size, 30)))
        yield call("token_logprobs", logits, rng.integers(0, 30, size=size).tolist())


def _naive_few(rng):
    yield call("naive_scores", build("tiny_model", 1), [7, 2, 9, 30, 4], [[5], [5, 8, 9], [6, 8]])


def _naive(rng):
    yield from _scored("naive_scores", rng, [(20, 8), (1, 6), (40, 1)])


def _ranks_four(rng):
    yield call("ranks", torch.tensor([-3.0, -1.0, -3.0, -7.0]))


def _ranks(rng):
    for size in (1, 30, 100):
        yield call("ranks", torch.from_numpy(rng.integers(-20, 0, size=size).astype(float)))


def _cached_few(rng):
    yield call("cached_scores", build("tiny_model", 1), [7, 2, 9, 30, 4], [[5], [5, 8, 9], [6, 8]])


def _cached(rng):
    yield from _scored("cached_scores", rng, [(20, 8), (1, 6), (40, 1)])


def _cached_speed(rng):
    for _ in range(3):
        yield call("cached_scores", _model(rng), _text(rng, 150), _candidates(rng, 60))


def _plant_example(rng):
    yield call("plant", EXAMPLE)


def _plant(rng):
    for count in (5, 20, 100):
        yield call("plant", _candidates(rng, count))


def _plant_corners(rng):
    first, second = rng.choice(np.arange(2, 300), size=2, replace=False).tolist()
    yield call("plant", [[first, second, first], [first, second], [first]])  # each inside the one before
    yield call("plant", [[first, first], [first, first], [second, first, first]])  # twice the same
    yield call("plant", [[second]])


def _mask_example(rng):
    yield call("tree_mask", [-1, 0, -1], 2)
    yield call("tree_positions", [-1, 0, -1], 2)


def _mask(rng):
    for size, length in ((6, 3), (25, 1), (40, 17)):
        yield call("tree_mask", _parents(rng, size), length)


def _positions(rng):
    for size, length in ((6, 3), (25, 1), (40, 17)):
        yield call("tree_positions", _parents(rng, size), length)


def _tree_few(rng):
    yield call("tree_scores", build("tiny_model", 1), [7, 2, 9, 30, 4], [[5], [5, 8, 9], [6, 8]])


def _tree(rng):
    yield from _scored("tree_scores", rng, [(30, 20), (1, 6), (12, 1)])


def _tree_speed(rng):
    for _ in range(5):
        yield call("tree_scores", _model(rng), _text(rng, 20), _candidates(rng, 100))


def _window_few(rng):
    candidates = [[5], [5, 8, 9], [6, 8]]
    yield call("window_scores", build("tiny_model", 1), [7, 2, 9, 30, 4], candidates, 3, [True, True, False])


def _window(rng):
    for length, window, slides in ((12, 4, (0, 2)), (5, 2, (1,)), (9, 99, (0, 1, 2))):
        sliding = [layer in slides for layer in range(LAYERS)]
        yield call("window_scores", _model(rng), _text(rng, length), _candidates(rng, 12), window, sliding)


TESTS = [
    Test(
        "ps4.logprobs",
        "three tokens, and five",
        goal="know which row of logits is about which token",
        points=1,
        draw=_logprobs_three,
        visible=True,
    ),
    Test(
        "ps4.logprobs",
        "longer texts, very large logits",
        goal="normalise over the vocabulary, and stay finite",
        points=1,
        draw=_logprobs,
    ),
    Test(
        "ps4.naive",
        "three candidates",
        goal="score an answer that somebody else wrote",
        points=1,
        draw=_naive_few,
        visible=True,
    ),
    Test(
        "ps4.naive",
        "other models, prompts of 1 to 40 tokens",
        goal="sum over the candidate and its END, and over nothing else",
        points=1,
        draw=_naive,
    ),
    Test(
        "ps4.ranks",
        "four scores",
        goal="turn scores into ranks",
        points=1,
        draw=_ranks_four,
        visible=True,
    ),
    Test(
        "ps4.ranks",
        "up to a hundred scores, many of them equal",
        goal="give equal scores equal ranks",
        points=1,
        draw=_ranks,
    ),
    Test(
        "ps4.cached",
        "three candidates",
        goal="continue a prompt whose keys and values were kept",
        points=1,
        draw=_cached_few,
        visible=True,
    ),
    Test(
        "ps4.cached",
        "other models, prompts of 1 to 40 tokens",
        goal="keep scores the same: positions, mask, and the row that predicts the first token",
        points=1,
        draw=_cached,
    ),
    Test(
        "ps4.cached",
        "three times as fast as the plain way",
        goal="read the prompt once, and save what that is there to save",
        points=1,
        draw=_cached_speed,
        faster_than="naive_scores",
        by=3.0,
    ),
    Test(
        "ps4.plant",
        "the example in the text",
        goal="build a tree in which equal beginnings are stored once",
        points=1,
        draw=_plant_example,
        visible=True,
    ),
    Test(
        "ps4.plant",
        "up to a hundred candidates",
        goal="number nodes in order, and know each candidate's path",
        points=1,
        draw=_plant,
    ),
    Test(
        "ps4.plant",
        "candidates inside others, and twice the same",
        goal="share a node exactly if all before it is equal",
        points=1,
        draw=_plant_corners,
    ),
    Test(
        "ps4.mask",
        "the example in the text",
        goal="make a tree invisible to the model",
        points=1,
        draw=_mask_example,
        visible=True,
    ),
    Test(
        "ps4.mask",
        "masks of larger trees",
        goal="let no branch see another",
        points=1,
        draw=_mask,
    ),
    Test(
        "ps4.mask",
        "positions in larger trees",
        goal="place each node where it would stand in its own text",
        points=1,
        draw=_positions,
    ),
    Test(
        "ps4.tree",
        "three candidates",
        goal="score all candidates in one forward pass",
        points=1,
        draw=_tree_few,
        visible=True,
    ),
    Test(
        "ps4.tree",
        "other models, prompts of 1 to 30 tokens",
        goal="read every token once, and let its parent predict it",
        points=1,
        draw=_tree,
    ),
    Test(
        "ps4.tree",
        "twice as fast as with a kept prompt",
        goal="turn one forward pass over fewer tokens into less time",
        points=1,
        draw=_tree_speed,
        faster_than="cached_scores",
        by=2.0,
    ),
    Test(
        "ps4.window",
        "three candidates, window 3",
        goal="combine a tree with sliding windows",
        points=1,
        draw=_window_few,
        visible=True,
    ),
    Test(
        "ps4.window",
        "other windows and layers",
        goal="measure a window in positions, not in columns, and only where a layer slides",
        points=1,
        draw=_window,
    ),
]
