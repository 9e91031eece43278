"""Ranks and the ranking job: interrupted in any way, shared in any way, it gives the bytes of a quiet run."""

import collections
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from conftest import make_dataset, some_dialog

from visdial_lab import journal
from visdial_lab.cli import main
from visdial_lab.errors import UserError
from visdial_lab.predictions import join_processes, predictions, rank_dialogs
from visdial_lab.visdial import VisDial

ROOT = Path(__file__).resolve().parents[1]
MADE_FROM = {"model": "a"}


def test_predictions_are_an_evalai_list(tmp_path):
    dialog = some_dialog(tmp_path, 50, rounds=2, only_last=True)
    scores = [[None, np.arange(12.0)]]
    [entry] = predictions([dialog], scores, answers=[["a", "b"]])
    assert entry == {"image_id": 50, "round_id": 2, "ranks": list(range(12, 0, -1)), "answer": "b"}
    assert "answer" not in predictions([dialog], scores)[0]


class Scorer:
    """Stands for the model: scores made from the image id, in any order, until it breaks."""

    def __init__(self, breaks_after=10**9, error=KeyboardInterrupt, bad=()):
        self.breaks_after, self.error, self.bad = breaks_after, error, bad
        self.scored = []

    def __call__(self, dialogs, on_bad):
        order = list(range(len(dialogs)))
        random.Random(len(dialogs)).shuffle(order)
        for index in order:
            dialog = dialogs[index]
            if len(self.scored) == self.breaks_after:
                raise self.error
            if dialog.image_id in self.bad:
                on_bad(index, UserError(f"dialog {dialog.image_id}: damaged image"))
                continue
            self.scored.append(dialog.image_id)
            rng = np.random.default_rng(dialog.image_id)
            yield index, [None if turn.options is None else rng.normal(size=100) for turn in dialog.rounds]


@pytest.fixture
def dialogs(tmp_path):
    return list(VisDial.load(make_dataset(tmp_path / "data", dialogs=9), "test"))


@pytest.fixture
def quiet(dialogs, tmp_path):
    """The bytes of a run that nothing disturbed."""
    rank_dialogs(dialogs, tmp_path / "quiet.json", MADE_FROM, Scorer())
    return (tmp_path / "quiet.json").read_bytes()


def test_in_the_dialogs_order_and_nothing_left_behind(dialogs, quiet, tmp_path):
    entries = json.loads(quiet)
    assert [entry["image_id"] for entry in entries] == [dialog.image_id for dialog in dialogs]
    assert [entry["round_id"] for entry in entries] == [len(dialog.rounds) for dialog in dialogs]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "quiet.json"]


def test_broken_off_and_begun_again_until_done(dialogs, quiet, tmp_path):
    """Each run begins where the last one broke off, whichever process's journal the work is in."""
    output, scored, seen = tmp_path / "r.json", [], []
    for number in (4, 11, 0, 2):
        scorer = Scorer(breaks_after=2)
        with pytest.raises(KeyboardInterrupt):
            rank_dialogs(dialogs, output, MADE_FROM, scorer, progress=lambda *count: seen.append(count))
        assert not output.exists()
        scored += scorer.scored
        (tmp_path / "r.json.part-0").rename(tmp_path / f"r.json.part-{number}")  # as if process 4 had done it
    last = Scorer()
    assert rank_dialogs(dialogs, output, MADE_FROM, last) == []
    assert sorted(scored + last.scored) == [dialog.image_id for dialog in dialogs] and len(scored) == 8
    assert output.read_bytes() == quiet and not journal.paths(output)
    assert seen[:4] == [(0, 9), (1, 9), (2, 9), (2, 9)]


