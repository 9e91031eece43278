"""The embedded world: data/scenes is what the recipe makes, byte for byte, and it says what it should."""

import json
import random
from collections import Counter
from pathlib import Path

import build_scenes
import dialogs
import facts
import pytest
import wordings
import world

SCENES = Path(__file__).resolve().parents[1] / "data" / "scenes"
MODEL = SCENES.parent / "gemma3-scenes"


@pytest.fixture(scope="module")
def built():
    return build_scenes.documents()


def test_the_recipe_rebuilds_every_json_file(built, tmp_path):
    files, _ = built
    committed = {path.name for path in SCENES.glob("*.json")}
    assert committed == set(files)
    for name, document in files.items():
        build_scenes._write_json(tmp_path / name, document)
        assert (tmp_path / name).read_bytes() == (SCENES / name).read_bytes(), name


@pytest.mark.parametrize(
    ("split", "index"), [("train", 0), ("train", 411), ("val", 7), ("val", 149), ("test", 20)]
)
def test_the_recipe_redraws_a_picture(split, index, tmp_path):
    scene, _, _ = build_scenes.make_dialog(split, index)
    build_scenes.save_image(scene, tmp_path / "picture.png")
    name = f"{build_scenes.FIRST_ID[split] + index:012d}.png"
    assert (tmp_path / "picture.png").read_bytes() == (SCENES / "images" / name).read_bytes()


def test_sizes():
    assert len(list((SCENES / "images").glob("*.png"))) == sum(build_scenes.SIZES.values())
    assert sum(path.stat().st_size for path in SCENES.rglob("*") if path.is_file()) <= 15e6
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= 25e6


def test_a_third_of_the_questions_are_follow_ups_and_every_kind_is_asked(built):
    card = built[0]["card.json"]
    assert card["follow_ups"] >= 1 / 3
    assert set(card["question_kinds"]) == {
        "existence", "counting", "color", "attribute", "position", "activity", "setting", "unknown",
    }  # fmt: skip
    assert min(card["question_kinds"].values()) >= 0.04


def test_test_answers_are_not_shipped():
    document = json.loads((SCENES / "visdial_1.0_test.json").read_text())
    lengths = Counter()
    for dialog in document["data"]["dialogs"]:
        lengths[len(dialog["dialog"])] += 1
        assert "answer" not in dialog["dialog"][-1]
        assert len(dialog["dialog"][-1]["answer_options"]) == 100
        assert all("answer_options" not in entry and "answer" in entry for entry in dialog["dialog"][:-1])
    assert lengths == {n: 5 for n in range(1, 11)}
    assert not (SCENES / "truth_test.json").exists()


def test_option_order_leaks_nothing(built):
    """VisDial's own order does: 39 % of its gt_index are 0 mod 10. Ours are spread evenly."""
    dialogs_json = built[0]["visdial_1.0_train.json"]["data"]["dialogs"]
    places = Counter(entry["gt_index"] % 10 for dialog in dialogs_json for entry in dialog["dialog"])
    assert max(places.values()) / sum(places.values()) < 0.12


def test_the_human_answer_is_an_option_and_options_differ(built):
    data = built[0]["visdial_1.0_val.json"]["data"]
    for dialog in data["dialogs"]:
        for entry in dialog["dialog"]:
            assert len(set(entry["answer_options"])) == 100
            assert entry["answer_options"][entry["gt_index"]] == entry["answer"]


def test_dense_relevance_is_the_truth(built):
    files, made = built
    data = files["visdial_1.0_val.json"]["data"]
    for entry, (_, _, turns) in zip(
        files["visdial_1.0_val_dense_annotations.json"], made["val"], strict=True
    ):
        number = entry["image_id"] - build_scenes.FIRST_ID["val"]
        options = data["dialogs"][number]["dialog"][entry["round_id"] - 1]["answer_options"]
        turn = turns[entry["round_id"] - 1]
        for option, relevance in zip(options, entry["gt_relevance"], strict=True):
            assert relevance == turn.answers.get(data["answers"][option], (0, 0.0))[1]
        assert max(entry["gt_relevance"]) == 1.0


def test_the_oracle_agrees_with_a_simulation(built):
    """Exact expectation against 200 random tie orders."""
    _, made = built
    pool = build_scenes.AnswerPool(made["train"])
    exact = build_scenes.oracle(made["val"][:20], "val", pool)
    rng, total, count = random.Random(0), 0.0, 0
    for index, (_, _, turns) in enumerate(made["val"][:20]):
        draw = random.Random(f"visdial-lab options val {index}")
        draw.randrange(len(turns))
        for turn in turns:
            options = build_scenes.options_for(turn, pool, draw)
            for _ in range(200):
                order = sorted(options, key=lambda o, t=turn: (-t.answers.get(o, (0, 0.0))[1], rng.random()))
                total, count = total + 1 / (1 + order.index(turn.answer)), count + 1
    assert exact["mrr"] == pytest.approx(total / count, abs=0.01)
    assert exact["mrr_wordings"] > exact["mrr"]


def test_wordings_are_distributions():
    rng = random.Random(1)
    for _ in range(100):
        scene = world.sample_scene(rng)
        every = facts.picture_facts(scene)
        for index in range(len(scene["things"])):
            every += facts.thing_facts(scene, index)
        for fact in every:
            assert sum(share for share, _ in fact.answers.values()) == pytest.approx(1)
            assert all(share > 0 and 0 < relevance <= 1 for share, relevance in fact.answers.values())
            assert not fact.named.endswith("?") and fact.named == fact.named.lower()


def test_things_of_a_row_do_not_overlap_and_stay_in_the_picture():
    rng = random.Random(2)
    for _ in range(300):
        things = world.sample_scene(rng)["things"]
        for thing in things:
            half = world.extent(thing)[0] / 2
            assert half <= thing["x"] <= 1 - half
            assert all(abs(thing["x"] - edge) >= 0.035 for edge in world.SIDES)


def test_she_has_been_mentioned_before():
    rng = random.Random(3)
    for _ in range(200):
        scene = world.sample_scene(rng)
        if not scene["things"]:
            continue
        caption, turns = dialogs.converse(scene, rng)
        for number, turn in enumerate(turns):
            said = " ".join([caption, *(t.question for t in turns[:number])])
            if turn.question.split()[-1] == "she" or " she " in turn.question:
                assert "woman" in said or "girl" in said, (caption, [t.question for t in turns])


def test_vague_words_are_only_partly_right():
    assert wordings.color("red")["red"][1] == 1.0
    assert wordings.number(3)["a few"][1] < 1.0


@pytest.mark.slow
def test_the_tokenizer_is_the_recipes():
    import gemma3_scenes

    tokenizer = gemma3_scenes.build_tokenizer(gemma3_scenes.corpus(4000, 0))
    committed = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer.get_vocab() == committed["model"]["vocab"]
