"""One reading of the dialog must give the scores that a thousand readings give."""

import random

import numpy as np
import pytest
import tiny_model
import torch
from reference_ranking import cached_prefix, naive

from visdial_lab import ranking
from visdial_lab.errors import UserError
from visdial_lab.forest import plant
from visdial_lab.models import load_model
from visdial_lab.ranking import score_dialogs
from visdial_lab.visdial import Dialog, Round

WORDS = [
    "red",
    "dog",
    "blue",
    "cat",
    "house",
    "man",
    "yes",
    "no",
    "it",
    "is",
    "the",
    "near",
    "ball",
    "can't",
    "tell",
    "green",
    "한국",
    "x",
    "two",
    "people",
    "lake",
]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    return load_model(tiny_model.build(tmp_path_factory.mktemp("vision")))


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    return load_model(tiny_model.build_text(tmp_path_factory.mktemp("text")))


def some_dialog(folder, image_id, rounds=4, options=12, longest=4, only_last=False):
    """A dialog with a noise picture; candidates share first words often; with `only_last` shaped like the
    test split."""
    rng = random.Random(image_id)
    path = folder / f"{image_id}.png"
    if not path.exists():
        from PIL import Image

        noise = np.random.default_rng(image_id).integers(0, 255, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)

    def some(longest):
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))

    turns = []
    for round_id in range(1, rounds + 1):
        last = only_last and round_id == rounds
        texts = tuple(some(longest) for _ in range(options)) if last or not only_last else None
        answer = None if last else texts[3] if texts else some(3)
        turns.append(Round(round_id, some(6), answer, texts, None if only_last else 3, None))
    return Dialog(image_id, some(8), tuple(turns), path, "test" if only_last else "val")


def assert_same(ours, expected):
    assert [row is None for row in ours] == [row is None for row in expected]
    for row, other in zip(ours, expected, strict=True):
        if row is not None:
            np.testing.assert_allclose(row, other, atol=1e-4, rtol=0)
            assert np.ptp(other) > 1  # scores that hardly differ would prove nothing


def test_agrees_with_naive_and_cached_prefix(seeing, tmp_path):
    dialog = some_dialog(tmp_path, 1)
    [ours] = score_dialogs(*seeing, [dialog])
    assert_same(ours, naive(*seeing, dialog))
    assert_same(ours, cached_prefix(*seeing, dialog))


def test_window_is_shorter_than_the_trunk_and_matters(seeing, tmp_path):
    """The tests above only mean something if a sliding window cuts off part of the dialog."""
    model, processor = seeing
    dialog = some_dialog(tmp_path, 2)
    [narrow] = score_dialogs(model, processor, [dialog])
    config = model.config.get_text_config()
    window, config.sliding_window = config.sliding_window, 1000
    try:
        [wide] = score_dialogs(model, processor, [dialog])
    finally:
        config.sliding_window = window
    assert np.abs(narrow[0] - wide[0]).max() > 0.01


def test_ragged_batch_in_one_go(seeing, tmp_path, monkeypatch):
    """Dialogs of different lengths, one shaped like the test split, read together: as if read one by one."""
    shapes = [
        {"rounds": 1},
        {"rounds": 5, "only_last": True},
        {"rounds": 3, "options": 40},
        {"rounds": 1, "only_last": True},
    ]
    dialogs = [some_dialog(tmp_path, 10 + i, **shape) for i, shape in enumerate(shapes)]
    monkeypatch.setitem(ranking._ENOUGH, "cpu", 10**6)
    together = score_dialogs(*seeing, dialogs)
    for dialog, ours in zip(dialogs, together, strict=True):
        assert_same(ours, naive(*seeing, dialog))
    monkeypatch.setitem(ranking._ENOUGH, "cpu", 1)  # one dialog, and of it one row at a time
    alone = score_dialogs(*seeing, dialogs)
    for ours, other in zip(together, alone, strict=True):
        assert_same(ours, other)


def test_candidates_from_one_to_fifty_tokens(seeing, tmp_path):
    options = (*("yes" + " no" * extra for extra in (0, 1, 2, 5, 9, 24, 48)), "it is" + " red dog" * 9)
    dialog = with_options(some_dialog(tmp_path, 20), options)
    lengths = [len(ids) - 1 for ids in ranking.answer_ids(seeing[1], options)]
    assert min(lengths) == 1 and max(lengths) >= 49
    [ours] = score_dialogs(*seeing, [dialog])
    assert_same(ours, naive(*seeing, dialog))


def test_single_token_candidates_only(seeing, tmp_path):
    """Every branch one token long: the second pass reads first tokens only."""
    dialog = some_dialog(tmp_path, 21, rounds=1)
    options = ("yes", "no", "is", "yes")
    dialog = Dialog(21, "a dog", (Round(1, "is it", "yes", options, 0, None),), dialog.image_path, "val")
    [ours] = score_dialogs(*seeing, [dialog])
    assert_same(ours, naive(*seeing, dialog))
    assert ours[0][0] == ours[0][3]  # equal candidates tie exactly


