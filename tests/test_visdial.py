"""Reading VisDial: the real files load, and every broken one is refused with the exact place."""

import base64
import copy
import io
import json
import math
import re
import zlib

import pytest
from conftest import make_dense, make_document
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visdial_lab.errors import UserError
from visdial_lab.visdial import Dialog, Round, VisDial


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


def test_real_val(shared_data):
    folder = shared_data / "visdial"
    dense = folder / "visdial_1.0_val_116_dense_annotations.json"
    val = VisDial.load(folder / "visdial_1.0_val_116.json", dense=dense)
    assert len(val) == 116 and val.split == "val"
    assert sum(len(d.rounds) for d in val) == 1160
    assert sum(t.relevance is not None for d in val for t in d.rounds) == 116
    first = val[0]
    assert first.image_id == 185565
    assert first.caption == "a bedroom is filled with lots of posters and a busy computer desk"
    assert first.image_path is None and "<img" not in first._repr_html_()


def test_real_test_and_text_only(shared_data):
    test = VisDial.load(shared_data / "visdial" / "visdial_1.0_test_first50.json")
    assert len(test) == 50 and test.split == "test"
    for dialog in test:
        assert [t.options is None for t in dialog.rounds] == [True] * (len(dialog.rounds) - 1) + [False]
    text = VisDial.load(shared_data / "visdial" / "visdial_1.0_val_text_1851.json")
    assert len(text) == 1851 and all(t.options is None and t.answer for d in text[:50] for t in d.rounds)


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
    (lambda d: put(d, "data", []), "data should be an object, is []"),
    (lambda d: put(d, "split", 3), "split should be text"),
    (lambda d: d["data"].pop("answers"), "data.answers is missing"),
    (lambda d: put(d["data"], "questions", {}), "data.questions should be a list"),
    (lambda d: put(d["data"]["questions"], 3, None), "data.questions[3] should be text, is null"),
    (lambda d: put(d["data"]["answers"], 7, "a\ud800"), "data.answers[7] holds half a character"),
    (lambda d: put(d["data"], "dialogs", []), "data.dialogs is empty"),
    (lambda d: put(d["data"]["dialogs"], 1, 5), "data.dialogs[1] should be an object"),
    (lambda d: entry(d).pop("image_id"), "data.dialogs[1].image_id is missing"),
    (lambda d: put(entry(d), "image_id", "2"), "data.dialogs[1].image_id should be a whole number, is '2'"),
    (lambda d: put(entry(d), "image_id", True), "data.dialogs[1].image_id should be a whole number, is True"),
    (lambda d: put(entry(d), "image_id", -1), "data.dialogs[1].image_id is -1"),
    (lambda d: put(entry(d), "image_id", 10**13), "data.dialogs[1].image_id is 10000000000000"),
    (
        lambda d: put(entry(d), "image_id", 1),
        "data.dialogs[1].image_id 1 was used by data.dialogs[0] already",
    ),
    (lambda d: entry(d).pop("caption"), "data.dialogs[1].caption is missing"),
    (lambda d: put(entry(d), "caption", 1), "data.dialogs[1].caption should be text"),
    (lambda d: put(entry(d), "caption", "\udfff"), "data.dialogs[1].caption holds half a character"),
    (lambda d: put(entry(d), "dialog", []), "data.dialogs[1].dialog is empty"),
    (lambda d: put(entry(d), "dialog", {}), "data.dialogs[1].dialog should be a list"),
    (lambda d: put(entry(d)["dialog"], 0, []), "data.dialogs[1].dialog[0] should be an object"),
    (lambda d: turn(d).pop("question"), PLACE + "question is missing"),
    (lambda d: put(turn(d), "question", 12), PLACE + "question is 12, expected 0 to 11"),
    (lambda d: put(turn(d), "question", 1.0), PLACE + "question should be a whole number"),
    (lambda d: put(turn(d), "answer", -1), PLACE + "answer is -1"),
    (lambda d: turn(d).pop("answer"), PLACE + "gt_index points at answer"),
    (lambda d: turn(d).pop("gt_index"), PLACE + "gt_index is missing"),
    (lambda d: put(turn(d), "gt_index", 100), PLACE + "gt_index is 100, expected 0 to 99"),
    (
        lambda d: put(turn(d), "gt_index", (turn(d)["gt_index"] + 1) % 100),
        PLACE + "gt_index points at answer",
    ),
    (lambda d: put(turn(d), "gt_index", None), PLACE + "gt_index should be a whole number, is null"),
    (lambda d: turn(d).pop("answer_options"), PLACE + "gt_index is there, but answer_options is missing"),
    (lambda d: turn(d)["answer_options"].pop(), PLACE + "answer_options has 99 entries, expected 100"),
    (lambda d: put(turn(d), "answer_options", None), PLACE + "answer_options should be a list"),
    (lambda d: put(turn(d)["answer_options"], 4, 153), PLACE + "answer_options[4] is 153, expected 0 to 152"),
    (lambda d: put(turn(d)["answer_options"], 4, -1), PLACE + "answer_options[4] is -1"),
    (lambda d: put(turn(d)["answer_options"], 4, False), PLACE + "answer_options[4] is False"),
    (lambda d: put(turn(d)["answer_options"], 4, "no"), PLACE + "answer_options[4] is 'no'"),
    (lambda d: (turn(d).pop("answer_options"), turn(d).pop("gt_index")), PLACE + "answer_options is missing"),
]


