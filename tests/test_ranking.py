"""One reading of the dialog must give the scores that a thousand readings give."""

import dataclasses
import random

import numpy as np
import pytest
import tiny_model
import torch

from visdial_lab import ranking
from visdial_lab.chat import dialog_messages
from visdial_lab.errors import UserError
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


def naive(model, processor, dialog, image=None):
    """The textbook way: for each candidate a full forward of picture + history + candidate, library code
    unused."""
    tokenizer = getattr(processor, "tokenizer", processor)
    scores = []
    for place, turn in enumerate(dialog.rounds):
        if turn.options is None:
            scores.append(None)
            continue
        row = []
        for option in turn.options:
            asked = [f"<start_of_turn>user\n{past.question}?<end_of_turn>\n" for past in dialog.rounds]
            said = [f"<start_of_turn>model\n{past.answer}<end_of_turn>\n" for past in dialog.rounds]
            asked[0] = asked[0].replace("user\n", f"user\n<start_of_image>{dialog.caption}\n", 1)
            past = "".join(question + answer for question, answer in zip(asked[:place], said, strict=False))
            history = "<bos>" + past + asked[place] + "<start_of_turn>model\n"
            if tokenizer is processor:
                history = history.replace("<start_of_image>", "")
                inputs = tokenizer(
                    [history + option + "<end_of_turn>"], add_special_tokens=False, return_tensors="pt"
                )
            else:
                inputs = processor(
                    text=[history + option + "<end_of_turn>"],
                    images=[[image or dialog.image()]],
                    add_special_tokens=False,
                    return_tensors="pt",
                )
            inputs.pop("mm_token_type_ids", None)
            length = len(tokenizer(option + "<end_of_turn>", add_special_tokens=False)["input_ids"])
            with torch.no_grad():
                logprobs = model(**inputs).logits[0].double().log_softmax(-1)
            ids = inputs["input_ids"][0]
            row.append(logprobs[-length - 1 : -1].gather(1, ids[-length:, None]).sum().item())
        scores.append(np.array(row))
    return scores


def cached_prefix(model, processor, dialog):
    """The usual improvement: the prompt of a round once, its keys and values repeated for every candidate."""
    from transformers import DynamicCache

    tokenizer = getattr(processor, "tokenizer", processor)
    scores = []
    for turn in dialog.rounds:
        messages = dialog_messages(dialog, upto=turn.round_id)
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = processor(
            text=[text], images=[[dialog.image()]], add_special_tokens=False, return_tensors="pt"
        )
        row = []
        for option in turn.options:
            cache = DynamicCache()
            ids = tokenizer([option + "<end_of_turn>"], add_special_tokens=False, return_tensors="pt")[
                "input_ids"
            ]
            with torch.no_grad():
                first = model(**inputs, past_key_values=cache, use_cache=True).logits[:, -1:]
                rest = model(input_ids=ids, past_key_values=cache, use_cache=True).logits
            logprobs = torch.cat([first, rest[:, :-1]], 1)[0].double().log_softmax(-1)
            row.append(logprobs.gather(1, ids[0][:, None]).sum().item())
        scores.append(np.array(row))
    return scores


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


def test_ragged_batch_in_one_go(seeing, tmp_path):
    """Dialogs of different lengths, one shaped like the test split, read together: as if read one by one."""
    shapes = [
        {"rounds": 1},
        {"rounds": 5, "only_last": True},
        {"rounds": 3, "options": 40},
        {"rounds": 1, "only_last": True},
    ]
    dialogs = [some_dialog(tmp_path, 10 + i, **shape) for i, shape in enumerate(shapes)]
    together = score_dialogs(*seeing, dialogs, batch_size=4)
    for dialog, ours in zip(dialogs, together, strict=True):
        assert_same(ours, naive(*seeing, dialog))
    alone = [score_dialogs(*seeing, [dialog])[0] for dialog in dialogs]
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
    monkeypatch.setattr(ranking, "_LOGITS_AT_ONCE", 3000)
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
    branch = ranking._trie([[5, 6, 1], [5, 7, 1], [5, 6, 1], [8, 1]], dialog=0, root=9)
    assert branch.tokens == [0, 5, 6, 1, 7, 1, 8, 1]
    assert branch.parents == [0, 0, 1, 2, 1, 4, 0, 6]
    assert branch.paths == [[1, 2, 3], [1, 4, 5], [1, 2, 3], [6, 7]]


def test_progress_counts_dialogs(seeing, tmp_path):
    dialogs = [some_dialog(tmp_path, i, rounds=1) for i in (30, 31, 32)]
    seen = []
    score_dialogs(*seeing, dialogs, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 3), (3, 3)]


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
    """One damaged token, which only the candidates of round 2 hold."""
    model, processor = load_model(tiny_model.build(tmp_path / "model"))
    [damaged] = processor.tokenizer("q", add_special_tokens=False)["input_ids"]
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    model.get_input_embeddings().weight.data[damaged] = float("nan")
    dialog = some_dialog(tmp_path, 41, rounds=2)
    second = dataclasses.replace(dialog.rounds[1], options=("q it", "q no"))
    dialog = dataclasses.replace(dialog, rounds=(dialog.rounds[0], second))
    with pytest.raises(UserError, match=r"dialog 41, round 2, option 0: the score is nan"):
        score_dialogs(model, processor, [dialog])


def test_dialog_longer_than_the_model(tmp_path):
    model, processor = load_model(tiny_model.build_text(tmp_path / "short", max_length=40))
    with pytest.raises(UserError, match=r"dialog 42, round \d+: \d+ tokens, the model reads 40"):
        score_dialogs(model, processor, [some_dialog(tmp_path, 42, rounds=6)])


def test_missing_image_is_named(seeing, tmp_path):
    dialog = some_dialog(tmp_path, 43)
    dialog.image_path.write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"dialog 43.*image"):
        score_dialogs(*seeing, [dialog])
