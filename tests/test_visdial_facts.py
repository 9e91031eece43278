"""What is said about Visual Dialog v1.0 in this course, on real files (skipped loudly without them)."""

import json
from collections import Counter

import numpy as np
import pytest

from visdial_lab import evaluate
from visdial_lab.visdial import VisDial


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "visdial"


@pytest.fixture(scope="module")
def val(real_val) -> VisDial:
    return real_val


@pytest.fixture(scope="module")
def test(folder) -> VisDial:
    return VisDial.load(folder / "visdial_1.0_test_first50.json")


@pytest.fixture(scope="module")
def text(folder) -> VisDial:
    return VisDial.load(folder / "visdial_1.0_val_text_1851.json")


def rounds(dialogs) -> list:
    return [turn for dialog in dialogs for turn in dialog.rounds]


def test_counts(val, test, text):
    assert (len(val), len(test), len(text)) == (116, 50, 1851)
    assert (val.split, test.split, text.split) == ("val", "test", "val")
    assert {len(d.rounds) for d in val} == {len(d.rounds) for d in text} == {10}
    assert len(test._columns.questions) == 45_237 and len(test._columns.answers) == 34_821
    assert val[0].image_id == 185565
    assert val[0].caption == "a bedroom is filled with lots of posters and a busy computer desk"
    assert val[0].image_path is None and "<img" not in val[0]._repr_html_()


def test_every_dialog_equals_what_a_plain_parser_reads(folder, val, test, text):
    for dialogs in (val, test, text):
        data = json.loads(dialogs.path.read_text())["data"]
        for dialog, entry in zip(dialogs, data["dialogs"], strict=True):
            assert (dialog.image_id, dialog.caption) == (entry["image_id"], entry["caption"])
            for turn, raw in zip(dialog.rounds, entry["dialog"], strict=True):
                assert turn.question == data["questions"][raw["question"]]
                assert turn.answer == (data["answers"][raw["answer"]] if "answer" in raw else None)
                options = raw.get("answer_options")
                assert turn.options == (options and tuple(data["answers"][i] for i in options))
                assert turn.gt_index == raw.get("gt_index")


def test_indices_count_from_zero_and_point_at_the_answer(val):
    assert all(turn.options[turn.gt_index] == turn.answer for turn in rounds(val))
    columns = val._columns
    assert columns.rounds.min() == 0 and columns.options.min() == 0
    assert min(turn.gt_index for turn in rounds(val)) == 0 and max(turn.gt_index for turn in rounds(val)) > 90


def test_texts_are_lower_case_and_questions_have_no_mark(val, test, text):
    for dialogs in (val, test, text):
        asked = [turn.question for turn in rounds(dialogs)]
        said = [turn.answer for turn in rounds(dialogs) if turn.answer is not None]
        for texts in (asked, said, [dialog.caption for dialog in dialogs]):
            assert np.mean([one == one.lower() for one in texts]) > 0.999
        assert not any(one.endswith("?") for one in asked)


def test_the_files_name_no_round_and_their_key_order_varies(folder):
    orders = set()
    for name in ("visdial_1.0_val_116.json", "visdial_1.0_test_first50.json"):
        for entry in json.loads((folder / name).read_text())["data"]["dialogs"]:
            orders |= {tuple(entry), *map(tuple, entry["dialog"])}
    assert not any("round_id" in keys for keys in orders)
    assert (
        len({keys for keys in orders if set(keys) == {"question", "answer", "answer_options", "gt_index"}})
        >= 1
    )
    assert len({keys for keys in orders if set(keys) == {"image_id", "caption", "dialog"}}) >= 2


def test_the_test_split_is_ragged_and_keeps_its_last_answer_secret(test):
    assert {len(dialog.rounds) for dialog in test} <= set(range(1, 11))
    assert len({len(dialog.rounds) for dialog in test}) >= 8
    for dialog in test:
        *before, last = dialog.rounds
        assert all(turn.answer and turn.options is None and turn.gt_index is None for turn in before)
        assert len(last.options) == 100 and last.answer is None and last.gt_index is None


def test_the_text_only_subset_has_answers_and_no_options_and_shares_no_image(val, text):
    assert all(turn.answer and turn.options is None and turn.gt_index is None for turn in rounds(text))
    assert not {dialog.image_id for dialog in text} & {dialog.image_id for dialog in val}


def test_val_and_test_share_one_string_table(val, test, text):
    """The subsets' tables were pruned, but (nearly) all they use is in the table of test."""
    answers, questions = set(test._columns.answers), set(test._columns.questions)
    for dialogs in (val, text):
        assert {turn.question for turn in rounds(dialogs)} <= questions
        assert {turn.answer for turn in rounds(dialogs)} <= answers
    assert set(val._columns.answers) <= answers


def test_option_order_leaks_the_answer(val):
    place = Counter(turn.gt_index % 10 for turn in rounds(val))
    assert place[0] / 1160 == pytest.approx(0.39, abs=0.03)
    assert place[0] > 2 * place[1] > place[9]
    by_position = [[-(np.arange(100) % 10.0) for _ in dialog.rounds] for dialog in val]
    metrics = evaluate(val, by_position)["metrics"]
    assert metrics["mrr"] == pytest.approx(0.130, abs=0.012)
    assert metrics["ndcg"] == pytest.approx(0.203, abs=0.02)
    flat = evaluate(val, [[np.zeros(100) for _ in dialog.rounds] for dialog in val])["metrics"]
    assert flat["mrr"] == pytest.approx(0.052, abs=0.002)


def test_each_chunk_of_ten_is_sorted_by_falling_popularity(val, text):
    """Popularity as far as other val dialogs tell it: in a chunk the earlier option is rarely rarer."""
    popularity = Counter(turn.answer for turn in rounds(text))
    table = np.array([[popularity[option] for option in turn.options] for turn in rounds(val)])
    chunks = table.reshape(-1, 10, 10)
    falls, rises = np.sum(np.diff(chunks, axis=2) < 0), np.sum(np.diff(chunks, axis=2) > 0)
    assert falls > 2 * rises
    between = table[:, 10::10] - table[:, 9:-1:10]  # from the last of a chunk to the first of the next
    assert np.sum(between > 0) > 2 * np.sum(between < 0)


def test_dense_relevance(val, folder):
    raw = json.loads((folder / "visdial_1.0_val_116_dense_annotations.json").read_text())
    assert [entry["image_id"] for entry in raw] == [dialog.image_id for dialog in val]
    assert all("gt_relevance" in entry and 1 <= entry["round_id"] <= 10 for entry in raw)
    assert any(entry["round_id"] == 10 for entry in raw)  # so it counts from 1
    annotated = [turn for turn in rounds(val) if turn.relevance is not None]
    assert len(annotated) == 116
    values = {value for turn in annotated for value in turn.relevance}
    assert {round(value, 6) for value in values} <= {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    nought = sum(turn.relevance[turn.gt_index] == 0 for turn in annotated)
    assert nought / 116 == pytest.approx(0.12, abs=0.04)
