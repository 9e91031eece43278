"""Reading VisDial: the real files load, and every broken one is refused with the exact place."""

import base64
import io
import json
import math
import re

import pytest
from conftest import make_dense, make_document
from PIL import Image

from visdial_lab.config import load_config
from visdial_lab.errors import UserError
from visdial_lab.visdial import Dialog, Round, VisDial, load_dialogs


def load(tmp_path, document, dense=None, **kwargs) -> VisDial:
    """Write the trees as files and load them."""
    path = tmp_path / "dialogs.json"
    path.write_text(json.dumps(document))
    if dense is not None:
        (tmp_path / "dense.json").write_text(json.dumps(dense))
        kwargs["dense"] = tmp_path / "dense.json"
    return VisDial.load(path, **kwargs)


def refusal(tmp_path, document, dense=None, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, document, dense, **kwargs)
    text = str(caught.value)
    assert len(text.splitlines()) <= 2 and len(text) < 600
    return text


# ---- reading what is right


def test_tiny_folder(tiny):
    val = VisDial.load(tiny, "val")
    raw = json.loads((tiny / "visdial_1.0_val.json").read_text())["data"]
    assert len(val) == 4 and val.split == "val" and val.path == tiny / "visdial_1.0_val.json"
    for dialog, entry in zip(val, raw["dialogs"], strict=True):
        assert isinstance(dialog, Dialog) and dialog.image_id == entry["image_id"]
        assert dialog.image_path == tiny / "images" / f"{dialog.image_id:012d}.jpg"
        assert dialog.image().mode == "RGB" and dialog.image().size == (32, 24)
        assert [turn.round_id for turn in dialog.rounds] == [1, 2, 3]
        for turn, given_turn in zip(dialog.rounds, entry["dialog"], strict=True):
            assert isinstance(turn, Round) and turn.question == raw["questions"][given_turn["question"]]
            assert turn.options == tuple(raw["answers"][i] for i in given_turn["answer_options"])
            assert turn.options[turn.gt_index] == turn.answer
        assert [turn.relevance is not None for turn in dialog.rounds] == [False, True, False]
        assert dialog.rounds[1].relevance[dialog.rounds[1].gt_index] == 1.0


def test_all_three_splits_and_both_dense_keys(tiny):
    assert VisDial.load(str(tiny)).split == "val"
    assert VisDial.load(tiny, "train")[0].rounds[1].relevance is not None
    (tiny / "visdial_1.0_train_dense_annotations.json").rename(tiny / "visdial_1.0_train_dense_sample.json")
    assert VisDial.load(tiny, "train")[0].rounds[1].relevance is not None
    test = VisDial.load(tiny, "test")
    assert [len(dialog.rounds) for dialog in test] == [1, 2, 3, 1]
    for dialog in test:
        assert all(turn.answer and turn.options is None for turn in dialog.rounds[:-1])
        last = dialog.rounds[-1]
        assert last.answer is None and last.gt_index is None and len(last.options) == 100


def test_sequence(tiny):
    val = VisDial.load(tiny)
    assert [d.image_id for d in val[1:3]] == [1002, 1003] and val[1:3].split == "val"
    assert val[-1].image_id == 1004 and val.by_id(1002) == val[1]
    assert val[1:3].by_id(1003).rounds[1].relevance is not None
    with pytest.raises(IndexError):
        val[4]
    with pytest.raises(UserError, match="no dialog for image 1001"):
        val[1:3].by_id(1001)


def test_sample(tiny):
    val = VisDial.load(tiny)
    ids = [[d.image_id for d in val.sample(2, seed)] for seed in range(20)]
    assert ids[0] == [d.image_id for d in val.sample(2, 0)]
    assert all(a < b for a, b in ids) and len({tuple(x) for x in ids}) > 1
    assert len(val.sample(4)) == 4 and len(val.sample(0)) == 0
    for n in (5, -1):
        with pytest.raises(UserError, match="has 4"):
            val.sample(n)


def test_real_photos_are_found_by_number(shared_data, tmp_path):
    document = make_document(dialogs=1, first_id=790)
    dialog = load(tmp_path, document, image_root=shared_data / "photos")[0]
    assert min(dialog.image().size) > 200