def test_text_only_model(blind, tmp_path):
    dialog = some_dialog(tmp_path, 22)
    [ours] = score_dialogs(*blind, [dialog])
    assert_same(ours, naive(*blind, dialog))


def test_logits_in_small_pieces(seeing, tmp_path, monkeypatch):
    dialog = some_dialog(tmp_path, 23)
    [whole] = score_dialogs(*seeing, [dialog])
    monkeypatch.setattr(ranking, "_LOGITS", 3000)
    [pieces] = score_dialogs(*seeing, [dialog])
    assert_same(pieces, whole)


def test_blank_image_is_gray_and_same_size(seeing, tmp_path):
    from PIL import Image

    dialog = some_dialog(tmp_path, 24)
    [ours] = score_dialogs(*seeing, [dialog], blank_image=True)
    assert_same(ours, naive(*seeing, dialog, Image.new("RGB", (30, 40), (128, 128, 128))))
    [sighted] = score_dialogs(*seeing, [dialog])
    assert np.abs(sighted[0] - ours[0]).max() > 1e-3  # this model looks


def test_length_normalised_is_the_mean(seeing, tmp_path):
    dialog = some_dialog(tmp_path, 25)
    [summed] = score_dialogs(*seeing, [dialog])
    [mean] = score_dialogs(*seeing, [dialog], length_normalised=True)
    lengths = [len(ids) for ids in ranking.answer_ids(seeing[1], dialog.rounds[0].options)]
    np.testing.assert_allclose(mean[0] * lengths, summed[0])


def test_trie_shares_first_tokens():
    own = [[5, 6, 1], [5, 7, 1], [5, 6, 1], [8, 1]]
    forest = plant([own, [[5, 1]]], np.array([9, 20]), {}, [0, 1])
    assert forest.token.tolist() == [0, 0, 5, 8, 5, 6, 7, 1, 1, 1, 1]
    assert forest.parent.tolist() == [0, 1, 0, 0, 1, 2, 2, 3, 4, 5, 6]
    assert forest.tree.tolist() == [0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert forest.paths.tolist() == [[2, 5, 9], [2, 6, 10], [2, 5, 9], [3, 7, 0], [4, 8, 0]]
    assert forest.inner.tolist() == [2, 5, 6, 3, 4]  # branch by branch
    assert forest.branches.tolist() == [3, 1, 1]


def test_progress_counts_dialogs(seeing, tmp_path):
    dialogs = [some_dialog(tmp_path, i, rounds=1) for i in (30, 31, 32)]
    seen = []
    score_dialogs(*seeing, dialogs, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def with_options(dialog, options):
    return Dialog(
        dialog.image_id,
        dialog.caption,
        (Round(1, "is it", "yes", options, 0, None),),
        dialog.image_path,
        "val",
    )


def test_empty_candidate_is_named(seeing, tmp_path):
    dialog = with_options(some_dialog(tmp_path, 40), ("yes", "no", "  "))
    with pytest.raises(UserError, match=r"dialog 40, round 1: option 2 is empty"):
        score_dialogs(*seeing, [dialog])


def test_nan_names_dialog_round_and_option(tmp_path):
    """One damaged token, which only the candidates of the second dialog hold."""
    model, processor = load_model(tiny_model.build(tmp_path / "model"))
    [damaged] = processor.tokenizer("q", add_special_tokens=False)["input_ids"]
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    model.get_input_embeddings().weight.data[damaged] = float("nan")
    healthy = some_dialog(tmp_path, 44)
    dialog = with_options(some_dialog(tmp_path, 41), ("q it", "q no"))
    with pytest.raises(UserError, match=r"dialog 41, round 1, option 0: the score is nan"):
        score_dialogs(model, processor, [healthy, dialog])
    bad = []
    scores = score_dialogs(model, processor, [dialog, healthy], on_bad=lambda *what: bad.append(what))
    assert scores[0] == [] and len(scores[1]) == len(healthy.rounds)
    assert [number for number, _ in bad] == [0] and "dialog 41" in str(bad[0][1])


def test_dialog_longer_than_the_model(tmp_path):
    model, processor = load_model(tiny_model.build_text(tmp_path / "short", max_length=40))
    with pytest.raises(UserError, match=r"dialog 42, round \d+: \d+ tokens, the model reads 40"):
        score_dialogs(model, processor, [some_dialog(tmp_path, 42, rounds=6)])


def test_missing_image_is_named(seeing, tmp_path):
    dialog = some_dialog(tmp_path, 43)
    dialog.image_path.write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"dialog 43.*image"):
        score_dialogs(*seeing, [dialog])
