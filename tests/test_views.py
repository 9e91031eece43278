"""Views: what is shown, in which order, escaped, and self-contained."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from visdial_lab import plots, views
from visdial_lab.visdial import Dialog, Round

NASTY = "<script>alert('x')</script> & \"quotes\""


class Balanced(HTMLParser):
    """Complains about a tag that is closed without having been opened, or never closed."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag


def result(mrr, **others):
    return {"metrics": {"mrr": mrr} | others, "intervals": {"mrr": [mrr - 0.05, mrr + 0.05]}}


def text_of(markup):
    return re.sub(r"<[^>]+>", "|", markup)


@pytest.fixture
def dialog():
    rounds = (
        Round(1, "is it red", "yes", None, None, None),
        Round(2, NASTY, NASTY, None, None, None),
        Round(3, "what else", None, None, None, None),
    )
    return Dialog(7, NASTY, rounds, None, "val")


def test_rows_are_in_the_order_of_the_story_and_unknown_runs_come_last():
    names = ["mine", "after", "oracle", "before", "random"]
    table = views.metric_table({name: result(0.5) for name in names})
    Balanced(table)
    rows = re.findall(r"<b [^>]*>([^<]*)</b>", table)
    assert rows == ["random", "before", "after", "oracle", "mine"]


def test_values_intervals_and_bars():
    runs = {"after": result(0.6, mean=12.345, ndcg=1.0), "oracle": {"metrics": {"mrr": 0.7}}}
    table = views.metric_table(runs)
    said = text_of(table)
    assert "0.600" in said and "0.550 to 0.650" in said and "12.3" in said
    assert "width:60.0%" in table and "left:55.0%;width:10.0%" in table
    assert "0.700" in said and said.count("—") == 2, "the oracle has neither NDCG nor mean rank here"
    assert "R@1" not in said, "nobody measured it"


def test_names_of_runs_are_escaped():
    table = views.metric_table({NASTY: result(0.5)})
    assert "<script" not in table and "&lt;script&gt;" in table


def test_a_dialog_with_answers_and_ranks(dialog):
    columns = {
        "before": {1: {"answer": "no", "rank": 40}, 2: {"answer": NASTY}},
        "after": {
            1: {"answer": "Yes.", "rank": 1, "reminder": "is the <b>dog</b> red?"},
            2: {"rank": 11},
            3: {"answer": "so"},
        },
    }
    card = views.dialog_card(dialog, columns)
    Balanced(card)
    assert "<script" not in card
    said = text_of(card)
    assert card.index("is the &lt;b&gt;dog") < card.index("Yes.") and card.count("italic") == 1
    assert "#40" in said and "#1|" in said and "#11" in said
    assert card.count("✓") == 2, "the answers that say what the human said: Yes. and the nasty one"
    assert "not published" in said and "no image" in said


def test_a_dialog_without_models(dialog):
    card = views.dialog_card(dialog, {})
    Balanced(card)
    assert "is it red?" in card and "#" not in text_of(card).replace("&#", "")


def test_the_colour_of_a_rank():
    rounds = tuple(Round(n, "is it red", "yes", None, None, None) for n in (1, 2, 5, 6, 10, 11, 100))
    columns = {"after": {turn.round_id: {"rank": turn.round_id} for turn in rounds}}
    card = views.dialog_card(Dialog(7, "", rounds, None, "val"), columns)
    grounds = re.findall(r"rgba\([^)]*,\.24\)", card)
    assert len(grounds) == 7 and len(set(grounds)) == 4
    assert grounds[1] == grounds[2] and grounds[3] == grounds[4] and grounds[5] == grounds[6]


def test_a_chat_stands_side_by_side_and_is_escaped(dialog):
    columns = {"before": [("is it?", NASTY)], "after": [("is it?", "yes"), (NASTY, "no")], "mine": []}
    card = views.chat_card(dialog, columns, problem=NASTY)
    Balanced(card)
    assert "<script" not in card
    said = text_of(card)
    assert said.index("the base model") < said.index("fine-tuned with QLoRA") < said.index("mine")
    assert said.count("nothing asked yet") == 1 and card.count('role="alert"') == 1
    assert 'aria-label="conversation with after"' in card
    assert 'role="alert"' not in views.chat_card(dialog, {"after": [("a", "b")]})


ROUND = Round(6, "what about <it>", "red & blue", ("on", "off", "red & blue", "far", NASTY), 2, None)