def test_embedded_scenes_load(scenes):
    for split in ("train", "val", "test"):
        assert VisDial.load(scenes, split)[0].image().mode == "RGB"


@pytest.mark.parametrize(
    "name",
    [
        "images/000000000001.jpg",
        "000000000001.jpg",
        "train2014/COCO_train2014_000000000001.jpg",
        "val2014/COCO_val2014_000000000001.jpg",
        "COCO_val2014_000000000001.jpg",
        "VisualDialog_val2018/VisualDialog_val2018_000000000001.jpg",
        "VisualDialog_test2018/VisualDialog_test2018_000000000001.jpg",
    ],
)
def test_every_official_image_name_is_found(tmp_path, name):
    place = tmp_path / "pictures" / name
    place.parent.mkdir(parents=True)
    Image.new("L", (5, 5)).save(place)
    dialogs = load(tmp_path, make_document(), image_root=tmp_path / "pictures")
    assert dialogs[0].image_path == place and dialogs[0].image().mode == "RGB"
    assert dialogs[1].image_path is None


def test_key_order_and_extra_keys_do_not_matter(tmp_path):
    document = make_document()
    for entry in document["data"]["dialogs"]:
        entry["more"] = 1
        entry["dialog"] = [dict(reversed([*turn.items(), ("x", None)])) for turn in entry["dialog"]]
    assert len(load(tmp_path, document)) == 4


def test_a_byte_order_mark_does_not_matter(tmp_path):
    (tmp_path / "dialogs.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(make_document()).encode())
    assert len(VisDial.load(tmp_path / "dialogs.json")) == 4


def test_a_profile_names_its_data_folder(tiny, tmp_path, monkeypatch, scenes):
    assert VisDial.load("scenes", "val").path == scenes / "visdial_1.0_val.json"
    (tmp_path / "mine.yaml").write_text("data: {root: elsewhere}\n")
    monkeypatch.chdir(tiny.parent)
    assert VisDial.load("tiny").path == tiny / "visdial_1.0_val.json"  # a folder that is no profile
    (tiny.parent / "scenes").mkdir()
    with pytest.raises(UserError, match=r"no visdial_1\.0_val\.json in folder"):
        VisDial.load("scenes")  # what is really there goes before the profile of that name


def test_so_many_dialogs_as_the_profile_says(scenes):
    config = load_config(overrides={"data.num_train_dialogs": 7, "data.num_val_dialogs": 3})
    train, val = load_dialogs(config), load_dialogs(config, "val")
    assert [(part.split, len(part)) for part in (train, val)] == [("train", 7), ("val", 3)]


def test_to_datasets(tiny):
    import datasets

    val = VisDial.load(tiny)
    table = val[1:].to_datasets()
    assert isinstance(table, datasets.Dataset) and len(table) == 3
    for row, dialog in zip(table, val[1:], strict=True):
        assert row["image_id"] == dialog.image_id and row["caption"] == dialog.caption
        assert row["image"].size == (32, 24)
        assert [one["question"] for one in row["rounds"]] == [one.question for one in dialog.rounds]
        assert tuple(row["rounds"][1]["options"]) == dialog.rounds[1].options
        assert row["rounds"][1]["relevance"] == pytest.approx(dialog.rounds[1].relevance)
        assert row["rounds"][0]["relevance"] is None
    for image in (tiny / "images").iterdir():
        image.unlink()
    test = VisDial.load(tiny, "test").to_datasets()
    assert test.features == table.features and test[0]["image"] is None
    assert test[1]["rounds"][0]["options"] is None and test[1]["rounds"][1]["answer"] is None


# ---- images that are not right


def test_missing_image_names_dialog_and_file(tmp_path):
    dialog = load(tmp_path, make_document())[0]
    with pytest.raises(UserError, match=r"dialog 1: no image …000000000001\.jpg"):
        dialog.image()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"<html>404</html>"])
def test_damaged_image_names_dialog_and_file(tiny, damage):
    path = tiny / "images" / "000000001001.jpg"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(damage(path.read_bytes()))
    dialog = VisDial.load(tiny)[0]
    with pytest.raises(UserError, match=r"dialog 1001: damaged image .*000000001001\.jpg"):
        dialog.image()
    assert "no image" in dialog._repr_html_()


# ---- every mistake has its place


def turn(document, i=1, j=2):
    return document["data"]["dialogs"][i]["dialog"][j]


