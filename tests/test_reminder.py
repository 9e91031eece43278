"""The reminder style: the tag, the teacher that writes reminders, a model that recalls first."""

import random

import pytest

from visdial_lab.chat import CLOSE, OPEN, join_reminder, split_reminder
from visdial_lab.errors import UserError

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
