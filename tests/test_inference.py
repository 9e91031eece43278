"""Answers: the same alone and in a batch, ended at the end of the turn, and from a conversation typed by
hand."""

import copy
import dataclasses

import numpy as np
import pytest
import tiny_model
import torch
from PIL import Image

from visdial_lab.chat import dialog_messages, encode, pad
from visdial_lab.errors import UserError
from visdial_lab.inference import answer, answer_dialogs, answer_entries, parse_conversation
from visdial_lab.models import load_model
from visdial_lab.visdial import VisDial, without_history


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(tiny_model.build(tmp_path_factory.mktemp("vision"), seed=3))


@pytest.fixture
def dialogs(tiny):
    return VisDial.load(tiny, "val")[:2]


def greedy_by_hand(model, processor, dialog, round_id, limit):
    """One token at a time, the whole sequence read anew each time: no cache, no padding, no generate()."""
    encoded = encode(processor, dialog_messages(dialog, upto=round_id), dialog.image(), True)
    ids, types = encoded["input_ids"], encoded["token_type_ids"]
    end = processor.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    said = []
    while len(said) < limit:
        with torch.no_grad():
            logits = model(
                input_ids=ids[None], token_type_ids=types[None], pixel_values=encoded["pixel_values"][None]
            ).logits
        token = int(logits[0, -1].argmax())
        if token == end:
            break
        said.append(token)
        ids = torch.cat([ids, torch.tensor([token])])
        types = torch.cat([types, torch.tensor([0])])
    return processor.tokenizer.decode(said, skip_special_tokens=True).strip()


def test_greedy_answers_do_not_depend_on_batching(loaded, dialogs):
    expected = [
        [greedy_by_hand(*loaded, dialog, turn.round_id, 6) for turn in dialog.rounds] for dialog in dialogs
    ]
    for size in (1, 2, 16):
        assert answer_dialogs(*loaded, dialogs, max_new_tokens=6, batch_size=size) == expected
    assert answer_dialogs(*loaded, [dialogs[1]] * 2, max_new_tokens=6) == [expected[1]] * 2
    assert (
        len({text for texts in expected for text in texts}) > 1
    )  # a model that always says the same proves little


def test_the_beginnings_are_those_of_one_reading(scenes):
    """On the embedded model: as if every round had been read on its own, picture and all, by `generate`."""
    model, processor = load_model(scenes.parent / "gemma3-scenes")
    dialogs = VisDial.load(scenes, "val")[:2]
    pictures = []
    hook = model.model.vision_tower.register_forward_hook(lambda *call: pictures.append(len(call[2][0])))
    said = answer_dialogs(model, processor, dialogs)
    hook.remove()
    assert sum(pictures) == 2, "the picture is looked at once a dialog"
    end = processor.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    for dialog, texts in zip(dialogs, said, strict=True):
        for turn, text in list(zip(dialog.rounds, texts, strict=True))[::3]:
            prompt = encode(processor, dialog_messages(dialog, upto=turn.round_id), dialog.image(), True)
            batch = pad(processor, [prompt])
            new = model.generate(**batch, max_new_tokens=16, do_sample=False, eos_token_id=[end])
            new = new[0, batch["input_ids"].shape[1] :]
            assert processor.tokenizer.decode(new, skip_special_tokens=True).strip() == text
    assert len({text for texts in said for text in texts}) > 3


def test_an_adapter_that_is_not_merged(loaded, dialogs):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        copy.deepcopy(loaded[0]), LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    ).eval()
    expected = [greedy_by_hand(adapted, loaded[1], dialogs[0], n, 5) for n in (1, 2, 3)]
    assert answer_dialogs(adapted, loaded[1], dialogs[:1], max_new_tokens=5) == [expected]
    assert answer_dialogs(*loaded, dialogs[:1], max_new_tokens=5) != [expected]


@pytest.mark.parametrize("build", [tiny_model.build, tiny_model.build_text])
def test_entries_of_a_batch_are_answered_as_one_by_one(build, tmp_path, dialogs):
    model, processor = load_model(build(tmp_path / "m", seed=3))
    pictures = [str(dialog.image_path) for dialog in dialogs]
    entries = {
        4: {"image": pictures[0], "conversation": "Q: is it red?"},
        9: {
            "image": pictures[1],
            "conversation": "Q: a dog?\nA: yes it is\nQ: what color is the cat near it?",
        },
        2: {"image": pictures[0], "conversation": "Q: why", "caption": "two people by the lake"},
    }
    alone = {
        place: answer(
            *(model, processor, Image.open(entry["image"]), entry["conversation"], entry.get("caption")),
            max_new_tokens=7,
        )
        for place, entry in entries.items()
    }
    for size in (1, 2, 3):
        together = dict(answer_entries(model, processor, entries, size, max_new_tokens=7))
        assert together == alone and list(together) == [4, 9, 2]
    assert len(set(alone.values())) > 1


