"""Tests of problem set 1. Never shipped to students: they see the visible cases' inputs and outputs only."""

import numpy as np

from visdial_lab.exercises import Test, call

QUESTIONS = [
    "is it sunny",
    "how many dogs",
    "is he alone",
    "what color",
    "is it old",
    "is it",
    "where",
    "does she smile",
    "is item",
]
ANSWERS = [
    "yes",
    "no",
    "2",
    "brown",
    "can't tell",
    "on the left",
    "a few",
    "maybe",
    "red",
    "it is",
    "yes, it is",
    "3",
]

TINY = {
    "version": "1.0",
    "split": "val2018",
    "data": {
        "questions": ["is it sunny", "how many dogs", "is he alone"],
        "answers": ["yes", "2", "no", "brown", "can't tell"],
        "dialogs": [
            {
                "image_id": 7,
                "caption": "a man and his dogs on a beach",
                "dialog": [
                    {"question": 0, "answer": 0, "answer_options": [2, 4, 0, 3], "gt_index": 2},
                    {"question": 1, "answer": 1, "answer_options": [1, 3, 4, 2], "gt_index": 0},
                    {"question": 2, "answer": 2, "answer_options": [3, 0, 1, 2], "gt_index": 3},
                ],
            }
        ],
    },
}
TINY_TEST = {
    "version": "1.0",
    "split": "test2018",
    "data": {
        "questions": ["is it sunny", "how many dogs", "is he alone"],
        "answers": ["yes", "2", "no", "brown", "can't tell"],
        "dialogs": [
            {
                "image_id": 9,
                "caption": "two dogs in the snow",
                "dialog": [{"question": 0, "answer": 2}, {"question": 1, "answer_options": [4, 0, 1, 3]}],
            }
        ],
    },
}
TINY_DENSE = [{"image_id": 7, "round_id": 2, "gt_relevance": [0.6, 0.0, 0.2, 1.0]}]
TINY_DIALOG = {
    "image_id": 7,
    "caption": "a man and his dogs on a beach",
    "rounds": [
        {"round_id": 1, "question": "is it sunny", "answer": "yes", "options": None, "gt_index": None},
        {"round_id": 2, "question": "how many dogs", "answer": "2", "options": None, "gt_index": None},
        {"round_id": 3, "question": "is he alone", "answer": "no", "options": None, "gt_index": None},
    ],
}


def _entry(rng, image_id, rounds, options, answers):
    """A dialog in the file's form; `answers` are the numbers of its human answers."""
    turns = []
    for answer in answers[:rounds]:
        others = [i for i in rng.permutation(len(ANSWERS)).tolist() if i != answer] * 10
        gt = int(rng.integers(options))
        listed = others[: options - 1]
        listed.insert(gt, answer)
        turn = {"question": int(rng.integers(len(QUESTIONS))), "answer": answer}
        turns.append(turn | {"answer_options": listed, "gt_index": gt})
    return {"image_id": image_id, "caption": f"picture {image_id}", "dialog": turns}


def _document(rng, dialogs=3, rounds=4, options=20, split="val2018", first_answer=None):
    ids = (rng.permutation(900)[:dialogs] + 100).tolist()
    entries = []
    for image_id in ids:
        answers = (rng.permutation(len(ANSWERS) - 1)[:rounds] + 1).tolist()  # never answer number 0 …
        if first_answer is not None:
            answers[int(rng.integers(rounds))] = first_answer  # … unless the test is about it
        entry = _entry(rng, image_id, rounds, options, answers)
        if split.startswith("test"):
            keep = int(rng.integers(1, rounds + 1))
            entry["dialog"] = entry["dialog"][:keep]
            for turn in entry["dialog"][:-1]:
                del turn["answer_options"], turn["gt_index"]
            last = entry["dialog"][-1]
            del last["answer"], last["gt_index"]
        entries.append(entry)
    return {
        "version": "1.0",
        "split": split,
        "data": {"questions": QUESTIONS, "answers": ANSWERS, "dialogs": entries},
    }


def _parse_tiny(rng):
    yield call("read_dialog", TINY, 0)


def _parse_zero(rng):
    for _ in range(4):
        document = _document(rng, first_answer=0)
        for turn in document["data"]["dialogs"][1]["dialog"][1:3]:  # the human answer is the first option
            place = turn["gt_index"]
            turn["answer_options"].insert(0, turn["answer_options"].pop(place))
            turn["gt_index"] = 0
        for n in range(3):
            yield call("read_dialog", document, n)


