"""The evaluate command and its page: tables, files, comparisons, submissions, and every kind of bad input."""

import json
import re

import numpy as np
import pytest
from conftest import ROOT, drawn
from test_submission import inverse, predict
from test_views import NASTY, Balanced, text_of

from visdial_lab import VisDial, evaluate, plots
from visdial_lab.evaluation import evaluate_run, read_truth
from visdial_lab.files import fingerprint


@pytest.fixture
def made(tiny):
    """The tiny dataset with a nasty caption and answer, and predictions of two runs beside it."""
    path = tiny / "visdial_1.0_val.json"
    document = json.loads(path.read_text())
    document["data"]["dialogs"][0]["caption"] = NASTY
    document["data"]["answers"] = [
        f"{a} {NASTY}" if a.endswith("7") else a for a in document["data"]["answers"]
    ]
    path.write_text(json.dumps(document))
    val = VisDial.load(tiny)
    rng = np.random.default_rng(1)
    for name, skill in (("good", 4), ("poor", 0)):
        scores = [[rng.normal(size=100) + skill * np.eye(100)[t.gt_index] for t in d.rounds] for d in val]
        (tiny / f"{name}.json").write_text(json.dumps(predict(val, scores)))
    return tiny


@pytest.fixture
def judge(made):
    return [
        *("evaluate", "--prediction-file", made / "good.json"),
        *("--groundtruth-file", made / "visdial_1.0_val.json"),
        *("--dense-file", made / "visdial_1.0_val_dense_annotations.json"),
    ]


def test_tables_and_metrics_file(run, made, judge):
    code, out, err = run(*judge, "--output-file", made / "out" / "m.json", "--compare", made / "poor.json")
    assert code == 0 and err == f"wrote {made / 'out' / 'm.json'}\n"
    saved = json.loads((made / "out" / "m.json").read_text())
    plain = evaluate(VisDial.load(made), json.loads((made / "good.json").read_text()))
    assert {key: saved[key] for key in plain} == plain
    for key, value in plain["metrics"].items():
        assert re.search(rf"{key} +{value:.4f} ", out), key
    assert "12 rounds of 4 dialogs" in out and "random" in out and "position only" in out
    assert "compared with poor.json" in out and "by round" not in out
    assert saved["comparisons"]["poor.json"]["mrr"]["improved"] > 0.9
    assert len(saved["computed_from"]["files"]) == 4 and "answer prior" not in saved["beside"]


def test_a_thousand_resamples_never_make_it_certain(run, made, judge):
    from visdial_lab.evaluation import _probability

    shares = (1.0, 0.9995, 0.999, 0.9486, 0.5, 0.001, 0.0005, 0.0)
    assert list(map(_probability, shares)) == [
        *("> 0.999", "> 0.999", "0.999", "0.949", "0.500", "0.001", "< 0.001", "< 0.001")
    ]
    words = ["--compare", made / "poor.json", "--html", made / "page.html", "--output-file", made / "m.json"]
    code, out, _ = run(*judge, *words)
    improved = json.loads((made / "m.json").read_text())["comparisons"]["poor.json"]["mrr"]["improved"]
    assert code == 0 and improved == 1 and re.search(r"mrr .* to [\d.]+ +> 0\.999 *\n", out)
    assert "<td>&gt; 0.999</td>" in (made / "page.html").read_text()
    _, out, _ = run(
        "evaluate", "--prediction-file", made / "poor.json", *judge[3:], "--compare", made / "good.json"
    )
    assert re.search(r"mrr .* to -[\d.]+ +< 0\.001 *\n", out)


def test_two_files_of_one_name_and_a_long_one(run, made, judge):
    (made / "other").mkdir()
    name = f"{'long_' * 12}.json"
    for file in (made / "other" / "good.json", made / name):
        file.write_text((made / "poor.json").read_text())
    code, out, _ = run(*judge, "--compare", made / "other" / "good.json", "--compare", made / name)
    assert code == 0 and f"compared with {made / 'other' / 'good.json'}" in out and f"with {name}" in out
    assert re.search(
        r"random +0\.0519 +0\.0100 +0\.0500 +0\.1000 +50\.5000 +0\.\d{4}", out
    )  # no number cut off
    assert max(map(len, out.splitlines())) <= max(80, len(f"compared with {made / 'other' / 'good.json'}"))


def test_verbose_adds_parts_and_dialogs_and_a_train_file_the_priors(run, made, judge):
    code, out, _ = run(*judge, "--verbose", "--train-file", made / "visdial_1.0_train.json")
    assert code == 0 and "answer prior" in out and "question prior" in out
    for title in ("by round", "by question", "by answer", "best dialogs", "worst dialogs"):
        assert title in out
    assert "by history" not in out
    val = VisDial.load(made)
    truth = [
        {"image_id": d.image_id, "rounds": [{"kind": "shape", "needs_history": n == 0} for n in range(3)]}
        for d in val
    ]
    (made / "truth_val.json").write_text(json.dumps(truth))
    code, out, _ = run(*judge, "--verbose")
    assert "by history" in out and "not needed" in out and "shape" in out
    assert read_truth(val)[1001, 1] == {"kind": "shape", "needs_history": True}