def entry(document, i=1):
    return document["data"]["dialogs"][i]


def put(holder, key, value):
    holder[key] = value


PLACE = "data.dialogs[1].dialog[2]."
MISTAKES = [
    (lambda d: d.pop("data"), "data is missing"),
    (lambda d: put(d, "data", []), "data: expected an object, got a list"),
    (lambda d: put(d, "split", 3), "split: expected text, got a whole number"),
    (lambda d: d["data"].pop("answers"), "data.answers is missing"),
    (lambda d: put(d["data"], "questions", {}), "data.questions: expected a list"),
    (lambda d: put(d["data"]["questions"], 3, None), "data.questions[3]: expected text, got null"),
    (lambda d: put(d["data"]["answers"], 7, 1.5), "data.answers[7]: expected text, got a decimal number"),
    (lambda d: put(d["data"], "dialogs", []), "data.dialogs: expected a list of length >= 1"),
    (lambda d: put(d["data"]["dialogs"], 1, 5), "data.dialogs[1]: expected an object"),
    (lambda d: entry(d).pop("image_id"), "data.dialogs[1].image_id is missing"),
    (lambda d: put(entry(d), "image_id", "2"), "data.dialogs[1].image_id: expected a whole number, got text"),
    (
        lambda d: put(entry(d), "image_id", True),
        "data.dialogs[1].image_id: expected a whole number, got true or false",
    ),
    (lambda d: put(entry(d), "image_id", -1), "data.dialogs[1].image_id: expected a whole number >= 0"),
    (
        lambda d: put(entry(d), "image_id", 10**13),
        "data.dialogs[1].image_id: expected a whole number <= 999999999999",
    ),
    (
        lambda d: put(entry(d), "image_id", 1),
        "data.dialogs[1].image_id 1 was used by data.dialogs[0] already",
    ),
    (lambda d: entry(d).pop("caption"), "data.dialogs[1].caption is missing"),
    (lambda d: put(entry(d), "caption", 1), "data.dialogs[1].caption: expected text"),
    (lambda d: put(entry(d), "caption", ["a"]), "data.dialogs[1].caption: expected text, got a list"),
    (lambda d: put(entry(d), "dialog", []), "data.dialogs[1].dialog: expected a list of length >= 1"),
    (lambda d: put(entry(d), "dialog", {}), "data.dialogs[1].dialog: expected a list"),
    (lambda d: put(entry(d)["dialog"], 0, []), "data.dialogs[1].dialog[0]: expected an object"),
    (lambda d: turn(d).pop("question"), PLACE + "question is missing"),
    (lambda d: put(turn(d), "question", 12), PLACE + "question is 12, expected 0 to 11"),
    (lambda d: put(turn(d), "question", 1.0), PLACE + "question: expected a whole number"),
    (lambda d: put(turn(d), "answer", -1), PLACE + "answer: expected a whole number >= 0"),
    (lambda d: turn(d).pop("answer"), PLACE + "gt_index points at answer"),
    (lambda d: turn(d).pop("gt_index"), PLACE + "gt_index is missing"),
    (lambda d: put(turn(d), "gt_index", 100), PLACE + "gt_index: expected a whole number <= 99"),
    (
        lambda d: put(turn(d), "gt_index", (turn(d)["gt_index"] + 1) % 100),
        PLACE + "gt_index points at answer",
    ),
    (lambda d: put(turn(d), "gt_index", None), PLACE + "gt_index: expected a whole number, got null"),
    (lambda d: turn(d).pop("answer_options"), PLACE + "gt_index is there, but answer_options is missing"),
    (lambda d: turn(d)["answer_options"].pop(), PLACE + "answer_options has 99 entries, expected 100"),
    (
        lambda d: put(turn(d), "answer_options", 5),
        PLACE + "answer_options: expected a list, got a whole number",
    ),
    (lambda d: put(turn(d)["answer_options"], 4, 153), PLACE + "answer_options[4] is 153, expected 0 to 152"),
    (
        lambda d: put(turn(d)["answer_options"], 4, -1),
        PLACE + "answer_options[4]: expected a whole number >= 0",
    ),
    (
        lambda d: put(turn(d)["answer_options"], 4, False),
        PLACE + "answer_options[4]: expected a whole number, got true or false",
    ),
    (
        lambda d: put(turn(d)["answer_options"], 4, "no"),
        PLACE + "answer_options[4]: expected a whole number, got text",
    ),
    (lambda d: (turn(d).pop("answer_options"), turn(d).pop("gt_index")), PLACE + "answer_options is missing"),
]