@pytest.mark.parametrize(("spoil", "expected"), MISTAKES, ids=[expected for _, expected in MISTAKES])
def test_mistakes_in_dialogs(tmp_path, spoil, expected):
    document = make_document()
    spoil(document)
    text = refusal(tmp_path, document)
    assert f"dialogs file {tmp_path / 'dialogs.json'}: {expected}" in text


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
    (lambda a: put(a, 1, None), "[1] should be an object"),
    (lambda a: a[1].pop("image_id"), "[1].image_id is missing"),
    (lambda a: put(a[1], "image_id", 99), "[1].image_id 99 is not in"),
    (lambda a: put(a[1], "image_id", True), "[1].image_id should be a whole number"),
    (lambda a: put(a[1], "round_id", 0), "[1].round_id is 0, expected 1 to 3"),
    (lambda a: put(a[1], "round_id", 4), "[1].round_id is 4, expected 1 to 3"),
    (lambda a: put(a[1], "round_id", 2.0), "[1].round_id should be a whole number"),
    (lambda a: a.append(a[1]), "[4] annotates round 2 of image 2 a second time"),
    (lambda a: a[1].pop("gt_relevance"), "[1].gt_relevance is missing"),
    (lambda a: a[1]["gt_relevance"].pop(), "[1].gt_relevance has 99 entries, expected 100"),
    (lambda a: put(a[1], "gt_relevance", "1"), "[1].gt_relevance should be a list"),
    (lambda a: put(a[1]["gt_relevance"], 5, math.nan), "[1].gt_relevance[5] is nan"),
    (lambda a: put(a[1]["gt_relevance"], 5, math.inf), "[1].gt_relevance[5] is inf"),
    (
        lambda a: put(a[1]["gt_relevance"], 5, 1.2),
        "[1].gt_relevance[5] is 1.2, expected a number from 0 to 1",
    ),
    (lambda a: put(a[1]["gt_relevance"], 5, -0.2), "[1].gt_relevance[5] is -0.2"),
    (lambda a: put(a[1]["gt_relevance"], 5, True), "[1].gt_relevance[5] is True"),
    (lambda a: put(a[1]["gt_relevance"], 5, 10**400), "[1].gt_relevance[5] is 1000"),
    (lambda a: put(a[1]["gt_relevance"], 5, "1"), "[1].gt_relevance[5] is '1'"),
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
    assert "expected a list of annotations" in refusal(tmp_path, document, {})
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


def test_missing_files(tiny, tmp_path):
    with pytest.raises(UserError, match=r"no visdial_1.0_mini.json in folder .*visdial_1.0_train\.json"):
        VisDial.load(tiny, "mini")
    with pytest.raises(UserError, match="dialogs file not found"):
        VisDial.load(tmp_path / "none.json")
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


# ---- anything at all


DOCUMENT = make_document(dialogs=2, rounds=2)
DENSE = make_dense(DOCUMENT)
ODD = st.sampled_from(
    [None, True, -1, 0, 1, 99, 100, 153, 10**20, 1.5, math.nan, "", "\ud800", "x", [], {}, [[]]]
)


def nodes(tree, path=()):
    """Paths of all places in a JSON tree."""
    yield path
    for key, value in (
        tree.items() if isinstance(tree, dict) else enumerate(tree if isinstance(tree, list) else ())
    ):
        yield from nodes(value, (*path, key))


def mutate(tree, path, how, value):
    """A copy of the tree with the place at `path` replaced, deleted or doubled."""
    if not path:
        return value
    tree = copy.deepcopy(tree)
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    if how == "replace":
        holder[path[-1]] = value
    elif how == "delete":
        del holder[path[-1]]
    elif isinstance(holder, list):
        holder.append(holder[path[-1]])
    return tree


# The 100 options would drown everything else: keep a few of each list.
PLACES = [
    (0, p)
    for p in nodes(DOCUMENT)
    if not (isinstance(p[-1:], tuple) and p and type(p[-1]) is int and p[-1] > 3)
]
PLACES += [(1, p) for p in nodes(DENSE) if not (p and type(p[-1]) is int and p[-1] > 3)]


def read_everything(folder):
    """A load that succeeds must be readable to the end."""
    try:
        dialogs = VisDial.load(folder / "dialogs.json", dense=folder / "dense.json")
    except UserError as error:
        assert len(str(error).splitlines()) <= 2 and len(str(error)) < 700
        return
    for dialog in dialogs:
        json.dumps([dialog.image_id, dialog.caption], ensure_ascii=False).encode()
        for one in dialog.rounds:
            assert one.options is None or len(one.options) == 100
            assert one.gt_index is None or one.options[one.gt_index] == one.answer
            assert one.relevance is None or all(0 <= x <= 1 for x in one.relevance)
    assert dialogs._repr_html_()


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["replace", "delete", "double"]), ODD),
        min_size=1,
        max_size=2,
        unique_by=lambda change: change[0][0],
    )
)
def test_fuzzed_trees(tmp_path_factory, changes):
    trees = [DOCUMENT, DENSE]
    for (which, path), how, value in changes:
        trees[which] = mutate(trees[which], path, how, value)
    folder = tmp_path_factory.mktemp("tree")
    (folder / "dialogs.json").write_text(json.dumps(trees[0]))
    (folder / "dense.json").write_text(json.dumps(trees[1]))
    read_everything(folder)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1), st.floats(0, 1), st.binary(max_size=3))
def test_truncated_and_corrupted_bytes(tmp_path_factory, which, where, noise):
    contents = [json.dumps(DOCUMENT).encode(), json.dumps(DENSE).encode()]
    cut = int(where * len(contents[which]))
    rest = contents[which][cut + len(noise) :] if zlib.crc32(noise) % 2 else b""
    contents[which] = contents[which][:cut] + noise + rest
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "dialogs.json").write_bytes(contents[0])
    (folder / "dense.json").write_bytes(contents[1])
    read_everything(folder)
