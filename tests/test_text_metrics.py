"""Metrics of generated answers, and the kinds of questions and answers."""

import math
import sys
import types

import pytest

from visdial_lab import text_metrics as text
from visdial_lab.errors import UserError
from visdial_lab.visdial import Dialog, Round, VisDial


@pytest.mark.parametrize(
    ("answer", "human", "exact", "f1"),
    [
        ("Yes.", "yes", 1, 1),
        ("a Red  dog!", "red dog", 1, 1),
        ("no", "yes", 0, 0),
        ("2 dogs", "two dogs", 0, 0.5),
        ("red red", "red", 0, 2 / 3),
        ("red and white", "white and red", 0, 1),
        ("can't tell", "cant tell", 1, 1),
        ("", "yes", 0, 0),
        ("?", "!", 1, 1),
        ("\uff39\uff25\uff33", "yes", 1, 1),  # full-width letters
        ("빨간 개", "빨간 개.", 1, 1),
    ],
)
def test_exact_match_and_token_f1(answer, human, exact, f1):
    assert text.exact_match(answer, human) == exact
    assert text.token_f1(answer, human) == pytest.approx(f1) == text.token_f1(human, answer)


RELEVANCE = {"yes": 1.0, "yeah": 0.8, "Yes.": 0.4, "no": 0.0}


def dialog(answer="yes") -> Dialog:
    options = tuple(RELEVANCE)
    annotated = Round(1, "is it red", answer, options, options.index(answer), tuple(RELEVANCE.values()))
    plain = Round(2, "how many dogs are there", "2 brown dogs", options, 0, None)
    return Dialog(7, "", (annotated, plain), None, "val")


def said(first: str, second: str) -> list[dict]:
    return [{"image_id": 7, "round_id": n, "answer": said} for n, said in enumerate((first, second), 1)]


@pytest.mark.parametrize(
    ("answer", "relevance"), [("Yes!", 1.0), ("yeah", 0.8), ("no", 0), ("yep", 0), ("", 0)]
)
def test_relevance_of_the_option_that_says_the_same(answer, relevance):
    assert text.answer_relevance(answer, dialog().rounds[0]) == relevance
    assert math.isnan(text.answer_relevance(answer, dialog().rounds[1]))


def test_all_text_metrics_at_once():
    found = text.text_metrics(said("yeah", "2 dogs"), [dialog()])
    assert found["exact_match"] == 0 and found["token_f1"] == pytest.approx((0 + 4 / 5) / 2)
    assert found["rouge_l"] == pytest.approx((0 + 4 / 5) / 2) and found["answer_relevance"] == 0.8
    assert 0 < found["bleu"] < 1
    best = text.text_metrics(said("yes", "2 brown dogs"), [dialog()])
    assert {best[name] for name in ("exact_match", "token_f1", "rouge_l", "answer_relevance")} == {1}
    assert "answer_relevance" not in text.text_metrics(said("yes", "2 brown dogs")[1:], [dialog()])


def test_bleu_is_sacrebleus():
    import sacrebleu

    human = ["the dog is lying on the red sofa", "yes it is a sunny day in the park"]
    mine = ["the dog is on the red sofa", "it is a sunny day"]
    turns = [Round(n, "q", a, None, None, None) for n, a in enumerate(human, 1)]
    pairs = [((1, n), m, turn) for n, (m, turn) in enumerate(zip(mine, turns, strict=True), 1)]
    assert text.corpus_bleu(pairs) == pytest.approx(sacrebleu.corpus_bleu(mine, [human]).score / 100)
    assert text.corpus_bleu([((1, 1), human[0], turns[0])]) == pytest.approx(1)


def test_bert_score_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(UserError, match=r"pip install 'visdial-lab\[bertscore\]'"):
        text.text_metrics(said("yes", "2"), [dialog()], bert_model="bert-base-uncased")
    calls = []

    def score(answers, humans, model_type, num_layers):
        import numpy as np

        calls.append((answers, humans, model_type, num_layers))
        return None, None, np.array([0.5, 0.7])

    utils = types.SimpleNamespace(model2layers={"known": 8})
    monkeypatch.setitem(sys.modules, "bert_score", types.SimpleNamespace(score=score, utils=utils))
    monkeypatch.setattr(
        "transformers.AutoConfig.from_pretrained", lambda name: types.SimpleNamespace(num_hidden_layers=6)
    )
    for model, layers in (("known", None), ("my/folder", 6)):
        found = text.text_metrics(said("yes", "2"), [dialog()], bert_model=model)
        assert found["bert_score"] == pytest.approx(0.6)
        assert calls.pop() == (["yes", "2"], ["yes", "2 brown dogs"], model, layers)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ([], "no generated answer"),
        ([{"image_id": 7, "round_id": 1, "answer": 3}], r"predictions\[0\].answer: expected text, got 3"),
        ([{"image_id": 7, "round_id": 9, "answer": "yes"}], "image 7 has no round 9"),
    ],
)
def test_bad_answers_are_named(wrong, expected):
    with pytest.raises(UserError, match=expected):
        text.text_metrics(wrong, [dialog()])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        *(("yes, it is", "yes/no"), ("yeah", "yes/no"), ("nope", "yes/no"), ("not really", "yes/no")),
        *(("2", "number"), ("there are 3 people", "number"), ("about ten", "number")),
        *(("red", "color"), ("it is dark blue", "color"), ("a red one", "color")),
        *(("can't tell", "other"), ("nothing", "other"), ("a notebook", "other"), ("someone", "other")),
        *(("not sure", "other"), ("on the left", "other")),
    ],
)
def test_answer_types(answer, kind):
    assert text.answer_type(answer) == kind


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        *(("is it sunny", "yes/no"), ("can you see a dog", "yes/no"), ("any trees", "yes/no")),
        *(("how many people are there", "count"), ("what color is it", "color")),
        *(("what's the color of the car", "color"), ("where is the dog", "where"), ("who is there", "who")),
        *(("what is he doing", "what"), ("how old is she", "how, why"), ("and the dog", "other")),
        *(("island in the picture", "other"),),
    ],
)
def test_question_types(question, kind):
    assert text.question_type(question) == kind


def test_types_of_real_questions_and_answers(shared_data):
    train = VisDial.load(shared_data / "visdial" / "visdial_1.0_val_text_1851.json")
    turns = [turn for d in train for turn in d.rounds]
    share = {
        kind: sum(text.answer_type(turn.answer) == kind for turn in turns) / len(turns)
        for kind in ("yes/no", "number", "color", "other")
    }
    literally = sum(turn.answer.split()[0].strip(",.") in ("yes", "no") for turn in turns) / len(turns)
    assert literally <= share["yes/no"] < literally + 0.05 and sum(share.values()) == pytest.approx(1)
    assert sum(text.question_type(turn.question) == "other" for turn in turns) / len(turns) < 0.1
