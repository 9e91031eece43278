"""The reminder style: the tag, the teacher that writes reminders, a model that recalls first."""

import dataclasses
import json
import random
import re
import shutil
import zlib

import numpy as np
import pytest
from conftest import some_dialog
from reference_ranking import inputs, naive, prompts

from visdial_lab import chat, inference, teacher
from visdial_lab.chat import CLOSE, OPEN, join_reminder, said_fields, split_reminder, tokenizer_of
from visdial_lab.errors import UserError
from visdial_lab.files import read_json, write_json
from visdial_lab.generation import read_records, records, scene_kinds, write_records
from visdial_lab.inference import answer, answer_dialogs
from visdial_lab.models import answer_style
from visdial_lab.predictions import predictions, rank_dialogs
from visdial_lab.ranking import score_dialogs
from visdial_lab.reminding import iter_recalled_scores
from visdial_lab.submission import write_submission
from visdial_lab.teacher import reminders
from visdial_lab.visdial import VisDial

# --- the tag


def test_a_reminder_is_read_back_as_it_was_written():
    said = join_reminder("it = the dog; she = woman in blue", "brown")
    assert said == "<reminder>it = the dog; she = woman in blue</reminder> brown"
    assert split_reminder(said) == ("it = the dog; she = woman in blue", "brown")
    assert join_reminder(" it =\n the  dog ", " brown ") == "<reminder>it = the dog</reminder> brown"
    assert split_reminder("yes, it is") == (None, "yes, it is")
    assert split_reminder(" <reminder> it </reminder>\nyes ") == ("it", "yes")
    assert split_reminder("a < b") == (None, "a < b")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("<reminder>it = the dog", "not closed"),
        ("<reminder></reminder> yes", "nothing in the reminder"),
        ("<reminder>it</reminder>", "no answer"),
        ("<reminder>a</reminder><reminder>b</reminder> yes", "expected one"),
        ("<reminder>a</reminder> yes</reminder>", "expected one"),
        ("it is </reminder> yes", "expected one"),
        ("well <reminder>a</reminder> yes", "before the answer"),
        ("<reminder>a <b> c</reminder> yes", "angle bracket"),
        ("</reminder><reminder> yes", "before the answer"),
    ],
)
def test_a_malformed_reminder_is_refused_with_its_reason(text, reason):
    with pytest.raises(UserError, match=reason):
        split_reminder(text)


@pytest.mark.parametrize(
    "reminder, answer", [("", "yes"), ("a", " "), ("a < b", "yes"), (f"a{CLOSE} b", "yes"), ("a", f"{OPEN}b")]
)
def test_what_could_not_be_read_back_is_not_written(reminder, answer):
    with pytest.raises(UserError):
        join_reminder(reminder, answer)


def test_any_mixture_of_tags_and_words_is_split_or_refused():
    rng, pieces = random.Random(0), [OPEN, CLOSE, "yes", " ", "\n", "<", ">", "it = dog", "<end_of_turn>"]
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randrange(7)))
        try:
            reminder, answer = split_reminder(text)
        except UserError:
            continue
        assert OPEN not in answer and CLOSE not in answer
        if reminder is not None:
            assert split_reminder(join_reminder(reminder, answer)) == (" ".join(reminder.split()), answer)


# --- the teacher


def heard(dialog) -> list[tuple[str, str]]:
    return [(turn.question, turn.answer) for turn in dialog.rounds]


@pytest.fixture(scope="module")
def taught(scenes):
    """(dialog, kinds, its reminders) for every val dialog."""
    val = VisDial.load(scenes, "val")
    kinds = scene_kinds(val)
    return [(d, kinds[d.image_id], reminders(kinds[d.image_id], d.caption, heard(d))) for d in val]


def test_a_dialog_as_the_teacher_hears_it():
    turns = [
        ("is the dog on the left", "yes"),
        ("is it big or small", "pretty small"),
        ("is there a balloon", "looks like it"),
        ("what color are the man's pants", "they look white"),
        ("is he holding anything", "yes, a flag"),
        ("what color is it", "can't tell"),
        ("what color is the dog", "brown"),
        ("and the tree", "green i think"),
        ("where is he", None),
    ]
    assert reminders(["dog", "man", "tree", "balloon"], "a man in a yellow shirt on a street", turns) == [
        "nothing",
        "is the dog big or small? the dog, on the left",
        "on a street",
        "the man, yellow shirt",
        "is the man holding anything? the man, yellow shirt, white pants",
        "what color is the flag the man is holding? the man, yellow shirt, white pants, holding a flag",
        "the dog, on the left, small",
        "what color is the tree?",
        "where is the man? the man, yellow shirt, white pants, holding a flag",
    ]