def test_all_scored_but_not_written_needs_no_model(dialogs, quiet, tmp_path, monkeypatch):
    output = tmp_path / "r.json"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("visdial_lab.predictions._merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        rank_dialogs(dialogs, output, MADE_FROM, Scorer())
    assert rank_dialogs(dialogs, output, MADE_FROM, lambda *_: pytest.fail("a model was asked for")) == []
    assert output.read_bytes() == quiet


def test_other_settings_are_refused_and_no_resume_begins_anew(dialogs, quiet, tmp_path):
    output = tmp_path / "r.json"
    with pytest.raises(KeyboardInterrupt):
        rank_dialogs(dialogs, output, {"model": "b"}, Scorer(breaks_after=2))
    with pytest.raises(UserError, match="model 'b', now 'a'"):
        rank_dialogs(dialogs, output, MADE_FROM, Scorer())
    scorer = Scorer()
    rank_dialogs(dialogs, output, MADE_FROM, scorer, resume=False)
    assert len(scorer.scored) == 9 and output.read_bytes() == quiet


def test_bad_dialogs_are_skipped_listed_and_added_later(dialogs, quiet, tmp_path):
    output, bad = tmp_path / "r.json", [dialogs[6].image_id, dialogs[1].image_id]
    reasons = [f"dialog {image_id}: damaged image" for image_id in sorted(bad)]
    assert rank_dialogs(dialogs, output, MADE_FROM, Scorer(bad=bad), skip_bad=True) == reasons
    there = {entry["image_id"] for entry in json.loads(output.read_text())}
    assert there == {dialog.image_id for dialog in dialogs} - set(bad)
    mended = Scorer()
    assert rank_dialogs(dialogs, output, MADE_FROM, mended, skip_bad=True) == []
    assert sorted(mended.scored) == sorted(bad) and output.read_bytes() == quiet


def test_nothing_but_bad_dialogs_is_no_result(dialogs, tmp_path):
    scorer = Scorer(bad=[dialog.image_id for dialog in dialogs])
    with pytest.raises(UserError, match=r"0 of 9 dialogs could be scored: dialog \d+: damaged image"):
        rank_dialogs(dialogs, tmp_path / "r.json", MADE_FROM, scorer, skip_bad=True)
    assert not (tmp_path / "r.json").exists()


def test_the_first_bad_dialog_ends_it_and_keeps_the_rest(dialogs, tmp_path):
    scorer = Scorer(bad=[dialogs[6].image_id])
    with pytest.raises(UserError, match=r"damaged image\n[1-8] of 9 dialogs are finished .*--skip-bad"):
        rank_dialogs(dialogs, tmp_path / "r.json", MADE_FROM, scorer)
    kept = journal.paths(tmp_path / "r.json")[0].read_text().splitlines()[1:]
    assert [int(json.loads(line)[0].partition(":")[0]) for line in kept] == scorer.scored


def test_dialogs_without_options_have_nothing_to_rank(tmp_path):
    document = json.loads((make_dataset(tmp_path / "data") / "visdial_1.0_test.json").read_text())
    for entry in document["data"]["dialogs"]:
        entry["dialog"][-1].pop("answer_options")
    (tmp_path / "bare.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="nothing to rank"):
        rank_dialogs(VisDial.load(tmp_path / "bare.json"), tmp_path / "r.json", MADE_FROM, Scorer())


def test_each_process_has_its_own_gpu(monkeypatch):
    assert join_processes() == (0, 1, None)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert join_processes() == (0, 1, None), "a cluster's variable alone makes no team"
    monkeypatch.setenv("LOCAL_RANK", "1")
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    assert join_processes() == (3, 4, "cuda:1") and chosen == [1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="no GPU for process 1: there are 1; start fewer"):
        join_processes()


# The command itself, on a tiny model.


@pytest.fixture
def rank(capsys, tmp_path):
    """rank(model, dialogs file, word, …) → (exit code, standard error, the entries written or None)."""

    def call(model, dialogs, *words):
        output = tmp_path / "ranks.json"
        words = ["rank", "--model-path", model, "--dialogs", dialogs, "--output-file", output, *words]
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        entries = json.loads(output.read_text()) if output.exists() else None
        return stop.value.code, capsys.readouterr().err, entries

    return call


def test_bad_dialogs_of_every_kind(rank, model, tmp_path):
    """A picture that is missing, one that is broken, an empty candidate, a dialog that is too long."""
    folder = make_dataset(tmp_path / "data", dialogs=6)
    path = folder / "visdial_1.0_val.json"
    document = json.loads(path.read_text())
    entries = document["data"]["dialogs"]
    texts = document["data"]["answers"]
    texts.append("  ")
    entries[2]["dialog"][1]["answer_options"][(entries[2]["dialog"][1]["gt_index"] + 1) % 100] = (
        len(texts) - 1
    )
    entries[4]["caption"] = "a very long story " * 400
    path.write_text(json.dumps(document))
    pictures = [folder / "images" / f"{entry['image_id']:012d}.jpg" for entry in entries]
    hidden = pictures[0].read_bytes()
    pictures[0].unlink()
    pictures[5].write_bytes(b"no picture")

    code, err, written = rank(model, path, "--skip-bad")
    lines = err.splitlines()
    assert code == 1 and {entry["image_id"] for entry in written} == {1002, 1004}
    assert "skipped: dialog 1001: no image" in lines[-5] and "option" in lines[-4] and "empty" in lines[-4]
    assert "dialog 1003, round 2" in lines[-4] and "dialog 1005" in lines[-3] and "tokens" in lines[-3]
    assert "dialog 1006: damaged image" in lines[-2] and lines[-1].startswith("4 of 6 dialogs skipped")

    pictures[0].write_bytes(hidden)
    code, err, written = rank(model, path, "--skip-bad")
    assert code == 1 and {entry["image_id"] for entry in written} == {1001, 1002, 1004}
    code, err, _ = rank(model, path)
    assert (
        code == 2 and "error: dialog 1003, round 2" in err and "3 of 6 dialogs are finished and kept" in err
    )


def test_dialogs_that_cannot_be_read_are_left_out_and_added_once_mended(rank, model, tmp_path):
    path = make_dataset(tmp_path / "data", dialogs=5) / "visdial_1.0_val.json"
    _, _, whole = rank(model, path)
    document = json.loads(path.read_text())
    first, _, third, fourth, _ = document["data"]["dialogs"]
    kept = [third["dialog"][1]["answer_options"].pop(), fourth["dialog"][0].pop("gt_index")]
    path.write_text(json.dumps(document))
    code, err, _ = rank(model, path)
    assert code == 2 and "error: dialogs file" in err and "answer_options has 99 entries" in err
    code, err, written = rank(model, path, "--skip-bad")
    lines = err.splitlines()
    assert code == 1 and written == [entry for entry in whole if entry["image_id"] not in (1003, 1004)]
    assert lines[-3] == "skipped: data.dialogs[2].dialog[1].answer_options has 99 entries, expected 100"
    assert lines[-2] == "skipped: data.dialogs[3].dialog[0].gt_index is missing"
    assert lines[-1].startswith("2 of 5 dialogs skipped")

    third["dialog"][1]["answer_options"].append(kept[0])  # one of them is mended
    path.write_text(json.dumps(document))
    code, err, written = rank(model, path, "--skip-bad")
    assert code == 1 and "ranking: 3 of 4" in err and "1 of 5 dialogs skipped" in err
    fourth["dialog"][0]["gt_index"] = kept[1]
    path.write_text(json.dumps(document))
    code, err, written = rank(model, path)
    assert code == 0 and "ranking: 4 of 5" in err and written == whole and not list(tmp_path.glob("*.part-*"))

    del first["caption"]  # the limit counts dialogs of the file, whether they are good or bad
    path.write_text(json.dumps(document))
    code, err, written = rank(model, path, "--skip-bad", "--limit", 2)
    assert code == 1 and "1 of 2 dialogs skipped" in err and {x["image_id"] for x in written} == {1002}
    code, err, _ = rank(model, path, "--skip-bad", "--limit", 1, "--no-resume")
    assert code == 2 and "0 of 1 dialog can be read: data.dialogs[0].caption is missing" in err


def test_found_out_before_the_model_is_loaded(rank, model, tmp_path, monkeypatch):
    monkeypatch.setattr("visdial_lab.models.load_model", lambda *_: pytest.fail("the model was loaded"))
    path = make_dataset(tmp_path / "data", dialogs=2) / "visdial_1.0_val.json"
    code, err, _ = rank(model, path, "--image-dir", tmp_path / "none")
    assert code == 2 and "none is not a folder" in err and "--image-dir" in err
    (tmp_path / "ranks.json").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, command(model, path, tmp_path / "ranks.json"))))
    assert stop.value.code == 2