def rows_of(card):
    return [re.sub(r"[|\s]+", " ", text_of(row)).strip() for row in card.split('role="listitem"')[1:]]


def test_a_ranking_shows_the_best_and_the_human_answer():
    card = views.ranking_card(ROUND, {"after": np.array([3.0, 2.0, 1.0, 4.0, 0.0])}, top=2)
    Balanced(card)
    assert "<script" not in card and "&lt;it&gt;" in card
    best, second, human = rows_of(card)
    assert "#1 far" in best and "#2 on" in second and "#4 red &amp; blue ✓" in human
    assert "▲" not in card and card.count("1px dashed") == 1, "there is a gap before the human answer"
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", card)]
    assert widths == sorted(widths, reverse=True) and sum(widths) < 100


def test_a_ranking_that_changed_says_how_far_things_moved():
    usual = {"after": np.array([1.0, 2.0, 5.0, 4.0, 3.0])}
    now = {"after": np.array([5.0, 2.0, 1.0, 4.0, 3.0])}
    card = views.ranking_card(ROUND, now, usual, changed="no <picture>", top=4)
    Balanced(card)
    rows = rows_of(card)
    assert "▲4" in rows[0] and 'aria-label="up 4"' in card and "▼4" in rows[-1]
    assert "▲" not in rows[1] and "▼" not in rows[1], "that one stayed"
    said = re.sub(r"[|\s]+", " ", text_of(card))
    assert "human answer at #5 else #1" in said and "no &lt;picture&gt;" in card


def test_two_metrics_of_one_ranking():
    turn = dataclasses.replace(ROUND, relevance=(0.5, 0.0, 1.0, 1.0, 0.0))
    card = views.two_metrics_card(turn, [1, 3, 5, 2, 4])
    Balanced(card)
    assert "<script" not in card
    gained, possible = 0.5 + 1 / np.log2(3), 1 + 1 / np.log2(3) + 0.25
    assert f"NDCG |{gained / possible:.2f}" in text_of(card) and "reciprocal rank |0.20" in text_of(card)
    assert "the first 3 places count; what is relevant is at #1, #2, #5" in card
    rows = rows_of(card)
    places = [re.search(r"#\d", row)[0] for row in rows]
    assert places == ["#1", "#2", "#3", "#4", "#5"], "the places that count, the next, and the human's"
    assert "✓" in rows[-1] and "relevance 1" in rows[-1]


def test_a_run_on_fewer_rounds_says_so():
    runs = {"after": result(0.6) | {"n_rounds": 1500}, "blind": result(0.4) | {"n_rounds": 500}}
    assert "on 500 of the 1,500 rounds" in text_of(views.metric_table(runs | {"oracle": result(0.7)}))
    assert "of the" not in text_of(views.metric_table({"after": result(0.6)}))


def test_tokens_that_carry_loss_stand_out():
    strip = views.token_strip([("<start_of_turn>", False), ("model\n", False), (" yes", True)])
    Balanced(strip)
    assert "&lt;start_of_turn&gt;" in strip and "model↵" in strip and "\u00a0yes" in strip
    assert strip.count("carries loss") == 1 and strip.count("read only") == 2


def test_the_tokens_of_a_picture_are_one_box():
    pairs = [("<bos>", False), *[("<image_soft_token>", False)] * 64, (" yes", True), (" yes", True)]
    strip = views.token_strip(pairs)
    assert "64 × &lt;image_soft_token&gt;" in strip and strip.count("image_soft") == 1
    assert strip.count("carries loss") == 2, "what comes twice is shown twice"


def test_a_turn_somebody_typed():
    pairs = [("a", False), ("\n", False), (NASTY, False), ("no", True), ("<end_of_turn>", True)]
    typed = [(NASTY, False), ("<end_of_turn>", True)]
    card = views.turn_card(pairs, typed, [(NASTY, False), (" <", False)])
    Balanced(card)
    assert "<script" not in card and "<end_of_turn>" not in card
    said = text_of(card)
    assert "5 tokens, 2 of them with loss" in said
    assert "2 tokens, 1 of them control" in said and "2 tokens, none of them control" in said
    assert card.count('title="control token"') == 1 and card.count('title="carries loss"') == 2


def test_a_turn_without_control_tokens_or_answer():
    card = views.turn_card([("is", False)], [("is", False)], [("is", False)])
    Balanced(card)
    assert "nothing to disarm" in card and "without an answer" in card
    assert card.count("none of them control") == 1


