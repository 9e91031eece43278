"""Records: complete, seeded, readable by others, and checked when they come back."""

import json

import pytest

from visdial_lab.errors import UserError
from visdial_lab.generation import read_records, records, write_records
from visdial_lab.visdial import VisDial


@pytest.fixture
def train(tiny):
    return VisDial.load(tiny, "train")


def test_one_record_a_dialog_with_every_answer(train):
    rows = list(records(train))
    assert [row["image_id"] for row in rows] == [dialog.image_id for dialog in train]
    for row, dialog in zip(rows, train, strict=True):
        assert set(row) == {"id", "image_id", "image", "source", "messages"}
        said = [m["content"][0]["text"] for m in row["messages"] if m["role"] == "assistant"]
        assert said == [turn.answer for turn in dialog.rounds]
        assert row["messages"][0]["content"][0] == {"type": "image"}


def test_secret_answers_are_left_out(tiny):
    test = VisDial.load(tiny, "test")
    rows = list(records(test))
    answered = [sum(turn.answer is not None for turn in dialog.rounds) for dialog in test]
    assert [len(row["messages"]) // 2 for row in rows] == [n for n in answered if n]
    assert 0 in answered


def test_sample_is_seeded_and_in_file_order(train):
    ids = [row["image_id"] for row in records(train, sample_count=3, seed=1)]
    assert ids == sorted(ids) and len(set(ids)) == 3
    assert ids == [row["image_id"] for row in records(train, sample_count=3, seed=1)]
    samples = {tuple(row["image_id"] for row in records(train, sample_count=2, seed=s)) for s in range(9)}
    assert len(samples) > 1


def test_first_rounds_only(train):
    assert all(len(row["messages"]) == 4 for row in records(train, rounds=2))


@pytest.mark.parametrize(
    "wrong", [{"sample_count": 0}, {"sample_count": 99}, {"rounds": 0}, {"rounds": "few"}]
)
def test_arguments_out_of_range(train, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        list(records(train, **wrong))


def test_written_records_come_back(train, tmp_path):
    path = tmp_path / "records.jsonl"
    assert write_records(path, train) == len(train)
    assert read_records(path) == list(records(train))


def test_other_libraries_can_read_them(train, tmp_path):
    """Every content is a list of parts, so that Arrow finds one type in the column."""
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "records.jsonl"
    write_records(path, train)
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "c"))
    assert len(loaded) == len(train) and loaded[0]["messages"][1]["role"] == "assistant"


def test_image_paths_do_not_name_this_machine(train, tiny, monkeypatch):
    monkeypatch.setenv("VISDIAL_LAB_ROOT", str(tiny))
    assert next(records(train))["image"] == f"images/{train[0].image_id:012d}.jpg"


def user(text="is it?"):
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def model(text="yes"):
    return {"role": "assistant", "content": text}


GOOD = {"id": "a", "image_id": 1, "image": None, "source": "s", "messages": [user(), model()]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"messages": None}, "messages has the wrong type"),
        ({"image_id": "7"}, "image_id has the wrong type"),
        ({"image_id": True}, "image_id has the wrong type"),
        ({"messages": [user()]}, "pairs of user and assistant"),
        ({"messages": []}, "pairs of user and assistant"),
        ({"messages": [model(), user()]}, r"messages\[0\].role should be 'user'"),
        ({"messages": [user(), model(" ")]}, r"messages\[1\].content has no text"),
        ({"messages": [user(), model(3)]}, r"messages\[1\].content should be text"),
        (
            {"messages": [user(), model(), user(), model()]},
            r"messages\[2\].content holds \['image', 'text'\]",
        ),
    ],
)
def test_bad_records_are_placed(tmp_path, change, complaint):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | change) + "\n")
    with pytest.raises(UserError, match=r"r\.jsonl, record 2: .*" + complaint):
        read_records(path)


def test_missing_field_and_empty_file(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"id": "a"}))
    with pytest.raises(UserError, match="record 1: image_id is missing"):
        read_records(path)
    path.write_text("")
    with pytest.raises(UserError, match="is empty"):
        read_records(path)