def _parse_test(rng):
    yield call("read_dialog", TINY_TEST, 0)
    for _ in range(4):
        document = _document(rng, rounds=6, split="test2018")
        for n in range(3):
            yield call("read_dialog", document, n)


def _dialog(rng, rounds):
    turns = [
        {"round_id": r, "question": q, "answer": a, "options": None, "gt_index": None}
        for r, (q, a) in enumerate(_asked_and_answered(rng, rounds), 1)
    ]
    return {"image_id": int(rng.integers(900)), "caption": "a dog in the snow", "rounds": turns}


def _asked_and_answered(rng, n):
    answers = [ANSWERS[i] for i in rng.permutation(len(ANSWERS))[:n]]  # all different
    return zip(rng.choice(QUESTIONS, n).tolist(), answers, strict=True)


def _history_two(rng):
    yield call("history", TINY_DIALOG, 2)


def _history_any(rng):
    for _ in range(3):
        dialog = _dialog(rng, int(rng.integers(3, 11)))
        for round_id in (1, 2, len(dialog["rounds"])):
            yield call("history", dialog, round_id)
    dialog = _dialog(rng, 4)
    dialog["rounds"][-1]["answer"] = None  # as in the test split
    yield call("history", dialog, 4)


def _history_outside(rng):
    dialog = _dialog(rng, int(rng.integers(3, 9)))
    for round_id in (0, -1, len(dialog["rounds"]) + 1):
        yield call("history", dialog, round_id)


def _rank_tiny(rng):
    yield call("rounds_to_rank", TINY)


def _rank_test(rng):
    for _ in range(4):
        yield call("rounds_to_rank", _document(rng, dialogs=5, rounds=8, split="test2018"))
    yield call("rounds_to_rank", TINY_TEST)


def _dense(rng, document, key="gt_relevance", round_id=None):
    """One entry a dialog, in the dialogs' order; every candidate has a relevance of its own."""
    entries = []
    for entry in document["data"]["dialogs"]:
        n = len(entry["dialog"][0]["answer_options"])
        chosen = round_id or int(rng.integers(1, len(entry["dialog"]) + 1))
        relevance = (rng.permutation(n) / n).tolist()
        entries.append({"image_id": entry["image_id"], "round_id": chosen, key: relevance})
    return entries


def _dense_tiny(rng):
    yield call("human_relevance", TINY, TINY_DENSE)


def _dense_round(rng):
    for _ in range(4):
        document = _document(rng, rounds=5)
        for entry in document["data"]["dialogs"]:
            for turn, question in zip(
                entry["dialog"], rng.permutation(len(QUESTIONS)).tolist(), strict=False
            ):
                turn["question"] = question  # every question once
        yield call("human_relevance", document, _dense(rng, document, round_id=1))
        yield call("human_relevance", document, _dense(rng, document, round_id=5))


def _dense_order(rng):
    for key in ("gt_relevance", "relevance", "relevance"):
        document = _document(rng, dialogs=5)
        dense = _dense(rng, document, key)
        yield call("human_relevance", document, [dense[i] for i in rng.permutation(5)[:4]])
        yield call("human_relevance", document, dense[::-1])


def _places_tiny(rng):
    yield call("place_counts", TINY)


def _places_any(rng):
    for _ in range(4):
        document = _document(rng, dialogs=3, rounds=6, options=40)
        turn = document["data"]["dialogs"][0]["dialog"][0]  # at least one human answer stands first
        turn["answer_options"].insert(0, turn["answer_options"].pop(turn["gt_index"]))
        turn["gt_index"] = 0
        yield call("place_counts", document)
    document = _document(rng, dialogs=3, rounds=6, options=30)
    for turn in document["data"]["dialogs"][0]["dialog"]:  # a dialog whose answers are not published
        del turn["gt_index"]
    yield call("place_counts", document)


def _reorder_tiny(rng):
    yield call("reorder", ["no", "yes", "red"], 0, [0.0, 1.0, 0.2], [1, 2, 0])


