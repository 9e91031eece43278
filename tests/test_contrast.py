"""Candidates in the same forward pass as the dialog: their scores, what attends to what, what is learnt."""

import functools
import json

import numpy as np
import pytest
import tiny_model
import torch
from tiny_training import QUICK, Stop, curve, quick_config, weights

from visdial_lab import contrast
from visdial_lab.chat import IGNORED, answer_ids, collator
from visdial_lab.config import load_config
from visdial_lab.contrast import add_trees, candidate_scores, masks, read_trees
from visdial_lab.errors import UserError
from visdial_lab.finetune import finetune
from visdial_lab.generation import records
from visdial_lab.models import load_model
from visdial_lab.negatives import WrongAnswers
from visdial_lab.ranking import score_dialogs
from visdial_lab.visdial import VisDial

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = QUICK | {
    "model.load_in_4bit": False,
    "training.per_device_train_batch_size": 2,
    "training.num_train_epochs": 3,
    "training.save_steps": 2,
    "training.negatives": 5,
}
settings = functools.partial(quick_config, SMALL)


def with_options(processor, batch, dialogs):
    """The dialogs' own 100 options as candidates of every round."""
    candidates = [
        {place: answer_ids(processor, turn.options) for place, turn in enumerate(dialog.rounds)}
        for dialog in dialogs
    ]
    return add_trees(processor, batch, candidates)


@pytest.mark.parametrize("kind", ["tiny with a picture", "tiny text", "embedded"])
def test_scores_are_those_of_ranking(course, scenes, kind):
    """One forward pass over dialogs and trees against the ranking engine, which reads the trunk first."""
    folder, data, some = "base", course, slice(3)
    if kind == "tiny text":
        folder = tiny_model.build_text(course / "text")
    if kind == "embedded":
        folder, data, some = scenes.parent / "gemma3-scenes", scenes, slice(2)
    model, processor = load_model(folder, load_in_4bit=False)
    visdial = VisDial.load(data, "val")[some]
    dialogs, rows = list(visdial), list(records(visdial))
    expected = np.concatenate([np.stack(scores) for scores in score_dialogs(model, processor, dialogs)])
    batch = with_options(processor, collator(processor)(rows), dialogs)
    read_trees(model)
    with torch.no_grad():
        found = model(**{key: value for key, value in batch.items() if key != "labels"}).candidate_scores
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() < 2e-4
    assert np.array_equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("kind", ["pictured", "text"])
def test_what_the_dialog_sees_is_as_without_trees(course, rows, kind):
    """transformers' own masks give the same hidden states, picture and window included, and the same loss."""
    folder = course / "base" if kind == "pictured" else tiny_model.build_text(course / "text")
    model, processor = load_model(folder)
    plain = collator(processor)(rows[:2])
    length = plain["input_ids"].shape[1]
    assert length > 2 * model.config.get_text_config().sliding_window
    wrong = WrongAnswers(rows, 4, seed=0)
    both = contrast.Candidates(processor, wrong)(plain, [0, 1])
    assert both["input_ids"].shape == both["labels"].shape == both["position_ids"].shape
    assert (both["labels"][:, length:] == IGNORED).all() and both["input_ids"].shape[1] % 8 == 0
    assert len(both["tree"]["paths"]) == 6 and both["tree"]["paths"].shape[1] == 5
    usual = model(**plain, output_hidden_states=True)
    read_trees(model)
    found = model(**both, output_hidden_states=True)
    same = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
    real = plain["attention_mask"].bool()
    same(found.hidden_states[-1][:, :length][real], usual.hidden_states[-1][real])
    same(found.loss, usual.loss)
    assert "candidate_scores" not in model(**plain)


def test_masks_column_by_column():
    """A dialog of 4 columns, a picture in 1 and 2; nodes 4 → 5 behind column 2, node 6 behind column 3."""
    tree = {
        "roots": torch.tensor([[2, 2, 3]]),
        "ancestors": torch.tensor([[[0, 0], [1, 0], [2, 2]]]),
    }
    positions = torch.tensor([[0, 1, 2, 3, 3, 4, 4]])
    pictured = torch.tensor([[False, True, True, False, False, False, False]])
    config = type("Config", (), {"sliding_window": 3})
    found = masks(config, positions, tree, pictured)
    full = ["1000000", "1110000", "1110000", "1111000", "1110100", "1110110", "1111001"]
    near = ["1000000", "1110000", "1110000", "0111000", "0110100", "0010110", "0011001"]
    for kind, expected in (("full_attention", full), ("sliding_attention", near)):
        assert ["".join(map(str, row)) for row in found[kind][0, 0].int().tolist()] == expected, kind