def test_pictures_and_model_that_do_not_go_together(rank, model, tmp_path):
    folder = make_dataset(tmp_path / "data", dialogs=2)
    (tmp_path / "empty").mkdir()
    for skip in ([], ["--skip-bad"]):
        code, err, written = rank(
            model, folder / "visdial_1.0_val.json", "--image-dir", tmp_path / "empty", *skip
        )
        assert code == 2 and f"no pictures in {tmp_path / 'empty'} for 2 dialogs; " in err and written is None
    blind = tiny_model.build_text(tmp_path / "blind")
    code, err, written = rank(blind, folder / "visdial_1.0_val.json", "--image-dir", folder)
    assert code == 2 and "reads text only" in err and written is None
    code, _, written = rank(blind, folder / "visdial_1.0_val.json")
    assert code == 0 and len(written) == 6


def test_settings_reach_the_scores_and_the_journal(rank, model, tmp_path, monkeypatch):
    """Each setting gives other ranks, and none of them goes on in the journal of another."""
    path = make_dataset(tmp_path / "data", dialogs=2) / "visdial_1.0_val.json"
    _, _, plain = rank(model, path)
    for words in (["--blank-image"], ["--length-normalised"]):
        assert rank(model, path, *words)[2] != plain
    monkeypatch.setattr("visdial_lab.predictions._merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert rank(model, path)[0] == 130
    changes = {
        "blank_image False, now True": ["--blank-image"],
        "length_normalised False, now True": ["--length-normalised"],
        "limit null, now 1": ["--limit", 1],
        "image_dir null": ["--image-dir", path.parent],
        "load_in_4bit null, now False": ["--no-load-in-4bit"],
    }
    for change, words in changes.items():
        code, err, _ = rank(model, path, *words)
        assert code == 2 and change in err, err
    config = model / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    assert "holds unfinished work made from something else: model " in rank(model, path)[1]


KILLED = """
import json, os, random, signal, sys, time
import torch, transformers, accelerate, safetensors
from visdial_lab import cli, journal, models, ranking
torch.set_num_threads(1)  # no threads before the fork
output, log, kills, words = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
real = ranking.iter_scores

def logged(model, processor, dialogs, **options):
    note = lambda **entry: print(json.dumps(entry), file=open(log, "a", buffering=1))
    note(given=[dialog.image_id for dialog in dialogs])
    for count, (index, scores) in enumerate(real(model, processor, dialogs, **options)):
        if kills and count == 10:
            time.sleep(60)  # however fast the machine: a run that is to be killed does not reach its end
        note(scored=dialogs[index].image_id)
        yield index, scores

ranking.iter_scores = logged
part, rng = output + ".part-0", random.Random(1)
while not os.path.exists(output):
    size = os.path.getsize(part) if os.path.exists(part) else 0
    child = os.fork()
    if child == 0:
        cli.main(words)
    if kills:  # a moment after it has begun to write
        kills -= 1
        while (os.path.getsize(part) if os.path.exists(part) else 0) <= size + 200 * (kills % 2):
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        print(json.dumps({"killed": True}), file=open(log, "a"))
    os.waitpid(child, 0)
"""

STANDING_STILL = """
import sys, time
from visdial_lab import cli, ranking
real = ranking.iter_scores

def three(*given, **options):
    for count, found in enumerate(real(*given, **options)):
        time.sleep(600 * (count == 3))
        yield found

ranking.iter_scores = three
cli.main(sys.argv[1:])
"""


def command(model, dialogs, output):
    return ["rank", "--model-path", model, "--dialogs", dialogs, "--output-file", output]


def environment(**more):
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


@pytest.mark.slow
def test_killed_again_and_again(rank, model, tmp_path):
    """kill -9 at random moments: the bytes of a quiet run, and nothing in the journal is scored again."""
    path = make_dataset(tmp_path / "data", dialogs=64) / "visdial_1.0_val.json"
    _, _, expected = rank(model, path)
    output, log = tmp_path / "killed.json", tmp_path / "log"
    words = [output, log, 6, *command(model, path, output)]
    subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], env=environment(), check=True)
    assert output.read_bytes() == (tmp_path / "ranks.json").read_bytes() and expected
    assert not journal.paths(output)

    runs, kills = [], 0
    for entry in map(json.loads, log.read_text().splitlines()):
        if "given" in entry:
            runs.append((entry["given"], []))
        elif "scored" in entry:
            runs[-1][1].append(entry["scored"])
        else:
            kills += 1
    assert kills == 6 and len(runs) >= 5
    for (given, scored), (rest, _) in itertools.pairwise(runs):
        finished = set(given) - set(rest)
        assert finished <= set(scored) and len(set(scored) - finished) <= 1  # the one in flight
    counted = collections.Counter(image_id for _, scored in runs for image_id in scored)
    assert len(counted) == 64 and counted.total() <= 64 + kills


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(rank, model, tmp_path):
    path = make_dataset(tmp_path / "data", dialogs=7) / "visdial_1.0_val.json"
    (path.parent / "images" / "000000001004.jpg").write_bytes(b"no picture")  # falls to the second process
    expected = rank(model, path, "--skip-bad")[2]
    output = tmp_path / "two.json"
    launch = ["accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--main_process_port", "0", "-m", "visdial_lab"]
    words = [sys.executable, "-m", *launch, *command(model, path, output), "--skip-bad"]
    ran = subprocess.run(list(map(str, words)), env=environment(), capture_output=True, text=True)
    assert ran.returncode == 1 and "skipped: dialog 1004: damaged image" in ran.stderr, ran.stderr
    assert "process 1 of 2: 4 of 4" in ran.stderr and ran.stderr.count("skipped: ") == 1
    assert output.read_bytes() == (tmp_path / "ranks.json").read_bytes() and len(expected) == 6 * 3
    assert [path.name for path in journal.paths(output)] == ["two.json.part-0", "two.json.part-1"]


