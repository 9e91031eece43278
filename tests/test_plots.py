"""Figures: that they show the numbers they were given, and draw on any data, however small."""

import sys

import numpy as np
import pytest

from visdial_lab import VisDial, plots

RUNS = {
    "before": {"metrics": {"mrr": 0.3, "ndcg": 0.4}, "intervals": {"mrr": [0.25, 0.35], "ndcg": [0.3, 0.5]}},
    "after": {"metrics": {"mrr": 0.6}, "intervals": {"mrr": [0.55, 0.65]}},
    "oracle": {"metrics": {"mrr": 0.7, "ndcg": 1.0}, "intervals": {}},
}


@pytest.fixture
def val(tiny):
    return VisDial.load(tiny, "val")


def drawn(figure) -> str:
    """Draw the figure; returns all of its text."""
    import matplotlib.text

    figure.canvas.draw()
    texts = figure.findobj(matplotlib.text.Text)
    texts += [label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    return "\n".join(text.get_text() for text in texts)


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