def test_words_the_teacher_does_not_know_do_no_harm():
    rng = random.Random(0)
    words = [
        "the",
        "dog",
        "it",
        "his",
        "hat",
        "and",
        "what about",
        "is",
        "how many",
        "what color",
        "other one",
    ]
    for _ in range(2000):
        turns = [(" ".join(rng.choices(words, k=rng.randrange(1, 6))), rng.choice(words)) for _ in range(4)]
        turns[0] = (rng.choice(["how many", "what color", "and the dog", "what about it", "is it"]), "no")
        given = reminders(["dog", "man"], " ".join(rng.choices(words, k=5)), turns)
        assert all(split_reminder(join_reminder(text, "yes"))[0] == text for text in given)
        assert max(map(len, given)) < 400


def test_a_reminder_knows_no_answer_from_its_round_on(taught):
    rng, everything = random.Random(0), [turn for d, _, _ in taught for turn in heard(d)]
    for dialog, kinds, given in taught:
        turns = heard(dialog)
        for r in range(len(turns)):
            later = [rng.choice(everything) for _ in turns[r + 1 :]]
            other = [*turns[:r], (turns[r][0], rng.choice(everything)[1]), *later]
            assert reminders(kinds, dialog.caption, other)[: r + 1] == given[: r + 1]


def test_the_truth_tells_the_teacher_nothing_but_kinds(scenes, tmp_path):
    val = VisDial.load(scenes, "val")
    shutil.copy(val.path, tmp_path)
    truth = json.loads((scenes / "truth_val.json").read_text())
    for note in truth:
        note["scene"] = {"things": [{"kind": thing["kind"]} for thing in note["scene"]["things"]]}
        del note["rounds"]
    (tmp_path / "truth_val.json").write_text(json.dumps(truth))
    blind = VisDial.load(tmp_path, "val")
    for row, other in zip(records(val, style="reminder"), records(blind, style="reminder"), strict=True):
        assert row["messages"] == other["messages"]


def test_no_reminder_names_a_colour_that_was_not_said_before(taught):
    told = 0
    for dialog, _, given in taught:
        said = dialog.caption
        for turn, reminder in zip(dialog.rounds, given, strict=True):
            said += f" {turn.question}"
            colors = re.findall(teacher._COLOR, reminder)
            assert all(color in said for color in colors)
            told += len(colors)
            said += f" {turn.answer}"
    assert told > 500


def test_follow_ups_are_spelt_out_as_the_recipe_meant_them(monkeypatch):
    """The recipe knows each follow-up's full question. Where the teacher's differs, the name does."""
    import build_scenes
    import dialogs

    asked, ask = [], dialogs._ask
    monkeypatch.setattr(dialogs, "_ask", lambda *given: asked.append(ask(*given)) or asked[-1])
    right = total = words = rounds = 0
    for index in range(150):
        asked.clear()
        scene, caption, turns = build_scenes.make_dialog("val", index)
        kinds = [thing["kind"] for thing in scene["things"]]
        given = reminders(kinds, caption, [(turn.question, turn.answer) for turn in turns])
        for reminder, (_, fact, follow_up) in zip(given, asked, strict=True):
            words, rounds = words + len(reminder.split()), rounds + 1
            total += follow_up
            right += follow_up and reminder.split("?")[0] == fact.named
    assert total > 600 and right / total > 0.95
    assert words / rounds < 9