def test_the_page_is_whole_escaped_and_needs_nothing_else(run, made, judge):
    spoken = json.loads((made / "good.json").read_text())
    spoken[0]["answer"] = f"yes {NASTY}"
    (made / "good.json").write_text(json.dumps(spoken))
    page = made / "out" / "page.html"
    code, _, err = run(*judge, "--html", page, "--compare", made / "poor.json", "--verbose")
    assert code == 0 and f"wrote {page}" in err
    text = page.read_text(encoding="utf-8")
    body = text[text.index("<main>") : text.index("</body>")]
    Balanced(body)
    assert "<script" not in text and NASTY not in text and "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=[\"'](?!data:)", text) and "url(" not in text
    assert all(re.search(r'alt="[^"]+"', image) for image in re.findall(r"<img [^>]*>", body))
    # three figures, for nobody said yes or no here; of four dialogs each is among the best and the worst
    assert body.count("<img ") == body.count('<figure class="plot">') + 8 == 3 + 8
    assert body.count('<details class="turn">') == 8 * 3 and body.count("</details>") == 8 * 3
    words = text_of(body)
    plain = evaluate(VisDial.load(made), spoken)
    assert f"{plain['metrics']['mrr']:.3f}" in words and "Worst dialogs" in words and "12 rounds" in words
    assert "generated answer: yes" in words and "ROUGE-L" in words and "This run against" in words
    assert body.count('class="human"') == 8 * 3  # shown even where it is not among the ten best


def test_a_page_with_yes_or_no_and_without_relevance(run, made, judge):
    path = made / "visdial_1.0_val.json"
    document = json.loads(path.read_text())
    said = document["data"]["dialogs"][0]["dialog"][0]["answer"]
    document["data"]["answers"][said] = "yes it is"
    path.write_text(json.dumps(document))
    code, out, _ = run(*judge[:5], "--html", made / "page.html")
    assert code == 0 and "ndcg" not in out
    words = text_of((made / "page.html").read_text())
    assert "Each dialog is a dot" not in words and "of 1 round that a person answered with yes or no" in words


@pytest.mark.parametrize("limit", [1, 3])
def test_partial_predictions_only_when_asked(run, made, judge, limit):
    entries = json.loads((made / "good.json").read_text())
    (made / "good.json").write_text(json.dumps(entries[: 3 * limit]))
    code, _, err = run(*judge)
    assert code == 2 and f"nothing for round 1 of image {1001 + limit}" in err
    code, out, _ = run(*judge, "--allow-partial", "--html", made / "page.html")
    assert code == 0 and f"{3 * limit} rounds of {limit} dialog{'s' * (limit > 1)}, " in out
    assert run(*judge, "--limit", limit)[1].split() == out.split()


def test_a_limit_takes_predictions_of_all_dialogs(run, made, judge):
    code, out, _ = run(*judge, "--limit", 2, "--compare", made / "poor.json")
    assert code == 0 and "6 rounds of 2 dialogs, 2 of them with dense annotations" in out
    (made / "good.json").write_text(json.dumps(json.loads((made / "good.json").read_text())[:6]))
    (made / "poor.json").write_text(json.dumps(json.loads((made / "poor.json").read_text())[:6]))
    assert run(*judge, "--limit", 2, "--compare", made / "poor.json")[1] == out


def test_dialogs_in_the_place_of_predictions_are_recognised(run, made, judge):
    (made / "good.json").write_text((made / "visdial_1.0_val.json").read_text())
    code, _, err = run(*judge)
    assert code == 2 and "this holds dialogs, not predictions; were two files swapped?" in err


