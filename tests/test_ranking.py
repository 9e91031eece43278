"""One reading of the dialog must give the scores that a thousand readings give."""

import copy
import dataclasses
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from conftest import WORDS, some_dialog
from reference_ranking import cached_prefix, naive

from visdial_lab import ranking
from visdial_lab.chat import answer_ids
from visdial_lab.config import load_config
from visdial_lab.errors import UserError
from visdial_lab.forest import plant
from visdial_lab.models import load_base_for_training, load_model, load_processor
from visdial_lab.predictions import check_pictures
from visdial_lab.ranking import iter_scores, score_dialogs
from visdial_lab.visdial import Dialog, Round, VisDial, without_history


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


def test_without_history_each_round_is_as_a_dialog_of_its_own(seeing, text_only, tmp_path):
    for loaded, rounds in ((seeing, 4), (text_only, 3), (seeing, 1)):
        dialog = some_dialog(tmp_path, 30 + rounds, rounds=rounds)
        [cut], [whole] = score_dialogs(*loaded, [dialog], history=False), score_dialogs(*loaded, [dialog])
        alone = score_dialogs(*loaded, without_history(dialog))
        assert_same(cut, [row for [row] in alone])
        firsts = [dataclasses.replace(turn, round_id=1) for turn in dialog.rounds]
        firsts = [dataclasses.replace(dialog, rounds=(turn,)) for turn in firsts]
        assert_same(cut, [row for one in firsts for row in naive(*loaded, one)])
        np.testing.assert_allclose(cut[0], whole[0], atol=1e-4)  # nothing stood before the first round
        assert rounds == 1 or np.abs(cut[-1] - whole[-1]).max() > 0.01


def test_without_history_in_reminder_style_and_by_the_mean(seeing, tmp_path):
    dialog = some_dialog(tmp_path, 31)
    said = [f"<reminder>red {n}</reminder> dog" for n in range(len(dialog.rounds))]
    for options in ({}, {"length_normalised": True}):
        [cut] = score_dialogs(*seeing, [dialog], history=False, said=[said], **options)
        alone = score_dialogs(*seeing, without_history(dialog), said=[[text] for text in said], **options)
        np.testing.assert_allclose(cut, [row for [row] in alone], atol=1e-4)


def test_without_history_a_round_at_fault_is_named(seeing, tmp_path):
    dialog = some_dialog(tmp_path, 32)
    empty = dataclasses.replace(dialog.rounds[2], question=" ")
    spoilt = dataclasses.replace(dialog, rounds=(*dialog.rounds[:2], empty, dialog.rounds[3]))
    with pytest.raises(UserError, match="dialog 32: question 3"):
        score_dialogs(*seeing, [spoilt], history=False)


