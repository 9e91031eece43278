"""Scorers that never see a picture: what a result has to beat before it means anything.

All of them give scores as a model does. The blind model is one: `score_dialogs(…, blank_image=True)`.
"""

import collections
from collections.abc import Callable, Sequence

import numpy as np

from visdial_lab.visdial import Dialog

Scores = list[list[np.ndarray | None]]


def constant_scores(dialogs: Sequence[Dialog]) -> Scores:
    """The random baseline, exactly: every option ties, so `evaluate` gives the closed-form expectation."""
    return _score(dialogs, lambda question, option, place: 0.0)


def position_scores(dialogs: Sequence[Dialog]) -> Scores:
    """Only the place of an option counts. VisDial's lists are ten chunks of ten, each sorted by popularity,
    so the first of each chunk is the likeliest: score -(place mod 10). Shuffled lists give it nothing."""
    return _score(dialogs, lambda question, option, place: -(place % 10))


def answer_prior(train: Sequence[Dialog]) -> Callable[[Sequence[Dialog]], Scores]:
    """A scorer that only knows how often each answer was given in training: no image, no question."""
    return question_prior(train, words=0)


def question_prior(train: Sequence[Dialog], words: int = 2) -> Callable[[Sequence[Dialog]], Scores]:
    """A scorer that knows how often an answer followed the question's first words ("is it").

    Where that count ties (mostly at 0), the answer's overall frequency decides. words=0: nothing else.
    """
    frequency, following = collections.Counter(), collections.defaultdict(collections.Counter)
    for dialog in train:
        for turn in dialog.rounds:
            frequency[turn.answer] += 1
            following[tuple(turn.question.split()[:words])][turn.answer] += 1
    total = 1 + sum(frequency.values())
    return lambda dialogs: _score(
        dialogs,
        lambda question, option, place: (
            following[tuple(question.split()[:words])][option] + frequency[option] / total
        ),
    )


def _score(dialogs: Sequence[Dialog], value: Callable[[str, str, int], float]) -> Scores:
    """Scores of every round that has options, by value(question, option, place of the option)."""
    return [
        [
            turn.options and np.array([value(turn.question, o, i) for i, o in enumerate(turn.options)], float)
            for turn in dialog.rounds
        ]
        for dialog in dialogs
    ]