@pytest.mark.parametrize(("spoil", "expected"), MISTAKES, ids=[expected for _, expected in MISTAKES])
def test_mistakes_in_dialogs(tmp_path, spoil, expected):
    document = make_document()
    spoil(document)
    text = refusal(tmp_path, document)
    assert f"dialogs file {tmp_path / 'dialogs.json'}: {expected}" in text


FAULTS = [(spoil, expected) for spoil, expected in MISTAKES if expected.startswith("data.dialogs[")]


@pytest.mark.parametrize(("spoil", "expected"), FAULTS, ids=[expected for _, expected in FAULTS])
def test_a_dialog_at_fault_can_be_left_out(tmp_path, spoil, expected):
    """It is named as in the refusal of the whole file; the others are read as if nothing were wrong."""
    document, bad = make_document(), {}
    whole = list(load(tmp_path, document))
    spoil(document)
    assert list(load(tmp_path, document, on_bad=bad.__setitem__)) == [whole[0], *whole[2:]]
    assert list(bad) == [1] and bad[1].startswith(expected)


def test_what_is_wrong_with_the_whole_file_is_refused_all_the_same(tmp_path):
    faults = [spoil for spoil, expected in MISTAKES if not expected.startswith("data.dialogs[")]
    assert len(faults) == 8
    for spoil in [*faults, lambda d: put(d, "version", "0.9"), lambda d: put(d, "split", "test")]:
        document, bad = make_document(), {}
        spoil(document)
        refusal(tmp_path, document, split="val", on_bad=bad.__setitem__)
        assert not bad
    document, bad = make_document(), {}
    for n in range(4):
        del entry(document, n)["caption"]
    assert "each of its 4 dialogs" in refusal(tmp_path, document, on_bad=bad.__setitem__) and len(bad) == 4


def test_mistakes_in_the_test_split(tmp_path):
    document = make_document("test")
    del turn(document, 1, 0)["answer"]
    assert "data.dialogs[1].dialog[0].answer is missing" in refusal(tmp_path, document)
    document = make_document("test")
    del turn(document, 2, 2)["answer_options"]
    assert "data.dialogs[2].dialog[2].answer_options is missing" in refusal(tmp_path, document)


def test_a_val_file_without_any_options_is_fine(tmp_path):
    document = make_document()
    for item in document["data"]["dialogs"]:
        for one in item["dialog"]:
            del one["answer_options"], one["gt_index"]
    assert load(tmp_path, document)[0].rounds[0].options is None
    assert "no answer_options to be relevant" in refusal(tmp_path, document, make_dense(make_document()))
    del turn(document)["answer"]
    assert PLACE + "answer is missing" in refusal(tmp_path, document)


DENSE_MISTAKES = [
    (lambda a: put(a, 1, None), "[1]: expected an object"),
    (lambda a: a[1].pop("image_id"), "[1].image_id is missing"),
    (lambda a: put(a[1], "image_id", 99), "[1].image_id 99 is not in"),
    (lambda a: put(a[1], "image_id", True), "[1].image_id: expected a whole number"),
    (lambda a: put(a[1], "round_id", 0), "[1].round_id is 0, expected 1 to 3"),
    (lambda a: put(a[1], "round_id", 4), "[1].round_id is 4, expected 1 to 3"),
    (lambda a: put(a[1], "round_id", 2.0), "[1].round_id: expected a whole number"),
    (lambda a: a.append(a[1]), "[4] annotates round 2 of image 2 a second time"),
    (lambda a: a[1].pop("gt_relevance"), "[1].gt_relevance is missing"),
    (lambda a: a[1]["gt_relevance"].pop(), "[1].gt_relevance has 99 entries, expected 100"),
    (lambda a: put(a[1], "gt_relevance", "1"), "[1].gt_relevance: expected a list"),
    (lambda a: put(a[1]["gt_relevance"], 5, math.nan), "[1].gt_relevance[5]: expected a decimal number >= 0"),
    (lambda a: put(a[1]["gt_relevance"], 5, math.inf), "[1].gt_relevance[5]: expected a decimal number <= 1"),
    (
        lambda a: put(a[1]["gt_relevance"], 5, 1.2),
        "[1].gt_relevance[5]: expected a decimal number <= 1.0",
    ),
    (lambda a: put(a[1]["gt_relevance"], 5, -0.2), "[1].gt_relevance[5]: expected a decimal number >= 0"),
    (
        lambda a: put(a[1]["gt_relevance"], 5, True),
        "[1].gt_relevance[5]: expected a decimal number, got true or false",
    ),
    (lambda a: put(a[1]["gt_relevance"], 5, 10**400), "[1].gt_relevance[5]: "),
    (lambda a: put(a[1]["gt_relevance"], 5, "1"), "[1].gt_relevance[5]: expected a decimal number, got text"),
]


