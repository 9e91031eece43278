"""Wrong answers to tell the human one from: the records' own answers, mixed as in VisDial's lists of options.

Das et al. (2017, Visual Dialog) put beside each human answer 50 answers to similar questions, 30 popular ones
and random ones. The same is done here for every round that is learnt, from what the records hold: so it works
where dialogs come with options and where they do not, and no list of an evaluation is used.
"""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from visdial_lab.chat import message_text
from visdial_lab.errors import UserError

_LISTED, _SIMILAR, _POPULAR = 99, 50, 30  # wrong answers of a list; the rest are random
_QUESTIONS = 120  # how many similar questions are asked for their answers
_ENOUGH, _MOST = 500, 2000  # questions to compare one with: from so many on; of one feature at most
_REMEMBERED = 2**16  # questions whose similar answers are kept


class WrongAnswers:
    """Draws wrong answers for the learnt rounds of records, new ones in each `epoch`.

    What is drawn depends on seed, epoch, record and round alone: the same in a resumed run, in several
    processes and in workers that collate ahead. Similar questions are looked up when they are first needed
    (a millisecond each at the size of VisDial's train), so that nothing waits at the start.
    """

    def __init__(self, records: Sequence[dict], count: int, seed: int) -> None:
        """count: wrong answers a round. Raises UserError when the records have too few different answers."""
        self.count, self.seed, self.epoch = count, seed, 0
        questions: dict[str, int] = {}
        answers: dict[str, int] = {}
        self._rounds: list[list[tuple[int, int, int]]] = []  # of each record (round, question, answer) learnt
        pairs = []
        for record in records:
            learnt = []
            for place, (question, answer, weight) in enumerate(_turns(record)):
                asked = questions.setdefault(question, len(questions))
                human = answers.setdefault(answer, len(answers))
                pairs.append((asked, human))
                if weight != 0:
                    learnt.append((place, asked, human))
            self._rounds.append(learnt)
        if len(answers) <= count:
            raise UserError(
                f"training.negatives is {count}, but the records have {len(answers)} different answers: "
                f"there are {len(answers) - 1} wrong ones at most"
            )
        self._answers = list(answers)
        self._spoken = np.array([answer for _, answer in pairs])  # each as often as people said it
        self._popular = [answer for answer, _ in collections.Counter(self._spoken.tolist()).most_common(200)]
        self._given, self._ends = _by_question(np.array(pairs), len(questions))
        self._similar = SimilarQuestions(list(questions))
        self._near: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._rounds)

    def candidates(self, record: int) -> dict[int, list[str]]:
        """{round, from 0: the human answer and `count` wrong ones} for every learnt round of a record."""
        found = {}
        for place, question, human in self._rounds[record]:
            rng = np.random.default_rng((self.seed, self.epoch, record, place))
            listed = self._list(question, human, rng)
            chosen = rng.choice(len(listed), self.count, replace=False)
            found[place] = [self._answers[answer] for answer in (human, *(listed[n] for n in chosen))]
        return found

    def _list(self, question: int, human: int, rng: np.random.Generator) -> list[int]:
        """99 different wrong answers (or all there are): similar, popular, random."""
        listed: dict[int, None] = {}

        def take(answers: Any, most: int) -> None:
            for answer in answers:
                if len(listed) >= most:
                    return
                if answer != human:
                    listed[answer] = None

        take(self._near_answers(question), _SIMILAR)
        take(self._popular, len(listed) + _POPULAR)
        total = min(_LISTED, len(self._answers) - 1)
        take(self._spoken[rng.integers(len(self._spoken), size=2 * _LISTED)].tolist(), total)
        if len(listed) < total:  # few different answers: whatever there is
            take(rng.permutation(len(self._answers)).tolist(), total)
        return list(listed)

    def _near_answers(self, question: int) -> list[int]:
        """Different answers to the most similar questions (itself first), the commonest of each first."""
        if question in self._near:
            return self._near[question]
        found: dict[int, None] = {}
        for other in self._similar.of(question, _QUESTIONS):
            found.update(dict.fromkeys(self._given[self._ends[other] : self._ends[other + 1]].tolist()))
            if len(found) > _SIMILAR:
                break
        near = list(found)[: _SIMILAR + 1]  # one more: the human answer may be among them
        if len(self._near) < _REMEMBERED:
            self._near[question] = near
        return near


def _turns(record: dict) -> list[tuple[str, str, Any]]:
    """(question, answer, weight) of each round; the caption before the first question is left out."""
    texts = [message_text(message) for message in record["messages"]]
    asked = [text.rpartition("\n")[2].strip(" ?").lower() for text in texts[::2]]
    weights = [message.get("weight") for message in record["messages"][1::2]]
    return list(zip(asked, texts[1::2], weights, strict=True))


def _by_question(pairs: np.ndarray, questions: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (question, answer) → the different answers of each question, the commonest first, one question
    behind the other; and where each begins [questions + 1]."""
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.lexsort((unique[:, 1], -counts, unique[:, 0]))
    sizes = np.bincount(unique[:, 0], minlength=questions)
    return unique[order, 1], np.concatenate([[0], np.cumsum(sizes)])


class SimilarQuestions:
    """Finds the questions most like another: cosine of tf-idf over words, first word and first two words.

    How a question begins tells what kind of answer it wants; VisDial's own lists give it weight too. To stay
    fast among hundreds of thousands, a question is compared with those that share its rarest features.
    """

    def __init__(self, questions: Sequence[str]) -> None:
        self._features = [_features(question) for question in questions]
        holders: dict[str, list[int]] = collections.defaultdict(list)
        for number, features in enumerate(self._features):
            for feature in features:
                holders[feature].append(number)
        self._holders = {feature: np.array(numbers) for feature, numbers in holders.items()}  # sorted
        self._weights = {
            feature: float(np.log1p(len(questions) / (1 + len(numbers)))) ** 2
            for feature, numbers in self._holders.items()
        }
        squares = [sum(self._weights[feature] for feature in features) for features in self._features]
        self._norms = np.sqrt(np.maximum(squares, 1e-9))

    def of(self, question: int, count: int) -> list[int]:
        """Numbers of the `count` most similar ones, itself first; equally similar ones by number."""
        features = sorted(self._features[question], key=lambda name: (len(self._holders[name]), name))
        compared = np.array([question])
        for feature in features:
            if len(compared) >= _ENOUGH:
                break
            holders = self._holders[feature]
            compared = np.union1d(compared, holders[:: 1 + len(holders) // _MOST])
        scores = np.zeros(len(compared))
        for feature in features:
            holders = self._holders[feature]
            places = np.minimum(np.searchsorted(holders, compared), len(holders) - 1)
            scores += self._weights[feature] * (holders[places] == compared)
        scores /= self._norms[compared]
        scores[compared == question] = np.inf
        return compared[np.argsort(-scores, kind="stable")[:count]].tolist()


def _features(question: str) -> list[str]:
    """ "is it sunny" → ["is", "it", "sunny", "^is", "^is it"]; all different."""
    words = question.split()
    return list(dict.fromkeys([*words, f"^{words[0]}", f"^{' '.join(words[:2])}"] if words else []))