@pytest.mark.slow
def test_a_dead_process_does_not_keep_the_other_waiting(rank, model, tmp_path):
    """Started by hand, without a launcher that would stop the rest: the survivor says so and ends with 1;
    one process alone then finishes what both have begun."""
    path = make_dataset(tmp_path / "data", dialogs=30) / "visdial_1.0_val.json"
    output = tmp_path / "r.json"
    words = list(map(str, command(model, path, output)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    team = environment(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    first, second = (
        subprocess.Popen(
            [sys.executable, *program, *words],
            env=team | {"RANK": number, "LOCAL_RANK": number},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, program in (("0", ["-m", "visdial_lab"]), ("1", ["-c", STANDING_STILL]))
    )
    while not (tmp_path / "r.json.part-1").exists():
        time.sleep(0.01)
        assert second.poll() is None
    second.send_signal(signal.SIGKILL)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1 and "another process has failed" in err and "Traceback" not in err
    assert not output.exists() and len(journal.paths(output)) == 2
    with pytest.raises(SystemExit):
        main(list(map(str, command(model, path, output))))
    code, err, _ = rank(model, path)
    begun = int(re.search(r"^ranking: (\d+) of 30", err, re.MULTILINE)[1])
    assert code == 0 and 15 <= begun <= 18, "the survivor has done its half, the other no more than three"
    assert output.read_bytes() == (tmp_path / "ranks.json").read_bytes() and not journal.paths(output)
