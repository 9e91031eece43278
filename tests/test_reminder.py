"""The reminder style: the tag, the teacher that writes reminders, a model that recalls first."""

import json
import random
import re
import shutil

import pytest

from visdial_lab import teacher
from visdial_lab.chat import CLOSE, OPEN, join_reminder, split_reminder
from visdial_lab.errors import UserError
from visdial_lab.generation import _scene_kinds, read_records, records, write_records
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
    kinds = _scene_kinds(val)
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
        "nothing yet",
        "is the dog big or small; the dog: on the left",
        "the picture: on a street",
        "the man: yellow shirt",
        "is the man holding anything; the man: yellow shirt, white pants",
        "what color is the flag the man is holding; the man: yellow shirt, white pants, holding a flag",
        "the dog: on the left, small",
        "what color is the tree",
        "where is the man; the man: yellow shirt, white pants, holding a flag",
    ]


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
    build_scenes, dialogs = pytest.importorskip("build_scenes"), pytest.importorskip("dialogs")
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
            right += follow_up and reminder.split(";")[0] == fact.named
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