@pytest.mark.parametrize(
    ("spoil", "expected"), DENSE_MISTAKES, ids=[expected for _, expected in DENSE_MISTAKES]
)
def test_mistakes_in_dense_annotations(tmp_path, spoil, expected):
    document = make_document()
    dense = make_dense(document)
    spoil(dense)
    text = refusal(tmp_path, document, dense)
    assert f"dense annotations file {tmp_path / 'dense.json'}: {expected}" in text


def test_swapped_files_are_recognised(tmp_path):
    document, predictions = make_document(), [{"image_id": 1, "round_id": 1, "ranks": [1]}]
    dense = make_dense(document)
    assert "holds dense annotations, not dialogs" in refusal(tmp_path, dense)
    assert "holds predictions, not dialogs" in refusal(tmp_path, predictions)
    assert "holds dialogs, not dense annotations" in refusal(tmp_path, document, document)
    assert "holds predictions, not dense annotations" in refusal(tmp_path, document, predictions)
    assert "expected a list, got an object" in refusal(tmp_path, document, {})
    for other in ([], 3, None, "x"):
        assert "dialogs file" in refusal(tmp_path, other)


def test_swapped_splits_are_recognised(tiny, tmp_path):
    (tiny / "visdial_1.0_test.json").rename(tiny / "visdial_1.0_val.json")
    for split in (None, "val"):
        with pytest.raises(UserError, match="split is 'test', but val was asked for"):
            VisDial.load(tiny, split)
    document = make_document() | {"split": "val2018"}
    assert load(tmp_path, document).split == "val"
    assert "train was asked for" in refusal(tmp_path, document, split="train")
    assert load(tmp_path, document, split="mine").split == "mine"


@pytest.mark.parametrize("version", ["0.9", "0.9.1", 0.9])
def test_the_older_visdial_is_named(tmp_path, version):
    assert "this is VisDial v0.9; v1.0 is needed" in refusal(tmp_path, make_document() | {"version": version})


