"""Wrong answers: VisDial's mixture, drawn by seed, epoch, record and round alone."""

import random

import numpy as np
import pytest

from visdial_lab import negatives
from visdial_lab.chat import chat_messages
from visdial_lab.errors import UserError
from visdial_lab.negatives import SimilarQuestions, WrongAnswers

THINGS = [f"{word}{number}" for word in ("dog", "cat", "tree", "boat") for number in range(20)]
COLOURS = [f"{tone} {name}" for tone in ("dark", "light", "pale") for name in ("red", "blue", "tan", "gray")]


def make_records(count=60, seed=0):
    """Yes-no questions, of which two answers are very popular, and questions of colour."""
    rng, made = random.Random(seed), []
    for _ in range(count):
        turns = []
        for _ in range(4):
            thing = rng.choice(THINGS)
            yes_or_no = rng.choice(["yes"] * 8 + ["no"] * 8 + [f"yes, the {thing}", f"no {thing}"])
            both = (f"is there a {thing}", yes_or_no), (f"what color is the {thing}", rng.choice(COLOURS))
            turns.append(rng.choice(both))
        made.append({"messages": chat_messages(turns, "a photo\nof a park")})
    return made


def texts(record):
    return [message["content"][-1]["text"] for message in record["messages"]]


def test_the_human_answer_comes_first_and_all_are_different():
    rows = make_records()
    wrong = WrongAnswers(rows, 15, seed=3)
    spoken = {text for row in rows for text in texts(row)[1::2]}
    assert len(wrong) == len(rows)
    for number, row in enumerate(rows):
        found = wrong.candidates(number)
        assert list(found) == [0, 1, 2, 3]
        for place, candidates in found.items():
            assert candidates[0] == texts(row)[1::2][place]
            assert len(set(candidates)) == 16 and set(candidates) <= spoken


def test_drawn_by_seed_epoch_record_and_round_alone():
    rows = make_records()
    first, second = WrongAnswers(rows, 9, seed=1), WrongAnswers(rows, 9, seed=1)
    backwards = {number: second.candidates(number) for number in reversed(range(len(rows)))}
    np.random.seed(5)
    random.seed(5)
    assert all(first.candidates(number) == backwards[number] for number in range(len(rows)))
    second.epoch = 1
    assert second.candidates(7) != backwards[7]
    second.epoch = 0
    assert second.candidates(7) == backwards[7]
    assert WrongAnswers(rows, 9, seed=2).candidates(7) != backwards[7]


def test_the_mixture_of_a_list():
    """Half answers to similar questions, thirty popular ones, then random ones; never the human answer."""
    rows = make_records(900)
    wrong = WrongAnswers(rows, 9, seed=0)
    question = next(q for q, text in enumerate(wrong._similar._features) if "color" in text)
    human = wrong._near_answers(question)[0]
    listed = wrong._list(question, human, np.random.default_rng(0))
    assert len(set(listed)) == 99 and human not in listed
    near = [wrong._answers[answer] for answer in listed[: len(COLOURS) - 1]]
    assert set(near) <= set(COLOURS)  # asked of another thing's colour
    popular = [answer for answer in wrong._popular if answer != human][:20]
    assert {"yes", "no"} <= {wrong._answers[answer] for answer in popular}
    assert set(popular) <= set(listed)


def test_few_different_answers():
    """Then the list is whatever there is; too few for the number asked for are refused."""
    turns = [[("is it sunny", answer), ("is it wet", "no")] for answer in ("yes", "no", "maybe", "a bit")]
    rows = [{"messages": chat_messages(own, "a photo")} for own in turns]
    wrong = WrongAnswers(rows, 3, seed=0)
    assert sorted(wrong.candidates(0)[0]) == ["a bit", "maybe", "no", "yes"]
    with pytest.raises(UserError, match=r"negatives is 4, but the records have 4 .* 3 wrong ones at most"):
        WrongAnswers(rows, 4, seed=0)


def test_answers_that_are_only_read_have_no_candidates_but_serve_others():
    rows = make_records(20)
    for message in rows[0]["messages"][1:-1:2]:
        message["weight"] = 0
    wrong = WrongAnswers(rows, 5, seed=0)
    assert list(wrong.candidates(0)) == [3]
    assert set(texts(rows[0])[1::2]) <= set(wrong._answers)


def test_similar_questions():
    asked = ["is it sunny", "what color is the dog", "is it cloudy", "what color is the cat", "how many", ""]
    similar = SimilarQuestions(asked)
    assert similar.of(0, 2) == [0, 2]  # itself, then the one with the same first two words
    assert similar.of(1, 2) == [1, 3]
    assert similar.of(4, 1) == [4] and similar.of(5, 3) == [5]


def test_similar_questions_among_many_are_those_of_a_full_search(monkeypatch):
    """Comparing only with those that share the rarest features finds nearly the same."""
    rng = random.Random(0)
    asked = sorted(
        {
            f"{rng.choice(['is', 'are', 'was'])} {rng.choice(['the', 'a', 'this'])} {rng.choice(THINGS)} "
            f"{rng.choice(['big', 'red', 'wet', 'old', 'new'])}"
            for _ in range(1500)
        }
    )
    full = SimilarQuestions(asked)
    monkeypatch.setattr(negatives, "_ENOUGH", len(asked))
    expected = [full.of(number, 20) for number in range(0, len(asked), 50)]
    monkeypatch.setattr(negatives, "_ENOUGH", 40)
    found = [full.of(number, 20) for number in range(0, len(asked), 50)]
    shared = [len(set(one) & set(other)) / 20 for one, other in zip(expected, found, strict=True)]
    assert np.mean(shared) > 0.9