def test_logits_in_pieces_give_the_same_scores_and_gradients(course, rows, monkeypatch):
    model, processor = load_model("base")
    batch = contrast.Candidates(processor, WrongAnswers(rows, 6, seed=0))(collator(processor)(rows), range(4))
    hidden = torch.randn(*batch["input_ids"].shape, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for numbers in (2**26, 1, 7 * len(model.lm_head.weight)):
        monkeypatch.setattr(contrast, "_LOGITS", numbers)
        given = hidden.clone().requires_grad_()
        scores = candidate_scores(model.lm_head, given, batch["tree"])
        scores.log_softmax(-1)[:, 0].mean().backward()
        found.append((scores.detach(), given.grad))
    for scores, gradient in found[1:]:
        torch.testing.assert_close(scores, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])
    one = batch["tree"]["paths"][0, 0]  # the human answer, by hand
    words, states = batch["tree"]["words"], batch["tree"]["states"]
    logits = model.lm_head(hidden.flatten(0, 1)).log_softmax(-1)
    by_hand = sum(logits[states[n - 1], words[n - 1]] for n in one.tolist() if n)
    torch.testing.assert_close(found[0][0][0, 0], by_hand)


def test_only_learnt_rounds_have_candidates(course):
    single = list(records(VisDial.load(course, "train"), rounds="last"))
    _, processor = load_model("base")
    batch = contrast.Candidates(processor, WrongAnswers(single, 3, seed=0))(
        collator(processor)(single[:2]), [0, 1]
    )
    assert len(batch["tree"]["paths"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_training_equals_an_unbroken_one(course, rows, workers):
    """Dropout on, stopped in the second of three epochs; wrong answers drawn here or by a worker."""
    val = VisDial.load(course, "val")[:2]
    mine = settings(peft__lora_dropout=0.1, training__dataloader_num_workers=workers)
    unbroken = finetune(settings(peft__lora_dropout=0.1), rows, "unbroken", val)

    def stop(now, *_):
        if now == 4:
            raise Stop

    with pytest.raises(Stop):
        finetune(mine, rows, "broken", val, on_log=stop)
    resumed = finetune(mine, rows, "broken", val)
    assert curve(resumed) == curve(unbroken)
    assert weights(course / "broken") == weights(course / "unbroken")
    first = [row["contrastive_loss"] for row in unbroken["history"] if "loss" in row]
    assert len(first) == 6 and all(value > 0 for value in first)
    notes = json.loads((course / "broken" / "lab.json").read_text())
    assert notes["made_from"]["training.negatives"] == 5


def test_accumulated_steps_and_checkpointing(course, rows):
    """2 × 2 gives the losses of 1 × 4, and activations made again those of activations kept."""
    plain = dict(training__num_train_epochs=2, training__save_steps=None, training__logging_steps=1)
    large = finetune(settings(**plain, training__per_device_train_batch_size=4), rows, "large")
    small = finetune(settings(**plain, training__gradient_accumulation_steps=2), rows, "small")
    again = settings(**plain, training__per_device_train_batch_size=4, model__use_gradient_checkpointing=True)
    again = finetune(again, rows, "again")
    for key in ("loss", "answer_loss", "contrastive_loss", "grad_norm"):
        expected = [row[key] for row in large["history"]]
        for made in (small, again):
            assert [row[key] for row in made["history"]] == pytest.approx(expected, rel=1e-2), key


def test_the_loss_is_the_sum_of_both_parts(course, rows):
    """The same first step without wrong answers and with two weights."""
    once = dict(training__max_steps=1, training__save_steps=None)
    losses = {}
    for name, change in {
        "off": {"training__negatives": 0},
        "one": {},
        "half": {"training__contrastive_weight": 0.5},
    }.items():
        losses[name] = finetune(settings(**once, **change), rows, name)["history"][0]
    part = losses["one"]["contrastive_loss"]
    assert "contrastive_loss" not in losses["off"] and losses["half"]["contrastive_loss"] == part
    assert losses["one"]["answer_loss"] == pytest.approx(losses["off"]["loss"], rel=1e-5)
    assert losses["one"]["loss"] == pytest.approx(losses["off"]["loss"] + part, rel=1e-4)
    assert losses["half"]["loss"] == pytest.approx(losses["off"]["loss"] + part / 2, rel=1e-4)


@pytest.mark.slow
def test_it_is_learnt(course, scenes):
    """On the embedded scenes: a dozen steps, and the human answer is told from four others better."""
    visdial = VisDial.load(scenes, "train")[:12]
    quick = {
        "training.negatives": 4,
        "training.max_steps": 12,
        "training.save_steps": None,
        "training.warmup_steps": 0,
        "training.logging_steps": 1,
        "training.num_train_epochs": 4,
        "model.name": str(scenes.parent / "gemma3-scenes"),
    }
    made = finetune(load_config("scenes", quick), list(records(visdial)), course / "adapter")
    values = [row["contrastive_loss"] for row in made["history"]]
    assert np.mean(values[-3:]) < 0.8 * np.mean(values[:3]), values


def test_refusals(course, rows):
    with pytest.raises(UserError, match=r"training.negatives needs generation.style plain"):
        finetune(settings(generation__style="reminder"), rows, "adapter")
    with pytest.raises(UserError, match=r"negatives is 99, but the records have \d+ different answers"):
        finetune(settings(training__negatives=99), rows, "adapter")
    with pytest.raises(UserError, match=r"training.negatives: expected a number up to 99"):
        settings(training__negatives=100)
    with pytest.raises(UserError, match="contrastive_weight: expected a number above 0"):
        settings(training__contrastive_weight=0)