BROKEN = [
    (lambda b: b[:-40], r"line 1, column \d+: not valid JSON \(the file ends too early"),
    (lambda b: b"", r"line 1, column 1: not valid JSON \(the file ends too early"),
    (lambda b: b.replace(b"park", b"p\xe4rk", 1), r"line 1, column \d+: not UTF-8 text"),
    (lambda b: b.replace(b"park", b"\\ud800", 1), r"not valid JSON \("),
    (
        lambda b: b"\n\n  " + b.replace(b'"gt_index": ', b'"gt_index": NaN', 1),
        r"line 3, column \d+: not valid",
    ),
    (lambda b: b + b"{}", r"not valid JSON \(trailing characters\)"),
    (lambda b: b'{"x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "lists inside lists"),
    (lambda b: b"<!DOCTYPE html><html>404</html>", r"line 1, column 1: not valid JSON"),
    (lambda b: b"PK\x03\x04", r"line 1, column 1: not valid JSON"),
]


@pytest.mark.parametrize(("spoil", "expected"), BROKEN, ids=[expected for _, expected in BROKEN])
def test_what_is_no_json_is_refused_with_line_and_column(tmp_path, spoil, expected):
    path = tmp_path / "dialogs.json"
    path.write_bytes(spoil(json.dumps(make_document()).encode()))
    with pytest.raises(UserError, match=expected) as caught:
        VisDial.load(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 400


def test_bad_utf8_is_found_where_it_is(tmp_path):
    text = json.dumps(make_document(), indent=1).encode().replace(b"2 dogs in a park", b"2 dogs in a p\xe4rk")
    (tmp_path / "dialogs.json").write_bytes(text)
    at = text.index(b"\xe4")
    line, column = text.count(b"\n", 0, at) + 1, at - text.rindex(b"\n", 0, at)
    with pytest.raises(UserError, match=f"line {line}, column {column}: not UTF-8"):
        VisDial.load(tmp_path / "dialogs.json")


def test_one_round_is_not_called_rounds(tiny):
    test = VisDial.load(tiny, "test")
    one = next(dialog for dialog in test if len(dialog.rounds) == 1)
    assert ", 1 round): " in repr(one) and "· 1 round<" in test._repr_html_()
    assert "1 dialog<" in test[:1]._repr_html_() and f"{len(test)} dialogs<" in test._repr_html_()


def test_missing_files(tiny, tmp_path):
    with pytest.raises(UserError, match=r"no visdial_1.0_mini.json in folder .*visdial_1.0_train\.json"):
        VisDial.load(tiny, "mini")
    with pytest.raises(UserError, match=r"no visdial_1\.0_val\.json in .*split: did you mean tiny/ in it"):
        VisDial.load(tmp_path)
    with pytest.raises(
        UserError, match=r"split: it holds \d+\.jpg, .* and \d+ more; check the folder, or data"
    ):
        VisDial.load(tiny / "images")
    with pytest.raises(UserError, match="dialogs file not found"):
        VisDial.load(tmp_path / "none.json")
    with pytest.raises(
        UserError, match=r"data folder not found: .*none; `visdial-lab download` fetches VisDial"
    ):
        VisDial.load(tmp_path / "none", "val")
    with pytest.raises(UserError, match="dense annotations file not found"):
        VisDial.load(tiny, dense=tmp_path / "none.json")


# ---- what a notebook shows


def test_html_of_a_dialog(tiny):
    dialog = VisDial.load(tiny)[0]
    page = dialog._repr_html_()
    assert f'alt="{dialog.caption}"' in page
    assert all(t.question + "?" in page and t.answer.replace("'", "&#x27;") in page for t in dialog.rounds)
    data = re.search(r'src="data:image/jpeg;base64,([^"]+)"', page)[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (32, 24)


def test_html_escapes_everything_and_sets_no_solid_colour(tiny):
    path = tiny / "visdial_1.0_val.json"
    document = json.loads(path.read_text())
    evil = "<script>alert('x')</script>\"onload=\"x"
    document["data"]["questions"] = [evil] * 12
    document["data"]["answers"] = [evil] * 153
    for item in document["data"]["dialogs"]:
        item["caption"] = evil
    path.write_text(json.dumps(document))
    for page in (VisDial.load(tiny)[0]._repr_html_(), VisDial.load(tiny)._repr_html_()):
        assert "<script" not in page and '"onload' not in page and "&lt;script&gt;" in page
        # dark mode: text colour is inherited, backgrounds are see-through
        assert not re.search(r"(?<!-)color:(?!inherit)|background:(?!rgba)|#[0-9a-f]{6}", page)


def test_html_of_a_split_and_of_secret_answers(tiny):
    page = VisDial.load(tiny)._repr_html_()
    assert "VisDial val" in page and page.count("<img") == 4
    assert "not published" in VisDial.load(tiny, "test")[0]._repr_html_()
    assert page.count("<div") == page.count("</div>")


def test_a_dialog_without_its_options(tiny):
    import dataclasses

    val = VisDial.load(tiny, "val")
    for index, dialog in enumerate(val):
        bare = val.without_options(index)
        assert {turn.options for turn in bare.rounds} == {None}
        rounds = [dataclasses.replace(turn, options=None) for turn in dialog.rounds]
        assert bare == dataclasses.replace(dialog, rounds=tuple(rounds))


def test_answered_rounds_and_image_ids(tiny):
    for split in ("val", "test"):
        part = VisDial.load(tiny, split)[1:]
        assert part.image_ids == [dialog.image_id for dialog in part]
        assert list(part.answered()) == [
            (place, turn.round_id, turn.question)
            for place, dialog in enumerate(part)
            for turn in dialog.rounds
            if turn.answer is not None
        ]