def _reorder_any(rng):
    for n in (5, 10, 20, 100):
        circle, order = rng.permutation(n), np.empty(n, int)
        order[circle] = np.roll(circle, 1)  # one big cycle: nowhere the same as its inverse
        relevance, gt = (rng.integers(0, 6, n) / 5).tolist(), int(rng.integers(n))
        yield call("reorder", [f"option {i}" for i in range(n)], gt, relevance, order.tolist())
    options, order = [f"option {i}" for i in range(6)], rng.permutation(6).tolist()
    yield call("reorder", options, None, None, order)
    yield call("reorder", options, 0, None, order)


def _prior_tiny(rng):
    train = [("is it red", "yes"), ("is it old", "no"), ("how many", "no")]
    yield call("prior_scores", train, "is it big", ["no", "yes", "red"])


def _pairs(rng, n):
    questions = [*QUESTIONS, "is it there", "how many cats", "is italian food here", "what color is it"]
    return list(zip(rng.choice(questions, n).tolist(), rng.choice(ANSWERS[:8], n).tolist(), strict=True))


def _prior_words(rng):
    for question in ("is it big", "is it", "how many people are there", "where", "what color is she"):
        yield call("prior_scores", _pairs(rng, 60), question, ANSWERS)
    train = [*_pairs(rng, 20), ("is item", "yes"), ("is", "no"), ("is it", "maybe")]
    yield call("prior_scores", train, "is", ANSWERS)
    yield call("prior_scores", train, "is it", ANSWERS)


def _prior_other(rng):
    for words in (0, 1, 3):
        for question in ("is it old", "how many"):
            train = [*_pairs(rng, 40), ("how many dogs", "2")]
            yield call("prior_scores", train, question, ANSWERS, words=words)


def _mrr_tiny(rng):
    yield call("mrr", np.array([[3.0, 1.0, 2.0], [0.5, 0.5, 0.1]]), np.array([2, 0]))


def _mrr_any(rng):
    for rounds, options, levels in ((6, 100, 10_000), (20, 100, 40), (5, 12, 3), (4, 100, 1), (1, 10, 5)):
        scores = rng.integers(0, levels, (rounds, options)) / 8
        yield call("mrr", scores, rng.integers(0, options, rounds))


TESTS = [
    Test(
        "ps1.parse", "the dialog of the example", "look texts up in the tables", 1, _parse_tiny, visible=True
    ),
    Test("ps1.parse", "number 0 is a number", "tell 0 from nothing", 1, _parse_zero),
    Test("ps1.parse", "the test split", "know what each split leaves out", 1, _parse_test),
    Test(
        "ps1.history", "round 2 of the example", "write a conversation as text", 1, _history_two, visible=True
    ),
    Test(
        "ps1.history",
        "first, second and last rounds",
        "show all that came before and not the answer",
        1,
        _history_any,
    ),
    Test(
        "ps1.history", "rounds that are not there", "refuse instead of wrapping around", 1, _history_outside
    ),
    Test("ps1.rank_rounds", "the example", "count rounds from 1", 1, _rank_tiny, visible=True),
    Test("ps1.rank_rounds", "the test split", "know which rounds are judged", 1, _rank_test),
    Test("ps1.dense", "round 2 of the example", "read dense annotations", 1, _dense_tiny, visible=True),
    Test(
        "ps1.dense",
        "first and last rounds",
        "find the annotated round, not the one after it",
        1,
        _dense_round,
    ),
    Test("ps1.dense", "any order, both keys", "match files by image, not by place", 1, _dense_order),
    Test("ps1.places", "the example", "find the human answer's place", 1, _places_tiny, visible=True),
    Test("ps1.places", "other files", "measure an artefact of the option order", 1, _places_any),
    Test("ps1.reorder", "three options", "apply a permutation", 1, _reorder_tiny, visible=True),
    Test("ps1.reorder", "many options, or no answer", "tell a permutation from its inverse", 1, _reorder_any),
    Test("ps1.prior", "the example", "count answers by how a question begins", 1, _prior_tiny, visible=True),
    Test("ps1.prior", "short questions and look-alikes", "compare words, not letters", 1, _prior_words),
    Test(
        "ps1.prior", "another number of words", "from the answer prior to the question prior", 1, _prior_other
    ),
    Test("ps1.mrr", "the example", "mean reciprocal rank", 1, _mrr_tiny, visible=True),
    Test("ps1.mrr", "many rounds, many ties", "never let the order break a tie", 1, _mrr_any),
]