def test_records_in_reminder_style(scenes, tiny, tmp_path):
    val = VisDial.load(scenes, "val")
    plain = list(records(val, sample_count=20))
    for row, before in zip(records(val, sample_count=20, style="reminder"), plain, strict=True):
        assert {key: row[key] for key in row if key != "messages"} == {
            key: before[key] for key in before if key != "messages"
        }
        for message, human in zip(row["messages"], before["messages"], strict=True):
            [*_, part], [*_, own] = message["content"], human["content"]
            if message["role"] == "user":
                assert message == human
            else:
                reminder, answer = split_reminder(part["text"])
                assert reminder and answer == own["text"]
    write_records(tmp_path / "records.jsonl", val, sample_count=20, style="reminder")
    assert len(read_records(tmp_path / "records.jsonl")) == 20
    with pytest.raises(UserError, match=r"truth_val\.json is not beside the dialogs"):
        list(records(VisDial.load(tiny, "val"), style="reminder"))


# --- a model that recalls before it answers


SAID = [
    "<reminder>it is the red dog</reminder> yes",
    "<reminder>nothing yet</reminder> no",
    "yes it is",  # no reminder in this round
    "<reminder>the house: blue",  # nor in this one: it never ends
    "<reminder>the man: near the lake</reminder> two",
]


@pytest.mark.parametrize("kind", ["seeing", "text_only"])
def test_a_candidate_is_scored_behind_the_models_own_reminder(kind, request, tmp_path):
    """As the textbook does it, for rounds with and without a reminder, also when the last has (not) one."""
    model, processor = request.getfixturevalue(kind)
    for said in (SAID, SAID[1:] + SAID[:1], SAID[3:] + SAID[:3]):
        dialog = some_dialog(tmp_path, 7, rounds=5)
        recalled = [said_fields(text).get("reminder") for text in said]
        expected = naive(model, processor, dialog, reminders=recalled)
        [found] = score_dialogs(model, processor, [dialog], said=[said])
        for own, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(own, wanted, atol=2e-5)
        [plain] = score_dialogs(model, processor, [dialog])
        assert not np.allclose(plain[-1], found[-1], atol=1e-2)


def test_dialogs_with_reminders_are_ranked_in_any_company(seeing, tmp_path):
    dialogs = [some_dialog(tmp_path, n, rounds=2 + n) for n in range(1, 4)]
    said = [SAID[: len(dialog.rounds)] for dialog in dialogs]
    together = score_dialogs(*seeing, dialogs, said=said)
    for dialog, own, found in zip(dialogs, said, together, strict=True):
        [alone] = score_dialogs(*seeing, [dialog], said=[own])
        for row, other in zip(found, alone, strict=True):
            np.testing.assert_allclose(row, other, atol=2e-5)


def slowly(model, processor, dialog, room):
    """What the model says in each round, everything read anew for each: what the engine must agree with."""
    texts, own = [], [None] * len(dialog.rounds)
    for place in range(len(dialog.rounds)):
        batch = inputs(processor, [prompts(dialog, own)[place]], dialog.image())
        end = tokenizer_of(processor).convert_tokens_to_ids("<end_of_turn>")
        found = model.generate(**batch, max_new_tokens=room, do_sample=False, eos_token_id=end)
        new = found[0, batch["input_ids"].shape[1] :]
        texts.append(tokenizer_of(processor).decode(new, skip_special_tokens=True).strip())
        own[place] = chat.said_fields(texts[-1]).get("reminder")
    return texts


@pytest.fixture
def recalling(monkeypatch):
    """Random weights write no tags: here whatever the model says counts as a reminder with an answer."""
    monkeypatch.setattr(inference, "_REMINDER_TOKENS", 6)

    def fields(text):
        words = re.sub("[<>]", "", text).split()
        return {"answer": text} | ({"reminder": " ".join(words[:3])} if zlib.crc32(text.encode()) % 2 else {})

    monkeypatch.setattr(chat, "said_fields", fields)


@pytest.mark.parametrize("kind", ["seeing", "text_only"])
def test_own_reminders_stand_in_the_history(kind, recalling, request, tmp_path):
    """Dialogs of different lengths at once, keys and values kept: the same as one by one, read anew."""
    model, processor = request.getfixturevalue(kind)
    dialogs = [some_dialog(tmp_path, n, rounds=rounds) for n, rounds in ((3, 2), (4, 5), (5, 3))]
    said = answer_dialogs(model, processor, dialogs, max_new_tokens=4, batch_size=3, style="reminder")
    assert said == [slowly(model, processor, dialog, room=10) for dialog in dialogs]
    own = [chat.said_fields(text).get("reminder") for texts in said for text in texts]
    assert None in own and any(own)
    turns = [(turn.question, turn.answer) for turn in dialogs[1].rounds]
    turns[-1] = (turns[-1][0], None)
    options = {"caption": dialogs[1].caption, "max_new_tokens": 4, "style": "reminder"}
    assert answer(model, processor, dialogs[1].image(), turns, **options) == said[1][-1]