def test_an_entry_that_cannot_be_answered_is_named(loaded, tmp_path, dialogs):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    good = {"image": str(dialogs[0].image_path), "conversation": "Q: is it red?"}
    wrong = {
        r"\[7\]: .*damaged image": {"image": str(tmp_path / "bad.png")},
        r"\[7\]: the conversation has \d+ tokens; with 32 new": {"conversation": "Q: " + "is it red " * 400},
        r"\[7\]: .*give exactly one image": {"image": None},
        r"\[7\]: question 1 is empty": {"conversation": "Q: ?"},
    }
    for message, change in wrong.items():
        with pytest.raises(UserError, match=message):
            list(answer_entries(*loaded, {3: good, 7: good | change}))


def test_history_is_the_peoples(loaded, dialogs):
    """Round 2 is asked after the human answer to round 1, whatever the model said there."""
    dialog = dialogs[0]
    [said] = answer_dialogs(*loaded, [dialog], max_new_tokens=4)
    turns = [(turn.question, turn.answer) for turn in dialog.rounds[:1]] + [(dialog.rounds[1].question, None)]
    assert said[1] == answer(*loaded, dialog.image(), turns, caption=dialog.caption, max_new_tokens=4)


def test_stops_at_the_end_of_the_turn(tmp_path, dialogs):
    """A model made to say <end_of_turn> at once says nothing more."""
    model, processor = load_model(tiny_model.build(tmp_path / "m"))
    end = processor.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    head = model.lm_head.forward
    model.lm_head.forward = lambda states: head(states).index_fill(-1, torch.tensor([end]), 1.0)
    calls = []
    model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    assert answer_dialogs(model, processor, dialogs, max_new_tokens=50) == [[""] * 3] * 2
    assert len(calls) == 1


def test_sampling_is_seeded(loaded, dialogs):
    def said(seed, top_p=1.0):
        return answer_dialogs(*loaded, dialogs, temperature=3.0, top_p=top_p, seed=seed, max_new_tokens=8)

    assert said(1) == said(1) != said(2)
    greedy = answer_dialogs(*loaded, dialogs, max_new_tokens=8)
    assert said(5, top_p=1e-6) == greedy != said(1)  # a nucleus of one token is greedy


def test_blank_image_is_gray(loaded, dialogs):
    bright = Image.fromarray(np.full((24, 32, 3), (255, 0, 0), dtype=np.uint8))
    bright.save(dialogs[0].image_path)
    gray = dialogs[0].image_path.with_suffix(".png")
    Image.new("RGB", (32, 24), (128, 128, 128)).save(gray)
    blind = answer_dialogs(*loaded, dialogs, blank_image=True)
    assert blind[0] == answer_dialogs(*loaded, [dataclasses.replace(dialogs[0], image_path=gray)])[0]


def test_without_history_each_question_is_asked_as_the_first(loaded, dialogs):
    cut = answer_dialogs(*loaded, dialogs, history=False)
    alone = [answer_dialogs(*loaded, without_history(dialog)) for dialog in dialogs]
    assert cut == [[text for [text] in own] for own in alone]
    assert [len(texts) for texts in cut] == [len(dialog.rounds) for dialog in dialogs]
    assert cut != answer_dialogs(*loaded, dialogs)


def test_text_only_model_needs_no_picture(tmp_path, dialogs):
    model, processor = load_model(tiny_model.build_text(tmp_path / "t"))
    blindly = [dataclasses.replace(dialog, image_path=None) for dialog in dialogs]
    assert [len(texts) for texts in answer_dialogs(model, processor, blindly, max_new_tokens=2)] == [3, 3]
    assert isinstance(answer(model, processor, None, "Q: is it red?", max_new_tokens=2), str)


def test_progress_counts_dialogs(loaded, dialogs):
    seen = []
    answer_dialogs(
        *loaded, dialogs, max_new_tokens=1, batch_size=1, progress=lambda *count: seen.append(count)
    )
    assert seen == [(1, 2), (2, 2)]


def test_too_long_and_senseless_settings(tmp_path, loaded, dialogs):
    short = load_model(tiny_model.build_text(tmp_path / "s", max_length=30))
    with pytest.raises(
        UserError, match=r"the conversation has \d+ tokens; with 16 new ones the model reads 30"
    ):
        answer(*short, None, "Q: " + "is it red " * 20, max_new_tokens=16)
    for wrong in ({"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(UserError, match="expected at least 1"):
            answer(*loaded, dialogs[0].image(), "Q: is it?", **wrong)


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("Q: is it red?", [("is it red?", None)]),
        ("Q: a?\nA: yes\nQ: b?", [("a?", "yes"), ("b?", None)]),
        (r"Q: a?\nA: yes\nQ: b?", [("a?", "yes"), ("b?", None)]),
        ("\n q : a \r\n\n a: 3:15\n Q:b\n", [("a", "3:15"), ("b", None)]),
    ],
)
def test_conversations(text, turns):
    assert parse_conversation(text) == turns


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the last line should be the question"),
        ("Q: a?\nA: yes", "the last line should be the question"),
        ("A: yes", 'line 1: expected a line "Q: …"'),
        ("Q: a?\nQ: b?", 'line 2: expected a line "A: …"'),
        ("Q: a?\nA: yes\nA: no\nQ: b", 'line 3: expected a line "Q: …"'),
        ("Q: a?\nyes\nQ: b", 'line 2: should begin with "Q:" or "A:"'),
        ("Q:   \n", 'line 1: nothing after "Q:"'),
    ],
)
def test_malformed_conversations(text, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_conversation(text)