def test_submissions_are_written_and_checked(run, made, judge):
    out = made / "evalai.json"
    code, _, err = run(*judge, "--evalai", "val", out)
    assert code == 2 and "12 rounds, but val has 20,640" in err and not out.exists()
    code, _, err = run(*judge, "--evalai", "val", out, "--allow-partial")
    assert code == 0 and f"wrote {out}: 12 entries" in err
    truth = ["--groundtruth-file", made / "visdial_1.0_val.json", "--allow-partial"]
    assert run("evaluate", "--check", out, *truth) == (0, "nothing wrong was found\n", "")
    out.write_text(json.dumps(inverse(json.loads(out.read_text()))))
    code, said, err = run("evaluate", "--check", out, *truth)
    assert code == 2 and "an inverse permutation" in said
    assert err == f"error: {out} is not what the server expects: mend what is listed above\n"
    code, said, _ = run("evaluate", "--check", out)
    assert code == 2 and "is missing" in said

    test = VisDial.load(made, "test")
    scores = [[np.arange(100.0) if t.options else None for t in d.rounds] for d in test]
    (made / "test.json").write_text(json.dumps(predict(test, scores)))
    words = ["evaluate", "--prediction-file", made / "test.json"]
    words += ["--groundtruth-file", made / "visdial_1.0_test.json", "--allow-partial"]
    code, said, err = run(*words, "--evalai", "test", out)
    assert (code, said) == (0, "") and "4 entries" in err
    code, _, err = run(*words)
    assert code == 2 and "no human answers to compare with" in err


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda text: text[:-9], "the file ends too early"),
        (lambda text: "{}", "predictions: expected a list of {image_id, round_id, ranks}, got {}"),
        (lambda text: text.replace("1003", "77"), "predictions[6].image_id 77 is in none of the dialogs"),
        (lambda text: text.replace("1003", "77").replace("1004", "78"), "(2 such: 77, 78)"),
        (lambda text: text.replace('"round_id": 3', '"round_id": 2'), "again, after predictions[1]"),
        (
            lambda text: text.replace('"ranks": [', '"ranks": [NaN, ', 1),
            "predictions[0].ranks: expected a list",
        ),
        (lambda text: text.replace('"ranks"', '"scores"'), "predictions[0].ranks: expected a list"),
    ],
)
@pytest.mark.parametrize("role", ["--prediction-file", "--compare"])
def test_bad_predictions_name_place_and_reason(run, made, judge, role, spoil, expected):
    bad = made / "bad.json"
    bad.write_text(spoil((made / "good.json").read_text()))
    words = [*judge, "--output-file", made / "m.json"]
    if role == "--compare":
        words += ["--compare", bad]
    else:
        words[2] = bad
    code, out, err = run(*words)
    assert (code, out) == (2, "") and expected in err and "Traceback" not in err
    assert len(err.splitlines()) == 1 and not (made / "m.json").exists()
    assert bad.name in err


def test_bad_ground_truth_and_calls(run, made, judge):
    for words, expected in (
        (["evaluate"], "give --prediction-file and --groundtruth-file, or a submission to --check"),
        ([*judge[:3]], "give --prediction-file and --groundtruth-file"),
        ([*judge[:4], made / "good.json"], "dialogs file"),
        ([*judge[:5], "--dense-file", made / "good.json"], "this holds predictions, not dense annotations"),
        ([*judge, "--evalai", "train", made / "x.json"], "EvalAI takes submissions for val and test"),
        ([*judge, "--train-file", made / "nowhere.json"], "dialogs file not found"),
        ([*judge, "--output-file", made], "it is not a file"),
        (["evaluate", "--check", made / "nowhere.json"], "submission not found"),
    ):
        code, _, err = run(*words)
        assert code == 2 and expected in err and len(err.splitlines()) <= 2, expected


def test_everything_about_a_run(made):
    val = VisDial.load(made)
    good, poor = (json.loads((made / f"{name}.json").read_text()) for name in ("good", "poor"))
    result = evaluate_run(val, {"good": good, "poor": poor}, VisDial.load(made, "train"))
    assert list(result["beside"]) == ["random", "position only", "answer prior", "question prior", "poor"]
    assert result["beside"]["poor"]["metrics"] == evaluate(val, poor)["metrics"]
    mrrs = list(result["dialogs"].values())
    assert mrrs == sorted(mrrs, reverse=True) and np.mean(mrrs) == pytest.approx(result["metrics"]["mrr"])
    gain = result["metrics"]["mrr"] - evaluate(val, poor)["metrics"]["mrr"]
    assert result["comparisons"]["poor"]["mrr"]["difference"] == pytest.approx(gain)
    json.dumps(result, allow_nan=False)


def test_figures_of_the_page():
    text = drawn(plots.rank_cdf({"after": np.array([1, 1, 2, 50])}))
    assert "after" in text and "random" in text and "100%" in text
    counts = {"yes": {"yes": 3, "no": 1, "something else": 0}, "no": {"yes": 0, "no": 0, "something else": 0}}
    text = drawn(plots.confusion(counts))
    assert "3\n75%" in text and "1\n25%" in text and "human: no" in text and "something else" in text
    part = {"metrics": {"mrr": 0.5, "r@1": 0.2}, "intervals": {"mrr": [0.4, 0.6], "r@1": [0.1, 0.3]}}
    figure = plots.round_curves({"1": part, "2": part})
    assert "MRR" in drawn(figure) and figure.axes[0].lines[0].get_ydata() == pytest.approx([0.5, 0.5])
    figure = plots.agreement(np.array([0.1, 0.9]), np.array([1.0, 0.2]))
    assert figure.axes[0].collections[0].get_offsets().tolist() == [[0.1, 1.0], [0.9, 0.2]]
    drawn(figure)


def test_the_key_of_the_exercise_on_bugs_in_notebook_05():
    text = (ROOT / "notebooks" / "05_metrics.ipynb").read_text(encoding="utf-8")
    key = re.search(r'key = \\"([\w ]+)\\"', text)[1].split()
    solution = {"mrr_a": 3, "mrr_b": 1, "ndcg_c": 5, "mrr_d": 2, "rouge_e": 4}
    assert key == [fingerprint(name, number)[:6] for name, number in solution.items()]
    for number, words in ((3, "order of the options"), (1, "last round"), (5, "relevance from one round")):
        assert re.search(rf"{number}\. [^.]*{words}", text)