@pytest.fixture
def guess():
    options = (NASTY, "it is red", "yes", "dark red")
    rounds = (
        Round(1, "is it red", "yes", options, 2, None),
        Round(2, "what color", "it is red", options, 1, (0.0, 0.5, 0.0, 1.0)),
        Round(3, NASTY, None, None, None, None),
    )
    return Dialog(7, NASTY, rounds, None, "val")


def test_guessing_tells_nothing_before_it_is_asked_to(guess):
    card = views.guess_card(guess, 2)
    Balanced(card)
    assert "<script" not in card and "no image" in card
    said = text_of(card)
    assert "is it red?" in said and "2 · what color?" in said and "your turn" in said
    assert NASTY not in said.partition("2 · what color")[2].partition("4 candidates")[0]
    assert "✓" not in card and "relevance is known for this round" in said and "1.0" not in said
    assert said.index("it is red") < said.index("dark red"), "as in the file"


def test_guessing_revealed(guess):
    card = views.guess_card(guess, 2, reveal=True)
    Balanced(card)
    assert card.count("✓") == 1 and card.count('title="the human answer"') == 1
    said = text_of(card).partition("4 candidates")[2]
    assert said.index("dark red") < said.index("1.0") < said.index("it is red") < said.index("0.5")
    assert "known for round 2" in views.guess_card(guess, 1, reveal=True)


def test_guessing_looks_for_words_and_says_when_there_are_none(guess):
    card = views.guess_card(guess, 2, find="  RED ")
    Balanced(card)
    assert "2 of 4 candidates hold “RED”" in card and "yes" not in text_of(card).partition("hold")[2]
    nothing = views.guess_card(guess, 2, find="<b>")
    Balanced(nothing)
    assert "none of 4 candidates holds “&lt;b&gt;”" in nothing and "tabindex" not in nothing


def test_guessing_on_what_has_no_candidates_and_beyond_the_end(guess):
    card = views.guess_card(guess, 99, reveal=True)
    Balanced(card)
    assert "3 · &lt;script" in card and "no candidates" in card and "not published" in card
    assert views.guess_card(guess, 0) == views.guess_card(guess, 1)
    plain = Dialog(7, "", (Round(1, "is it red", "yes", ("yes",), 0, None),), None, "val")
    assert "relevance is not known here" in text_of(views.guess_card(plain, 1))


def test_figures_are_inside_the_page_and_the_same_every_time():
    def draw():
        return views.figure_html(plots.counts({"a": 3, "b": 2}), 'bars "a" & b')

    assert draw() == draw()
    assert draw().startswith('<img alt="bars &#34;a&#34; &amp; b" src="data:image/svg+xml;base64,')


ROWS = [
    {"step": 10, "loss": 5.14, "learning_rate": 2.7e-3},
    {"step": 20, "loss": 0.87, "learning_rate": 3e-3},
    {"step": 20, "eval_loss": 0.9},
]


def points(markup):
    """Where the loss's dots are: [(x, y)]."""
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', markup)]


def test_training_plot_says_where_it_stands_and_draws_what_came():
    markup = views.training_plot(ROWS, total=120, seconds_left=31.4)
    Balanced(markup)
    text = text_of(markup)
    assert "step 20 of 120" in text and "loss 0.87" in text and "learning rate 3.0e-03" in text
    assert "31 s left" in text and 'role="img"' in markup
    assert 'aria-label="loss curve up to step 20 of 120, now 0.87"' in markup
    (left, high), (right, low) = points(markup)
    assert left == 50 and right == 100, "a twelfth and a sixth of 600"
    assert high < low, "the loss falls, and y grows downwards"
    assert not re.search(r"<(script|style|link)", markup)


def test_training_plot_before_the_first_step_and_after_the_last():
    empty = views.training_plot([])
    Balanced(empty)
    assert "waiting" in empty and not points(empty)
    assert "|done|" in text_of(views.training_plot(ROWS, total=20))


@pytest.mark.parametrize("loss", [0.0, 1e-9, 3.0, 400.0])
def test_training_plot_stays_inside_for_any_loss(loss):
    rows = [{"step": n, "loss": loss, "learning_rate": 0.0} for n in (1, 2)]
    assert all(0 <= x <= 600 and 0 <= y <= 150 for x, y in points(views.training_plot(rows, total=2)))
