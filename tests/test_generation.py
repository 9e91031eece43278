"""Records: complete, seeded, readable by others, and checked when they come back."""

import json

import pytest

from visdial_lab.cli import main
from visdial_lab.errors import UserError
from visdial_lab.generation import (
    evaluation_set,
    read_evaluation_set,
    read_records,
    records,
    write_evaluation_set,
    write_records,
)
from visdial_lab.visdial import VisDial


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
    import datasets

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


def learnt(row):
    return [m["content"][0]["text"] for m in row["messages"][1::2] if m.get("weight") != 0]


def test_last_round_alone_is_learnt(train):
    for row, dialog in zip(records(train, rounds="last"), train, strict=True):
        assert learnt(row) == [dialog.rounds[-1].answer] and len(row["messages"]) == 2 * len(dialog.rounds)


def test_random_round_alone_is_learnt(train):
    seen = set()
    for seed in range(10):
        rows = list(records(train, rounds="random", seed=seed))
        assert rows == list(records(train, rounds="random", seed=seed))
        for row, dialog in zip(rows, train, strict=True):
            last = len(row["messages"]) // 2
            assert learnt(row) == [dialog.rounds[last - 1].answer]
            seen.add(last)
    assert seen == {1, 2, 3}


def test_test_split_gives_what_is_published(tiny):
    for how in ("last", "random"):
        for row in records(VisDial.load(tiny, "test"), rounds=how):
            assert len(learnt(row)) == 1


def mixed(tmp_path, dialogs=60):
    """Dialogs of which nine questions in ten are yes/no, and one in a hundred begins with "who"."""
    from conftest import make_document

    document = make_document("train", dialogs, 10)
    data = document["data"]
    data["questions"] = [f"is it number {n}" for n in range(90)]
    data["questions"] += [f"what color is it {n}" for n in range(9)] + ["who is it"]
    for n, entry in enumerate(data["dialogs"]):
        for i, turn in enumerate(entry["dialog"]):
            turn["question"] = (10 * n + i) % 100
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps(document))
    return VisDial.load(path, "train")


def test_stratified_over_question_types(tmp_path):
    from collections import Counter

    from visdial_lab.text_metrics import question_type

    visdial = mixed(tmp_path)
    for count in (9, 15, 60):
        rows = list(records(visdial, count, "random", seed=3, stratify="question-type"))
        assert len(rows) == count == len({row["id"] for row in rows})
        assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
        asked = [row["messages"][-2]["content"][-1]["text"].splitlines()[-1] for row in rows]
        kinds = Counter(map(question_type, asked))
        there = {"who": 6, "color": 6}  # dialogs that have such a question (the same six)
        if count <= 9:
            assert kinds == {"who": 3, "color": 3, "yes/no": 3}
        else:
            assert kinds["who"] + kinds["color"] >= 6 and kinds["yes/no"] >= count - sum(there.values())
        assert rows == list(records(visdial, count, "random", seed=3, stratify="question-type"))
    plain = {row["id"] for row in records(visdial, 9, "random", seed=3)}
    assert plain != {row["id"] for row in records(visdial, 9, "random", seed=3, stratify="question-type")}


@pytest.mark.parametrize("wrong", [{"stratify": "answer"}, {"stratify": "question-type", "rounds": "all"}])
def test_stratify_out_of_range(train, wrong):
    with pytest.raises(UserError, match="stratify: expected"):
        list(records(train, **wrong))


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([user(), model() | {"weight": 2}], r"messages\[1\].weight"),
        ([user() | {"weight": 1}, model()], r"messages\[0\].weight"),
        ([user(), model() | {"weight": "0"}], r"messages\[1\].weight"),
        ([user(), model() | {"weight": 0}], "nothing would be learnt"),
    ],
)
def test_weights_are_checked(tmp_path, messages, complaint):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(GOOD | {"messages": messages}))
    with pytest.raises(UserError, match=complaint):
        read_records(path)


def test_other_libraries_can_read_weights(train, tmp_path):
    import datasets

    path = tmp_path / "records.jsonl"
    write_records(path, train, rounds="last")
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "c"))
    assert [m.get("weight") for m in loaded[0]["messages"]] == [None, 0, None, 0, None, None]
    path.write_text("\n".join(json.dumps(row) for row in loaded.to_list()))
    assert [learnt(row) for row in read_records(path)] == [learnt(r) for r in records(train, rounds="last")]


# -- the evaluation set --