def test_a_dialog_too_long_with_its_reminders_is_named(seeing, tmp_path):
    dialog = some_dialog(tmp_path, 9, rounds=3)
    with pytest.raises(UserError, match=r"dialog 9: .* with 1016 new ones the model reads 1024"):
        answer_dialogs(*seeing, [dialog], max_new_tokens=920, style="reminder")


def test_bad_dialogs_are_named_and_the_others_ranked(seeing, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "_REMINDER_TOKENS", 4)
    dialogs = [some_dialog(tmp_path, n, rounds=2) for n in range(1, 5)]
    dialogs[1] = dataclasses.replace(dialogs[1], image_path=tmp_path / "none.png")
    bad = {}
    found = list(iter_recalled_scores(*seeing, dialogs, on_bad=bad.__setitem__))
    assert [number for number, _, _ in found] == [0, 2, 3]
    assert list(bad) == [1] and "none.png" in str(bad[1])
    for number, scores, said in found:
        [expected] = score_dialogs(*seeing, [dialogs[number]], said=[said])
        for own, wanted in zip(scores, expected, strict=True):
            np.testing.assert_allclose(own, wanted, atol=2e-5)


# --- what comes out of it


def test_said_fields_leave_no_tag_in_an_answer():
    assert said_fields("yes, it is") == {"answer": "yes, it is"}
    assert said_fields(SAID[0]) == {"answer": "yes", "reminder": "it is the red dog"}
    assert said_fields("<reminder>it is the") == {"answer": ""}
    assert said_fields("it </reminder> yes") == {"answer": "yes"}
    assert said_fields("<reminder>a</reminder> <reminder>b</reminder> yes") == {"answer": "yes"}


def test_predictions_carry_reminders_and_submissions_do_not(tmp_path):
    dialog = some_dialog(tmp_path, 7, rounds=5, options=100)
    scores = [np.arange(100.0)] * 5
    entries = predictions([dialog], [scores], [SAID])
    assert entries[0]["answer"] == "yes" and entries[0]["reminder"] == "it is the red dog"
    assert entries[2]["answer"] == "yes it is" and "reminder" not in entries[2]
    write_submission(tmp_path / "evalai.json", entries, [dialog], "val", allow_partial=True)
    assert all(
        set(entry) == {"image_id", "round_id", "ranks"} for entry in read_json(tmp_path / "evalai.json")
    )


def test_an_adapter_knows_its_style(tmp_path):
    write_json(tmp_path / "lab.json", {"config": {"generation": {"style": "reminder"}}})
    assert answer_style(tmp_path) == "reminder"
    assert answer_style(tmp_path, "plain") == "plain"
    assert answer_style("data/gemma3-scenes") == "plain"
    write_json(
        tmp_path / "lab.json", {"config": {"generation": {"seed": 0}}}
    )  # made before there were styles
    assert answer_style(tmp_path) == "plain"
    with pytest.raises(UserError, match="plain or reminder"):
        answer_style(tmp_path, "polite")


def test_a_ranking_job_keeps_what_was_said(tmp_path):
    """Stopped and resumed, with and without reminders: the predictions are those of an uninterrupted job."""
    dialogs = [some_dialog(tmp_path, n, rounds=2, options=100) for n in range(3)]
    output = tmp_path / "predictions.json"

    def score(left, on_bad, until=9):
        for index, dialog in enumerate(left):
            if dialog.image_id >= until:
                raise KeyboardInterrupt
            yield index, [np.arange(100.0)] * 2, SAID[:2]

    with pytest.raises(KeyboardInterrupt):
        rank_dialogs(dialogs, output, {"made": "here"}, lambda *given: score(*given, until=2))
    rank_dialogs(dialogs, output, {"made": "here"}, score)
    entries = read_json(output)
    assert [entry["reminder"] for entry in entries] == ["it is the red dog", "nothing yet"] * 3
    assert list(tmp_path.glob("*.part*")) == []
