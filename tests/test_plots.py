"""Figures: that they show the numbers they were given, and draw on any data, however small."""

import sys

import numpy as np
import pytest
from conftest import drawn

from visdial_lab import VisDial, diagrams, plots

RUNS = {
    "before": {"metrics": {"mrr": 0.3, "ndcg": 0.4}, "intervals": {"mrr": [0.25, 0.35], "ndcg": [0.3, 0.5]}},
    "after": {"metrics": {"mrr": 0.6}, "intervals": {"mrr": [0.55, 0.65]}},
    "oracle": {"metrics": {"mrr": 0.7, "ndcg": 1.0}, "intervals": {}},
}


def test_pyplot_is_not_touched(val):
    before = "matplotlib.pyplot" in sys.modules
    drawn(plots.lengths(val))
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_question_kinds_are_shares_of_first_words(val):
    text = drawn(plots.question_kinds(val, top=2))
    assert "is the …" in text and "100.0%" in text


def test_counts_keep_their_order_and_write_whole_numbers_as_such():
    figure = plots.counts({"b": 2, "a": 30})
    assert "30" in drawn(figure)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    assert axes.yaxis_inverted()


def test_lengths_have_one_panel_for_each_kind_of_text(val):
    figure = plots.lengths(val)
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == [
        "caption",
        "question",
        "answer",
    ]
    for axes in figure.axes:
        assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1)


def test_answer_popularity_ends_at_everything(val):
    line = plots.answer_popularity(val).axes[1].lines[0]
    assert line.get_ydata()[0] == 0 and line.get_ydata()[-1] == pytest.approx(1)


def test_answers_that_are_not_published_are_left_out(tiny):
    test = VisDial.load(tiny, "test")
    drawn(plots.lengths(test))
    drawn(plots.answer_popularity(test))


def test_loss_curve_with_and_without_validation():
    history = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_loss": 2.5}]
    text = drawn(plots.loss_curve(history))
    assert "training" in text and "validation" in text
    assert "validation" not in drawn(plots.loss_curve(history[:2]))
    parts = [{"step": step, "loss": 5.0, "answer_loss": 3.0, "contrastive_loss": 2.0} for step in (1, 2)]
    figure = plots.loss_curve(parts)
    assert "contrastive" in drawn(figure) and "contrastive" not in text
    assert figure.axes[0].lines[0].get_ydata().tolist() == [3.0, 3.0]


def test_loss_curve_of_a_run_too_short_to_log(recwarn):
    drawn(plots.loss_curve([]))
    assert not recwarn.list


def test_loss_curve_shows_the_slope_behind_the_cliff():
    axes = plots.loss_curve([{"step": 1, "loss": 9.0}, {"step": 2, "loss": 0.6}]).axes[0]
    assert axes.get_yscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.5", "1", "2", "5", "10"]


def measured(sweep, value, mrr, trainable=100, **gain):
    minus = {"minus profile": {"mrr": {"interval": gain["interval"]}}} if gain else {}
    return {"sweep": sweep, "value": value, "metrics": {"mrr": mrr}, "trainable": trainable} | minus


def test_sweeps_have_a_panel_a_setting_with_the_profile_in_its_place():
    runs = {
        "profile": measured("seed", 3407, 0.60),
        "seed-1": measured("seed", 1, 0.62, interval=[0, 0.04]),
        "seed-2": measured("seed", 2, 0.59, interval=[-0.03, 0.01]),
        "rank-64": measured("rank", 64, 0.61, interval=[-0.01, 0.03]),
        "rank-2": measured("rank", 2, 0.50, interval=[-0.15, -0.05]),
        "modules-mlp": measured("modules", "mlp", 0.58, 70, interval=[-0.04, 0.0]),
        "modules-all": measured("modules", "all", 0.60, 130, interval=[-0.01, 0.01]),
    }
    figure = plots.sweeps(runs, {"rank": "16", "modules": "attention and mlp"})
    drawn(figure)
    rank, modules = figure.axes
    assert [label.get_text() for label in rank.get_xticklabels()] == ["2", "16", "64"]
    names = [label.get_text() for label in modules.get_xticklabels()]
    assert names == ["mlp", "attention\nand mlp", "all"], "by how much is trained"
    assert list(rank.lines[0].get_ydata()) == [0.50, 0.60, 0.61]
    assert list(rank.lines[-1].get_xdata()) == [1], "the profile's point is filled"
    whiskers = [segment[:, 1] for segment in rank.collections[0].get_segments()]
    assert np.allclose(whiskers, [[0.45, 0.55], [0.6, 0.6], [0.59, 0.63]])
    band = rank.patches[0]
    assert np.allclose([band.get_y(), band.get_height()], [0.59, 0.03]), "worst and best seed"