def test_evaluation_set_holds_every_round_with_options(tiny):
    val = VisDial.load(tiny, "val")
    found = evaluation_set(val)
    assert [(item["image_id"], item["round_id"]) for item in found["items"]] == [
        (dialog.image_id, turn.round_id) for dialog in val for turn in dialog.rounds
    ]
    for item in found["items"]:
        dialog = val.by_id(item["image_id"])
        turn = dialog.rounds[item["round_id"] - 1]
        assert item["question"] == turn.question and item["options"] == turn.options
        assert item["options"][item["gt_index"]] == item["answer"] == turn.answer
        assert item["history"] == [[t.question, t.answer] for t in dialog.rounds[: turn.round_id - 1]]
        assert (item["relevance"] is None) == (turn.round_id != 2)


def test_evaluation_set_is_the_same_bytes_from_the_same_data(tiny, tmp_path):
    """Wherever the files lie, whatever order the dialogs and the keys have, with or without pictures."""
    import shutil

    shutil.copytree(tiny, tmp_path / "else")
    path = tmp_path / "else" / "visdial_1.0_val.json"
    document = json.loads(path.read_text())
    document["data"]["dialogs"].reverse()
    document["data"] = dict(reversed(document["data"].items()))
    path.write_text(json.dumps(document, indent=3))
    shutil.rmtree(tmp_path / "else" / "images")
    for folder, name in ((tiny, "a.json"), (tmp_path / "else", "b.json")):
        write_evaluation_set(tmp_path / name, VisDial.load(folder, "val"))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_evaluation_set_of_real_dialogs_has_a_known_hash(shared_data):
    folder = shared_data / "visdial"
    dense = folder / "visdial_1.0_val_116_dense_annotations.json"
    found = evaluation_set(VisDial.load(folder / "visdial_1.0_val_116.json", dense=dense))
    assert (
        len(found["items"]) == 1160 and sum(item["relevance"] is not None for item in found["items"]) == 116
    )
    assert found["content_sha256"].startswith("45da90c41c9420c7")
    with pytest.raises(UserError, match="no round has options"):
        evaluation_set(VisDial.load(folder / "visdial_1.0_val_text_1851.json"))


def test_evaluation_set_of_the_test_split(tiny):
    found = evaluation_set(VisDial.load(tiny, "test"))
    assert len(found["items"]) == 4 and {item["answer"] for item in found["items"]} == {None}


def test_a_changed_evaluation_set_is_noticed(tiny, tmp_path):
    path = tmp_path / "eval.json"
    written = write_evaluation_set(path, VisDial.load(tiny, "val"))
    assert read_evaluation_set(path)["content_sha256"] == written["content_sha256"]
    path.write_text(path.read_text().replace("a picture of 1 dogs", "a picture of 2 dogs", 1))
    with pytest.raises(UserError, match=r"eval\.json was changed"):
        read_evaluation_set(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="is no evaluation set"):
        read_evaluation_set(path)


def test_commands(tiny, tmp_path, capsys):
    config, output = tmp_path / "c.yaml", tmp_path / "out.json"
    config.write_text(f"data: {{root: {tiny}}}\n")

    def call(*words):
        with pytest.raises(SystemExit) as done:
            main(["generate", *words])
        return done.value.code, *capsys.readouterr()

    _, said, _ = call("eval", "--config", str(config), "--output_path", str(output))
    digest = json.loads(output.read_text())["content_sha256"]
    assert said == f"12 questions, 4 with relevance, in {output}\ncontent sha256 {digest}\n"
    assert call("eval", "--check", str(output))[:2] == (0, said)
    assert call("eval")[0] == 2
    base = ["base", "--config", str(config), "--output-path", str(tmp_path / "r.jsonl")]
    assert call(*base, "--sample-count", "3", "--rounds", "last", "--seed", "1")[0] == 0
    rows = read_records(tmp_path / "r.jsonl")
    assert rows == list(records(VisDial.load(tiny, "train"), 3, "last", 1))
    assert call(*base, "--rounds", "2")[0] == 0
    assert {len(row["messages"]) for row in read_records(tmp_path / "r.jsonl")} == {4}
    code, _, complaint = call(*base, "--rounds", "some")
    assert code == 2 and "'all', 'last' or 'random' or a whole number" in complaint
    code, _, complaint = call(*base, "--stratify", "question-type")
    assert code == 2 and "stratify" in complaint
    assert call(*base, "--stratify", "question-type", "--rounds", "random")[0] == 0
