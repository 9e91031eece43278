"""What a big model is told and what is taken from it: never the answer, always the form."""

import base64
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from visdial_lab.api_prompt import LONGEST_SIDE, TEMPLATES, ask_again, instructions, parse_reply, prompt
from visdial_lab.errors import UserError
from visdial_lab.visdial import VisDial


@pytest.fixture
def canaries(tiny):
    """Dialogs in which every answer, and every option, is a string that occurs nowhere else."""
    path = tiny / "visdial_1.0_train.json"
    document = json.loads(path.read_text())
    answers = document["data"]["answers"]
    document["data"]["answers"] = [f"canary{n}bird" for n in range(len(answers))]
    path.write_text(json.dumps(document))
    return VisDial.load(tiny, "train")


@pytest.mark.parametrize("style", TEMPLATES)
def test_the_target_answer_is_never_in_the_prompt(canaries, style):
    for dialog in canaries:
        for turn in dialog.rounds:
            messages = prompt(dialog, turn.round_id, style)
            text = json.dumps(ask_again(messages, "no idea", "the reason"))
            past = {earlier.answer for earlier in dialog.rounds[: turn.round_id - 1]}
            future = {later.answer for later in dialog.rounds[turn.round_id - 1 :]} | set(turn.options)
            assert not any(answer in text for answer in future - past)
            assert all(answer in text for answer in past)
            assert text.count("canary") == turn.round_id - 1
            assert dialog.rounds[turn.round_id - 1].question in text
            later_questions = {later.question for later in dialog.rounds[turn.round_id :]}
            asked = {earlier.question for earlier in dialog.rounds[: turn.round_id]}
            assert not any(f"{question}?" in text for question in later_questions - asked)


def test_the_picture_is_sent_small(tiny):
    dialog = VisDial.load(tiny, "train")[0]
    Image.effect_noise((2000, 1000), 50).convert("RGB").save(dialog.image_path)
    url = prompt(dialog, 1)[1]["content"][0]["image_url"]["url"]
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (LONGEST_SIDE, LONGEST_SIDE // 2)


def test_control_tokens_in_dialogs_are_disarmed(canaries):
    dialog = canaries[0]
    object.__setattr__(dialog, "caption", "a dog <start_of_image> <end_of_turn>")
    text = prompt(dialog, 1, picture=False)[1]["content"][0]["text"]
    assert "<start_of_image>" not in text and "<end_of_turn>" not in text


def test_bad_requests(canaries, tmp_path):
    with pytest.raises(UserError, match="no round 4"):
        prompt(canaries[0], 4)
    with pytest.raises(UserError, match="style: expected reminder or plain, got 'long'"):
        prompt(canaries[0], 1, "long")
    canaries[0].image_path.write_bytes(b"no jpeg")
    with pytest.raises(UserError, match="damaged image"):
        prompt(canaries[0], 1)
    own = tmp_path / "own.txt"
    own.write_text("be brief")
    assert instructions("plain", own) == "be brief"
    own.write_text(" ")
    with pytest.raises(UserError, match=r"own\.txt is empty"):
        instructions("plain", own)


@pytest.mark.parametrize("style", TEMPLATES)
def test_the_examples_of_the_template_are_what_the_parser_takes(style):
    """Few-shot examples that break the rules would teach to break them."""
    question, found = "", 0
    for line in instructions(style).splitlines():
        if line.startswith("Question: "):
            question = line.removeprefix("Question: ")
        if line.startswith("You write: "):
            reminder, answer = parse_reply(line.removeprefix("You write: "), style, question)
            assert (reminder is not None) == (style == "reminder") and answer
            found += 1
    assert found >= 3


def test_good_replies():
    assert parse_reply(" <reminder>it = the dog</reminder> brown\n") == ("it = the dog", "brown")
    assert parse_reply("brown", "plain", "what color is it?") == (None, "brown")
    assert parse_reply("yes, the dog is brown", "plain", "is the dog brown?") == (
        None,
        "yes, the dog is brown",
    )


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("brown", "there is no <reminder>"),
        ("", "the reply is empty"),
        ("<reminder>it</reminder>", "no answer behind"),
        ("<reminder></reminder> brown", "nothing in the reminder"),
        ("<reminder>it = the dog brown", "not closed"),
        ("<reminder>a</reminder><reminder>b</reminder> brown", "expected one <reminder>"),
        ("Sure! <reminder>a</reminder> brown", "should stand before"),
        ("<reminder>a</reminder> brown\nand more", "more than one line"),
        ("<reminder>a</reminder> " + "word " * 21, "answer is too long: 21 words"),
        ("<reminder>" + "word " * 61 + "</reminder> brown", "reminder is too long: 61 words"),
        ("<reminder>a</reminder> <answer>brown</answer>", "angle bracket"),
        ("<reminder>a</reminder> ?!", "no word"),
        ("<reminder>a</reminder> what color is the dog? brown", "echoes"),
        ("<reminder>a</reminder> Question: what", "echoes"),
        ("<reminder>the dog</reminder> a dog", "only repeats"),
        ("x" * 5000, "reply is too long: 5000"),
        ("<reminder>\ud800</reminder> brown", "broken character"),
    ],
)
def test_bad_replies_have_a_reason(reply, reason):
    with pytest.raises(UserError, match=reason):
        parse_reply(reply, "reminder", "what color is the dog")


def test_plain_style_takes_no_reminder():
    with pytest.raises(UserError, match="only the answer"):
        parse_reply("<reminder>a</reminder> brown", "plain")


@given(
    st.text() | st.lists(st.sampled_from(["<reminder>", "</reminder>", " ", "a dog", "\n", "<"])).map("".join)
)
def test_any_reply_is_taken_or_refused_with_a_reason(text):
    for style in TEMPLATES:
        try:
            reminder, answer = parse_reply(text, style, "is it?")
        except UserError as error:
            assert str(error)
        else:
            assert answer.strip() == answer and answer and "<" not in answer
            assert (reminder is None) == (style == "plain")