@pytest.mark.parametrize("shape", [(1024, 256, 16), (2560, 10240, 16), (12, 12, 2), (1, 1, 1), (4, 3, 64)])
def test_lora_update_is_to_scale_and_counts(shape):
    rows, columns, r = shape
    figure = diagrams.lora_update(*shape)
    text = drawn(figure)
    assert f"{rows:,} by {columns:,}\n{rows * columns:,} numbers" in text
    assert f"{rows:,} by {r:,}" in text and f"{r:,} by {columns:,}" in text
    assert f"{r * (rows + columns) / (rows * columns):.1%} as many numbers" in text
    w, b, a = figure.axes[0].patches
    assert w.get_width() / w.get_height() == pytest.approx(columns / rows)
    assert b.get_height() == w.get_height() and a.get_width() == w.get_width()
    assert b.get_width() == a.get_height() == max(w.get_height() * r / rows, 0.03)
    width, height = figure.get_size_inches()
    for patch in (w, b, a):
        assert patch.get_x() >= 0 and patch.get_x() + patch.get_width() <= width
        assert patch.get_y() >= 0 and patch.get_y() + patch.get_height() <= height


def test_lora_update_of_nothing():
    with pytest.raises(ValueError, match="1 or more, are 4, 3, 0"):
        diagrams.lora_update(4, 3, 0)


def test_metric_bars_show_runs_intervals_and_the_oracle():
    figure = plots.metric_bars(RUNS)
    text = drawn(figure)
    assert "0.600" in text and "oracle 0.700" in text and "oracle 1.000" in text
    mrr, ndcg = figure.axes
    assert [bar.get_width() for bar in mrr.patches] == [0.3, 0.6]
    assert [bar.get_width() for bar in ndcg.patches] == [0.4, pytest.approx(np.nan, nan_ok=True)]
    assert "nan" not in text, "after has no NDCG"
    whiskers = [segment[:, 0] for segment in mrr.collections[0].get_segments()]
    assert np.allclose(whiskers, [[0.25, 0.35], [0.55, 0.65]])
    assert "before" in text and "oracle" not in [label.get_text() for label in mrr.get_yticklabels()]
    assert mrr.yaxis_inverted(), "the first on top"


def test_metric_bars_without_oracle():
    text = drawn(plots.metric_bars({"mine": {"metrics": {"mrr": 0.25}}}))
    assert "0.250" in text and "oracle" not in text


def test_rank_histogram_adds_up():
    ranks = {"before": np.array([1, 100, 7, 7]), "after": np.array([1, 1, 2, 51])}
    axes = plots.rank_histogram(ranks).axes[0]
    bars = np.array([bar.get_height() for bar in axes.patches]).reshape(2, -1)
    assert bars.sum(axis=1) == pytest.approx([1, 1])
    assert bars[1, 0] == 0.5 and bars[0, -1] == 0.25  # rank 1, and the last bin


def test_quantisation_draws_every_level():
    levels = np.linspace(-1, 1, 16)
    figure = plots.quantisation(np.linspace(-1, 1, 640).reshape(10, 64), levels)
    assert "4 bits" in drawn(figure)
    assert len(figure.axes[0].collections[0].get_segments()) == 16


def test_matrices_name_their_shapes():
    text = drawn(plots.matrices({"A": np.zeros((2, 12)), "B": np.ones((12, 2))}))
    assert "2 by 12" in text and "12 by 2" in text


def test_pictures_are_all_there(val):
    figure = plots.pictures(val, columns=3)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [str(d.image_id) for d in val]
    assert all(axes.images for axes in figure.axes)
