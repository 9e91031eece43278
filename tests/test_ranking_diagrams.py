"""Drawings that explain: they show what the code does, not what somebody thinks that it does."""

import numpy as np
import pytest
import tiny_model
import torch
from conftest import drawn

from visdial_lab import ranking, ranking_diagrams
from visdial_lab.forest import lay_out, plant, visible
from visdial_lab.metrics import ndcg
from visdial_lab.models import load_model

# Token ids of two rounds' candidates: 9 ends each; in the first round two begin alike.
CANDIDATES = [[[1, 2, 9], [1, 3, 9], [2, 9]], [[4, 5, 9], [4, 9]]]
WORDS = {0: "<pad>", 1: "it▁", 2: "red", 3: "blue", 4: "in", 5: "front", 9: "<end_of_turn>"}


@pytest.fixture
def forest():
    kinds = torch.tensor([0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    trunk = {"input_ids": torch.zeros(10, dtype=int), "token_type_ids": kinds}
    return plant(CANDIDATES, np.array([5, 9]), trunk, [0, 3])


def texts(forest):
    return [WORDS[token] for token in forest.token]


def test_the_tree_shows_every_token_of_the_candidates(forest):
    figure = ranking_diagrams.ranking_tree(forest, texts(forest))
    tree = [text.get_text() for text in figure.axes[0].texts]
    assert tree[:3] == ["picture\n4 tokens", "caption, Q1\n2 tokens", "A1 … Q4\n4 tokens"]
    assert sorted(tree[3:]) == sorted(["it", "red", "blue", "red", "in", "front"] + ["■"] * 5)


def test_the_mask_is_the_one_that_ranking_works_with(forest, monkeypatch, tmp_path, one_thread):
    seen = {}

    def layers(decoder, hidden, positions, sees, distance, join, piece):
        seen["mask"] = sees
        return hidden

    model, _ = load_model(tiny_model.build(tmp_path))
    rows = lay_out([forest], 10, len(forest.inner))
    monkeypatch.setattr(ranking, "run_layers", layers)
    kept = [(torch.zeros(1, 1, 10, 4), torch.zeros(1, 1, 10, 4))]
    with torch.inference_mode():
        ranking._read_rows(model, kept, rows, slice(None), None)
    assert np.array_equal(seen["mask"].numpy(), visible(rows, 10))


def test_a_cell_is_filled_where_a_token_may_look(forest):
    figure = ranking_diagrams.ranking_tree(forest, texts(forest))
    mask = figure.axes[1]
    filled = [(round(p.get_x() + 0.46), round(p.get_y() + 0.46)) for p in mask.patches if p.get_lw() == 1]
    count = len(forest.inner)
    names = [text.get_text() for text in mask.texts]
    assert names[3 : 3 + count] == names[-count:]
    rows = {name: {x for x, y in filled if y == n} for n, name in enumerate(names[-count:])}
    assert rows["blue"] == {0, 1, 3 + names[-count:].index("it"), 3 + names[-count:].index("blue")}
    assert {0, 1, 2} < rows["front"] and len(rows["front"]) == 5


def test_a_text_model_has_no_picture_in_its_trunk():
    trunk = {"input_ids": torch.zeros(6, dtype=int), "token_type_ids": torch.zeros(6, dtype=int)}
    forest = plant(CANDIDATES[:1], np.array([5]), trunk, [2])
    text = drawn(ranking_diagrams.ranking_tree(forest, texts(forest)))
    assert "caption … Q3\n6 tokens" in text and "picture" not in text


def test_what_ndcg_rewards_is_ndcg():
    relevance, options = [0.0, 1.0, 0.0, 0.5, 1.0], ["a", "b", "c", "d", "e" * 40]
    ranks = np.array([1, 2, 5, 3, 4])
    figure = ranking_diagrams.ndcg_rewards({"after": ranks}, relevance, options)
    after, best = figure.axes
    value = ndcg(-ranks[None], [relevance])
    assert after.get_title(loc="left").endswith(f"= {value:.2f}")
    bars = [bar.get_width() for bar in after.patches]
    assert bars[:3] == pytest.approx([1, 1 / np.log2(3), 0.5]) and bars[3:] == pytest.approx(
        [0, 1 / np.log2(3), 0.25]
    )
    assert sum(bars[3:]) / sum(bar.get_width() for bar in best.patches[3:]) == pytest.approx(value)
    labels = [label.get_text() for label in after.get_yticklabels()]
    assert labels == ["a", "b", "d"] and "…" in drawn(figure), "the three places that count"
