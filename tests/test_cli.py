"""The commands as a user types them: results, messages, exit codes, and how fast help is there."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_model

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "visdial_lab"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def test_help_takes_half_a_second_of_the_processor():
    """Not of the clock, which other programs share."""

    def spent():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    seconds = []
    for _ in range(4):
        before = spent()
        shown = subprocess.run(
            [*COMMAND, "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=True
        )
        seconds.append(spent() - before)
    assert min(seconds) <= 0.5, seconds
    for command in ("generate", "finetune", "infer", "rank", "evaluate", "pipeline", "doctor"):
        assert f"\n  {command} " in shown.stdout


def test_version_and_module(run):
    from visdial_lab import __version__

    assert run("--version") == (0, f"visdial-lab {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "No such command 'nope'."),
        (["rank", "--modle-path", "x"], "No such option: --modle-path"),
        (["generate", "base"], "Missing option '--output-path'."),
        (["rank", "--model-path", "m", "--dialogs", "d", "--output-file", "o", "--limit", "0"], "'--limit'"),
        (["finetune", "--lr", "fast"], "'--lr'"),
        (["finetune", "--config", "scnes"], "unknown profile 'scnes' (did you mean scenes?)"),
        (["finetune", "--lr", "-1"], "override: training.learning_rate: expected a number above 0, got -1.0"),
        (["finetune", "--dataset-path", "no.jsonl"], "records file not found: "),
        (["infer", "--model-path", "m"], "give either --conversation"),
        (["infer", "--model-path", "m", "--batch-file", "b"], "--batch-file and --output-file go together"),
        (
            ["infer", "--model-path", "no/m", "--conversation", "Q: a", "--image-path", "no.png"],
            "image not found",
        ),
        (["infer", "--model-path", "data/no", "--conversation", "Q: a"], "model folder not found: data/no"),
        (
            ["rank", "--model-path", "m", "--dialogs", "no.json", "--output-file", "o"],
            "dialogs file not found",
        ),
        (["pipeline", "--config", "nowhere.yaml"], "config not found"),
        (["pipeline", "--skip", "trainign"], "--skip 'trainign' is no step"),
    ],
)
def test_a_wrong_call_is_two_lines_and_code_2(run, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and message in err and len(err.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_debug_anywhere_adds_the_traceback(run):
    for words in (["--debug", "finetune", "--config", "scnes"], ["finetune", "--config", "scnes", "--debug"]):
        code, _, err = run(*words)
        assert code == 2 and "Traceback" in err and err.splitlines()[-1].startswith("error: unknown profile")


def test_a_bug_is_one_line_and_code_1(run, monkeypatch):
    def broken(*_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("visdial_lab.config.load_config", broken)
    assert run("finetune") == (1, "", "error: RuntimeError: two lines (--debug shows where)\n")
    monkeypatch.setattr("visdial_lab.config.load_config", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("finetune") == (130, "", "interrupted; what was finished before is kept\n")


def test_a_reader_that_leaves_gets_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)  # as after `| head`, when head has seen enough
    for words in (["rank", "--help"], ["--version"]):
        shown = subprocess.run([*COMMAND, *words], env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE)
        assert (shown.returncode, shown.stderr) == (1, b"")


def test_generate(run, tiny, tmp_path, monkeypatch):
    (tmp_path / "my.yaml").write_text(f"data: {{root: {tiny}}}")
    monkeypatch.chdir(tmp_path)
    words = ["generate", "base", "--config", "my.yaml", "--output_path", "out/r.jsonl", "--sample_count"]
    assert run(*words, 3) == (0, "3 records in out/r.jsonl\n", "")
    assert len((tmp_path / "out" / "r.jsonl").read_text().splitlines()) == 3
    assert run(*words, 1) == (0, "1 record in out/r.jsonl\n", "")
    code, _, err = run(*words, 99)
    assert code == 2 and "sample_count is 99" in err and len(list((tmp_path / "out").iterdir())) == 1


def test_rank_then_evaluate(run, tiny, tmp_path, model):
    dialogs, dense = tiny / "visdial_1.0_val.json", tiny / "visdial_1.0_val_dense_annotations.json"
    ranks, metrics = tmp_path / "ranks.json", tmp_path / "metrics.json"
    words = ["rank", "--model-path", model, "--dialogs", dialogs, "--output_file", ranks]
    code, _, err = run(*words, "--limit", 3)
    assert code == 0 and "ranking: 3 of 3" in err
    assert len(json.loads(ranks.read_text())) == 3 * 3
    judge = ["evaluate", "--prediction-file", ranks, "--groundtruth-file", dialogs, "--dense-file", dense]
    code, out, _ = run(*judge, "--limit", 3, "--output-file", metrics, "--verbose")
    assert code == 0 and "mrr" in out and "ndcg" in out and "by round" in out
    saved = json.loads(metrics.read_text())
    assert f"{saved['metrics']['mrr']:.4f}" in out and set(saved) >= {
        "intervals",
        "n_rounds",
        "computed_from",
    }
    code, _, err = run(*judge)
    assert code == 2 and "predictions: nothing for round 1 of image" in err
    seen = ranks.read_text()
    run(*words, "--limit", 3, "--blank-image")
    assert ranks.read_text() != seen, "a gray picture is ranked otherwise"


def test_an_unwritable_place_is_found_out_before_the_work(run, tiny, tmp_path):
    dialogs = tiny / "visdial_1.0_val.json"
    words = ["rank", "--model-path", "no/model", "--dialogs", dialogs, "--output-file", tiny]
    code, _, err = run(*words)
    assert code == 2 and f"cannot write {tiny}: it is not a file" in err


def test_infer_one_streamed_and_a_batch(run, tiny, tmp_path, model):
    picture = next((tiny / "images").iterdir())
    words = ["infer", "--model-path", model, "--max-new-tokens", 6]
    one = [*words, "--image-path", picture, "--conversation", r"Q: is it red?\nA: no\nQ: why?"]
    code, said, _ = run(*one)
    assert code == 0 and said.strip()
    assert run(*one, "--stream")[1] == said
    batch, result = tmp_path / "b.json", tmp_path / "r.json"
    batch.write_text(
        json.dumps([{"image": str(picture), "conversation": "Q: is it red?\nA: no\nQ: why?"}] * 2)
    )
    code, _, err = run(*words, "--batch-file", batch, "--output-file", result)
    assert code == 0 and "answering: 2 of 2" in err
    assert [entry["answer"] for entry in json.loads(result.read_text())] == [said.strip()] * 2
    code, _, err = run(*words, "--conversation", "Q: why?")
    assert code == 2 and "looks at pictures: give --image-path" in err


def test_infer_with_a_model_that_reads_text_only(run, tmp_path):
    blind, batch, result = tiny_model.build_text(tmp_path / "blind"), tmp_path / "b.json", tmp_path / "r.json"
    words = ["infer", "--model-path", blind, "--max-new-tokens", 4]
    code, said, _ = run(*words, "--conversation", "Q: is it red?")
    assert code == 0 and said.strip()
    batch.write_text(json.dumps([{"conversation": "Q: is it red?"}, {"conversation": "Q: " + "why " * 900}]))
    code, _, err = run(*words, "--batch-file", batch, "--output-file", result)
    assert code == 2 and "error: [1]: the conversation has" in err
    assert {path.name for path in tmp_path.iterdir()} == {"blind", "b.json", "r.json.part-0"}, (
        "what was done is kept"
    )
    batch.write_text(json.dumps([{"conversation": "Q: is it red?"}] * 2))
    code, _, err = run(*words, "--batch-file", batch, "--output-file", result)
    assert code == 0 and "answering: 1 of 2" in err
    assert [entry["answer"] for entry in json.loads(result.read_text())] == [said.strip()] * 2


def test_bad_entries_of_a_batch_are_left_out_and_added_once_mended(run, tiny, tmp_path, model):
    """Ones of the wrong form, a picture that is missing or damaged, a text that is too long."""
    picture, batch, result = str(next((tiny / "images").iterdir())), tmp_path / "b.json", tmp_path / "r.json"
    (tmp_path / "bad.png").write_bytes(b"no picture")
    good = [{"image": picture, "conversation": f"Q: {text}?"} for text in "abcdef"]
    entries = [3, good[1], good[2] | {"image": "no.png"}, good[3] | {"image": str(tmp_path / "bad.png")}]
    entries += [good[4] | {"conversation": "Q: " + "why " * 900}, good[5] | {"image": None}, good[0]]
    batch.write_text(json.dumps(entries))
    words = ["infer", "--model-path", model, "--max-new-tokens", 4, "--batch-file", batch]
    words += ["--output-file", result, "--batch-size", 2]
    code, _, err = run(*words, "--skip-bad")
    lines = [line for line in err.splitlines() if line.startswith("skipped: ")]
    expected = ["[0] should be an object", "[2]: image not found: no.png", "damaged image"]
    expected += ["[4]: the conversation has", "[5]: this model looks at pictures"]
    assert code == 1 and "5 of 7 entries skipped" in err
    assert all(text in line for text, line in zip(expected, lines, strict=True)), lines
    first = json.loads(result.read_text())
    assert [entry["conversation"] for entry in first] == ["Q: b?", "Q: a?"]

    batch.write_text(json.dumps([good[0], *entries[1:2], *good[2:], good[0]]))
    code, _, err = run(*words)
    assert code == 0 and "answering: 2 of 7" in err and "answering: 7 of 7" in err
    whole = json.loads(result.read_text())
    assert [whole[1], whole[6]] == first and len(whole) == 7 and not list(tmp_path.glob("*.part-*"))

    batch.write_text(json.dumps([3, 4]))
    code, _, err = run(*words, "--skip-bad")
    assert code == 2 and "0 of 2 entries can be answered" in err
    assert json.loads(result.read_text()) == whole


def test_a_batch_goes_on_where_it_was_broken_off(run, tiny, tmp_path, model, monkeypatch):
    import visdial_lab.inference as inference

    picture, whole, result = str(next((tiny / "images").iterdir())), tmp_path / "w.json", tmp_path / "r.json"
    batch = tmp_path / "b.json"
    questions = ("why", "is it red", "a dog", "is it so", "two")
    batch.write_text(json.dumps([{"image": picture, "conversation": f"Q: {text}?"} for text in questions]))
    words = ["infer", "--model-path", model, "--max-new-tokens", 5, "--batch-file", batch, "--batch-size", 2]
    assert run(*words, "--output-file", whole)[0] == 0
    answered, real = [], inference.answer_entries

    def broken_off(model, processor, entries, *arguments, **decoding):
        for place, text in real(model, processor, entries, *arguments, **decoding):
            if len(answered) == 3:
                raise KeyboardInterrupt
            answered.append(place)
            yield place, text

    with monkeypatch.context() as patch:
        patch.setattr(inference, "answer_entries", broken_off)
        assert run(*words, "--output-file", result)[0] == 130
    assert answered == [0, 1, 2] and not result.exists()
    code, _, err = run(*words, "--output-file", result, "--temperature", 1)
    assert code == 2 and "temperature 0.0, now 1.0" in err and "--no-resume" in err
    code, _, err = run(*words, "--output-file", result)
    assert code == 0 and "answering: 3 of 5" in err and "answering: 5 of 5" in err
    assert result.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "b.json", "r.json", "w.json"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "expected a list of objects"),
        ([3], "[0] should be an object"),
        ([{"conversation": 3}], "[0].conversation should be text, is 3"),
        ([{"conversation": "Q: a", "image": 3}], "[0].image should be text"),
        ([{"conversation": "Q: a"}, {"conversation": "A: b"}], "[1]: conversation, line 1"),
        ([{"conversaton": "Q: a"}], "[0]: unknown key 'conversaton' (did you mean conversation?)"),
        ([{"conversation": "Q: a", "captoin": "b"}], "[0]: unknown key 'captoin' (did you mean caption?)"),
        (
            [{"conversation": "Q: a", "imgae": "b", "image_id": 3, "note": 1}],
            "[0]: unknown key 'imgae' (did you mean image?)",
        ),
        (
            [{"questoin": "Q: a", "image": "b"}],
            """[0]: "conversation" ("Q: …", the question) is missing, there is 'questoin', 'image'""",
        ),
        ([{}], "is missing, there is no key"),
    ],
)
def test_a_bad_batch_file(run, tmp_path, entries, message):
    path = tmp_path / "b.json"
    path.write_text(json.dumps(entries))
    code, _, err = run(
        "infer", "--model-path", "m", "--batch-file", path, "--output-file", tmp_path / "r.json"
    )
    assert code == 2 and f"error: batch file {path}: " in err and message in err
    assert not (tmp_path / "r.json").exists()


def test_keys_of_ones_own_stay_in_a_batch(run, tiny, tmp_path, model):
    entry = {"image": str(next((tiny / "images").iterdir())), "conversation": "Q: a?", "caption": "a dog"}
    entry |= {"image_id": 3, "captions": ["a dog"], "note": "mine"}  # even one that looks like another
    path, result = tmp_path / "b.json", tmp_path / "r.json"
    path.write_text(json.dumps([entry]))
    words = ["infer", "--model-path", model, "--max-new-tokens", 2]
    code, _, _ = run(*words, "--batch-file", path, "--output-file", result)
    [given] = json.loads(result.read_text())
    assert code == 0 and given.pop("answer") is not None and given == entry


def test_an_adapter_in_reminder_style_needs_no_option(run, tiny, tmp_path, model, monkeypatch):
    from visdial_lab import inference

    shutil.copytree(model, tmp_path / "model")
    notes = {"config": {"generation": {"style": "reminder"}}}
    (tmp_path / "model" / "lab.json").write_text(json.dumps(notes))
    said = "<reminder>it = the dog</reminder> yes"
    monkeypatch.setattr(
        inference, "generate", lambda model, processor, prompts, *_, **__: [said] * len(prompts)
    )
    picture, batch, result = next((tiny / "images").iterdir()), tmp_path / "b.json", tmp_path / "r.json"
    one = {"image": str(picture), "conversation": "Q: is it red?\nA: no\nQ: why?"}
    batch.write_text(json.dumps([one] * 2))
    words = ["infer", "--model-path", tmp_path / "model"]
    assert run(*words, "--batch-file", batch, "--output-file", result)[0] == 0
    assert json.loads(result.read_text()) == [one | {"answer": "yes", "reminder": "it = the dog"}] * 2
    code, out, err = run(*words, "--image-path", picture, "--conversation", one["conversation"])
    assert (code, out) == (0, "yes\n") and "reminder: it = the dog" in err
    words = ["rank", "--model-path", tmp_path / "model", "--dialogs", tiny / "visdial_1.0_val.json"]
    for more, reminder in (([], "it = the dog"), (["--style", "plain"], None)):
        assert run(*words, "--limit", 2, "--output-file", result, *more)[0] == 0
        entries = json.loads(result.read_text())
        assert len(entries) == 6 and {entry.get("reminder") for entry in entries} == {reminder}
    code, _, err = run(*words, "--output-file", result, "--style", "polite")
    assert code == 2 and "style should be plain or reminder" in err


def test_generate_in_reminder_style(run, tmp_path):
    words = ["generate", "base", "--output-path", tmp_path / "r.jsonl", "--sample-count", 2, "--style"]
    assert run(*words, "reminder")[0] == 0
    last = json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])["messages"][-1]
    assert last["content"][0]["text"].startswith("<reminder>")
    code, _, err = run(*words, "polite")
    assert code == 2 and "generation.style: expected 'plain' or 'reminder'" in err