def test_dialogs_read_by_threads_are_scored_as_by_one(seeing, tmp_path):
    import torch

    dialogs = [some_dialog(tmp_path, 40 + n) for n in range(5)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = score_dialogs(*seeing, dialogs)
        torch.set_num_threads(3)
        together = score_dialogs(*seeing, dialogs)
        assert torch.get_num_threads() == 3, "as it was found"
    finally:
        torch.set_num_threads(before)
    for ours, expected in zip(together, alone, strict=True):
        assert_same(ours, expected)


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
    lengths = [len(ids) - 1 for ids in answer_ids(seeing[1], options)]
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


def test_text_only_model(text_only, tmp_path):
    dialog = some_dialog(tmp_path, 22)
    [ours] = score_dialogs(*text_only, [dialog])
    assert_same(ours, naive(*text_only, dialog))


def test_a_head_in_half_precision(text_only, tmp_path):
    """So Unsloth holds a model that trains in float16: all layers in float32, the head not."""
    model, processor = text_only
    halved = copy.deepcopy(model)
    halved.lm_head = torch.nn.Linear(*reversed(model.lm_head.weight.shape), bias=False, dtype=torch.float16)
    halved.lm_head.weight.data.copy_(model.lm_head.weight.data)
    dialog = some_dialog(tmp_path, 25)
    [ours], [whole] = score_dialogs(halved, processor, [dialog]), score_dialogs(*text_only, [dialog])
    np.testing.assert_allclose(np.concatenate(ours), np.concatenate(whole), atol=0.05, rtol=0)
    assert max(np.abs(row - other).max() for row, other in zip(ours, whole, strict=True)) > 0


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
    [without] = score_dialogs(*seeing, [dataclasses.replace(dialog, image_path=None)], blank_image=True)
    assert_same(ours, without)  # gray needs no photo


@pytest.mark.parametrize("image_dir", [None, Path("tests")])
def test_only_gray_pictures_can_be_ranked_without_photos(tmp_path, image_dir):
    dialogs = [dataclasses.replace(some_dialog(tmp_path, 24), image_path=None)]
    with pytest.raises(
        UserError, match=r"no pictures in .* for 1 dialog; .* --blank-image ranks without them"
    ):
        check_pictures("data/gemma3-scenes", dialogs, image_dir)
    check_pictures("data/gemma3-scenes", dialogs, image_dir, blank_image=True)


def test_length_normalised_is_the_mean(seeing, tmp_path):
    dialog = some_dialog(tmp_path, 25)
    [summed] = score_dialogs(*seeing, [dialog])
    [mean] = score_dialogs(*seeing, [dialog], length_normalised=True)
    lengths = [len(ids) for ids in answer_ids(seeing[1], dialog.rounds[0].options)]
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


# Every model that may come, and every way to call it.


def random_model(rng, seeing, text_only):
    """Gemma-3 of any shape: layers of one kind or both, windows shorter than the picture, biases, RoPE scaled
    as in the 4B model."""
    from transformers import Gemma3ForCausalLM, Gemma3ForConditionalGeneration, Gemma3Processor

    base, processor = seeing if rng.random() < 0.75 else text_only
    config, kind = copy.deepcopy(base.config), Gemma3ForCausalLM
    text = config.get_text_config()
    text.num_hidden_layers = rng.randint(1, 5)
    text.layer_types = rng.choices(["sliding_attention", "full_attention"], k=text.num_hidden_layers)
    text.num_key_value_heads = rng.choice([1, 2, 3])
    text.num_attention_heads = text.num_key_value_heads * rng.choice([1, 2, 4])
    text.head_dim, text.query_pre_attn_scalar = rng.choice([4, 8, 16]), rng.choice([4, 8, 30])
    text.sliding_window = rng.choice([1, 2, 3, 5, 8, 16, 33, 500])
    text.hidden_size, text.rms_norm_eps = rng.choice([16, 32, 48]), rng.choice([1e-6, 1e-3])
    text.attention_bias = rng.random() < 0.3
    if rng.random() < 0.5:
        scaled = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
        text.rope_parameters["full_attention"] = scaled
    if base is seeing[0]:
        kind, config.mm_tokens_per_image = Gemma3ForConditionalGeneration, rng.choice([1, 4, 16])
        parts = processor.image_processor, processor.tokenizer, processor.chat_template
        processor = Gemma3Processor(
            *parts[:2], chat_template=parts[2], image_seq_length=config.mm_tokens_per_image
        )
    model = kind(config)
    tiny_model._randomise(model, rng.randrange(1000), rng.choice([0.1, 0.15, 0.2]))
    return model.eval(), processor


def random_dialog(rng, folder, image_id):
    """Rounds with and without options; candidates of all lengths, some equal, some that begin another."""

    def some(longest):
        return " ".join(rng.choices(WORDS, k=rng.randint(1, longest)))

    dialog, turns = some_dialog(folder, image_id, rounds=rng.randint(1, 6)), []
    for turn in dialog.rounds:
        options = [some(rng.choice([1, 3, 8, 25])) for _ in range(rng.randint(1, 15))]
        for old in rng.choices(options, k=rng.randint(0, 8)):
            options.append(
                rng.choice([old, f"{old} {some(3)}", f"{old}s", old[: len(old) // 2].strip() or "x"])
            )
        open_end = len(turns) == len(dialog.rounds) - 1 and rng.random() < 0.5
        given = None if rng.random() < 0.25 else tuple(options)
        turns.append(Round(turn.round_id, some(8), None if open_end else some(20), given, None, None))
    return dataclasses.replace(dialog, caption=some(30), rounds=tuple(turns))


def test_random_models_dialogs_and_pieces(seeing, text_only, tmp_path, monkeypatch):
    for seed in range(12):
        rng = random.Random(seed)
        model, processor = random_model(rng, seeing, text_only)
        dialogs = [random_dialog(rng, tmp_path, 10 * seed + n) for n in range(rng.randint(1, 3))]
        monkeypatch.setattr(ranking, "_ROW", {"cpu": rng.choice([1, 8, 40, 256])})
        monkeypatch.setattr(ranking, "_LOGITS", rng.choice([1, 3000, 2**26]))
        monkeypatch.setitem(ranking._ENOUGH, "cpu", rng.choice([1, 64, 512, 10**6]))
        for dialog, ours in zip(dialogs, score_dialogs(model, processor, dialogs), strict=True):
            slow = naive(model, processor, dialog, at_once=20)
            assert [row is None for row in ours] == [row is None for row in slow]
            for row, expected in zip(ours, slow, strict=True):
                if row is not None:
                    np.testing.assert_allclose(row, expected, atol=1e-4, rtol=0, err_msg=f"seed {seed}")


@pytest.mark.parametrize("seed", [1, 2])
def test_adapter_that_is_not_merged(seeing, tmp_path, seed):
    """LoRA on every matrix, the vision tower's too, as after training in the same notebook."""
    from peft import LoraConfig, get_peft_model

    model, processor = copy.deepcopy(seeing[0]), seeing[1]
    dialog = some_dialog(tmp_path, 50 + seed)
    [plain] = score_dialogs(model, processor, [dialog])
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.5)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    [ours] = score_dialogs(model, processor, [dialog])
    assert_same(ours, naive(model, processor, dialog))
    assert np.abs(ours[0] - plain[0]).max() > 0.1
    with model.disable_adapter():
        assert_same(score_dialogs(model, processor, [dialog])[0], plain)


def test_packed_to_four_bits(seeing, tmp_path):
    """NF4 as it is trained on, not unpacked."""
    import bitsandbytes as bnb

    base = tmp_path / "base"
    for part in seeing:
        part.save_pretrained(base)
    processor = load_processor(base)
    model = load_base_for_training(load_config(overrides={"model.name": str(base)}), processor)
    assert isinstance(model.get_decoder().layers[0].mlp.up_proj, bnb.nn.Linear4bit)
    dialog = some_dialog(tmp_path, 53)
    [ours] = score_dialogs(model, processor, [dialog])
    assert_same(ours, naive(model, processor, dialog))
    assert np.abs(ours[0] - score_dialogs(*seeing, [dialog])[0][0]).max() > 0.01


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("final_logit_softcapping", 30.0),
        ("attn_logit_softcapping", 50.0),
        ("hidden_activation", "silu"),
        ("use_bidirectional_attention", True),
    ],
)
def test_what_the_arithmetic_leaves_out_is_refused(text_only, tmp_path, monkeypatch, name, value):
    monkeypatch.setattr(text_only[0].config, name, value)
    with pytest.raises(UserError, match=f"config.json of the model: {name} is {value}"):
        score_dialogs(*text_only, [some_dialog(tmp_path, 54)])


def out_of_memory_beyond(monkeypatch, dialogs, tokens):
    """A device that can read no more than so many dialogs, or tokens of them, at once; returns the tries."""
    read, tries = ranking._read, []

    def limited(model, processor, forests, at_once, fast):
        tries.append((len(forests), at_once))
        if len(forests) > dialogs or at_once > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return read(model, processor, forests, at_once, fast)

    monkeypatch.setattr(ranking, "_read", limited)
    monkeypatch.setattr(ranking, "_READERS", 1)  # as on a GPU
    monkeypatch.setitem(ranking._ROW, "cpu", 256)
    monkeypatch.setitem(ranking._ENOUGH, "cpu", 4096)
    return tries


@pytest.mark.parametrize(("most", "tokens"), [(1, 4096), (2, 4096), (3, 300)])
def test_out_of_memory_halves_and_says_so_once(seeing, tmp_path, monkeypatch, most, tokens):
    dialogs = [some_dialog(tmp_path, 60 + n) for n in range(7)]
    expected = score_dialogs(*seeing, dialogs)
    tries = out_of_memory_beyond(monkeypatch, most, tokens)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scores = score_dialogs(*seeing, dialogs)
    assert len([notice for notice in said if "memory is full" in str(notice.message)]) == 1
    assert tries[0] == (7, 4096), "all at once was too much"
    for ours, other in zip(scores, expected, strict=True):
        assert_same(ours, other)


def test_out_of_memory_where_nothing_can_be_halved(seeing, tmp_path, monkeypatch):
    tries = out_of_memory_beyond(monkeypatch, 0, 0)
    with pytest.warns(UserWarning, match="memory is full"), pytest.raises(torch.OutOfMemoryError):
        score_dialogs(*seeing, [some_dialog(tmp_path, n) for n in (70, 71)])
    assert tries == [(2, 4096), (1, 2048), (1, 1024), (1, 512), (1, 256)]  # 256: a row


def in_processes(monkeypatch):
    """Prepare dialogs as for a GPU, in other processes."""
    loader = torch.utils.data.DataLoader
    monkeypatch.setattr(
        "torch.utils.data.DataLoader", lambda *given, **named: loader(*given, **named | {"num_workers": 2})
    )


@pytest.mark.parametrize("processes", [False, True])
def test_bad_among_good(seeing, tmp_path, monkeypatch, processes):
    good = [some_dialog(tmp_path, n) for n in (80, 81, 82)]
    expected = score_dialogs(*seeing, good)
    lost = dataclasses.replace(some_dialog(tmp_path, 83), image_path=None)
    broken = some_dialog(tmp_path, 84)
    broken.image_path.write_bytes(b"not a picture")
    empty = with_options(some_dialog(tmp_path, 85), ("yes", " "))
    long = dataclasses.replace(some_dialog(tmp_path, 86), caption="dog " * 2000)
    dialogs, bad = [lost, good[0], empty, good[1], long, broken, good[2]], {}
    if processes:
        in_processes(monkeypatch)
    monkeypatch.setitem(ranking._ENOUGH, "cpu", 10**4)
    scores = score_dialogs(*seeing, dialogs, on_bad=lambda number, error: bad.update({number: str(error)}))
    assert list(bad) == [0, 2, 4, 5] and all(f"dialog {dialogs[n].image_id}" in bad[n] for n in bad)
    assert "option 1 is empty" in bad[2] and "tokens, the model reads 1024" in bad[4]
    assert [scores[n] for n in bad] == [[]] * 4
    for number, other in zip((1, 3, 6), expected, strict=True):
        assert_same(scores[number], other)


@pytest.mark.parametrize("together", [1, 10**4])
def test_the_first_bad_dialog_loses_nothing_that_is_finished(seeing, tmp_path, monkeypatch, together):
    """Dialogs before it are all yielded, whether their batches were collected, pending or being filled."""
    monkeypatch.setitem(ranking._ENOUGH, "cpu", together)
    dialogs = [some_dialog(tmp_path, n) for n in range(60, 65)]
    dialogs[3] = dataclasses.replace(dialogs[3], image_path=None)
    found = []
    with pytest.raises(UserError, match="dialog 63: no image"):
        for number, _ in iter_scores(*seeing, dialogs):
            found.append(number)
    assert found[:3] == [0, 1, 2]


def test_a_score_that_is_no_number_costs_no_other_dialog(seeing, tmp_path, monkeypatch):
    monkeypatch.setitem(ranking._ENOUGH, "cpu", 10**4)
    dialogs = [some_dialog(tmp_path, n) for n in range(3)]
    real = ranking._scores

    def broken(dialog, *arguments):
        if dialog.image_id == 0:
            raise UserError("dialog 0: the score is nan")
        return real(dialog, *arguments)

    monkeypatch.setattr(ranking, "_scores", broken)
    found = []
    with pytest.raises(UserError, match="the score is nan"):
        for number, _ in iter_scores(*seeing, dialogs):
            found.append(number)
    assert found == [1, 2]


def test_dropout_is_off_and_the_model_left_as_it_was(tmp_path):
    from peft import LoraConfig, get_peft_model

    model, processor = load_model(tiny_model.build(tmp_path / "m"))
    config = LoraConfig(
        r=4, lora_dropout=0.9, init_lora_weights=False, target_modules=["q_proj", "down_proj"]
    )
    model = get_peft_model(model, config)
    dialogs = [some_dialog(tmp_path, 1)]
    model.eval()
    expected = score_dialogs(model, processor, dialogs)
    model.train()
    model.get_base_model().lm_head.eval()  # someone's own choice for one module
    before = [module.training for module in model.modules()]
    assert_same(score_dialogs(model, processor, dialogs)[0], expected[0])
    assert [module.training for module in model.modules()] == before and any(before) and not all(before)


def test_random_numbers_of_the_caller_stay_untouched(seeing, tmp_path, monkeypatch):
    dialogs = [some_dialog(tmp_path, n, rounds=1) for n in (90, 91)]
    for _ in range(2):
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        score_dialogs(*seeing, dialogs)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
        in_processes(monkeypatch)


def test_scores_do_not_depend_on_the_company(seeing, tmp_path, monkeypatch):
    dialogs = [some_dialog(tmp_path, 100 + n, rounds=1 + n, longest=1 + 3 * n) for n in range(4)]
    alone = [score_dialogs(*seeing, [dialog])[0] for dialog in dialogs]
    monkeypatch.setitem(ranking._ENOUGH, "cpu", 10**6)
    for order in ((0, 1, 2, 3), (3, 1, 0), (2, 0)):
        together = score_dialogs(*seeing, [dialogs[n] for n in order])
        for number, ours in zip(order, together, strict=True):
            assert_same(ours, alone[number])


@pytest.mark.slow
def test_embedded_model_on_fifty_dialogs(scenes):
    """The proof on a trained model: every option of 50 dialogs, two of them read anew for each candidate."""
    model, processor = load_model(scenes.parent / "gemma3-scenes")
    dialogs = VisDial.load(scenes / "visdial_1.0_val.json")[:50]
    for number, (dialog, ours) in enumerate(
        zip(dialogs, score_dialogs(model, processor, dialogs), strict=True)
    ):
        assert_same(ours, cached_prefix(model, processor, dialog))
        if number < 2:
            assert_same(ours, naive(model, processor, dialog, at_once=20))
