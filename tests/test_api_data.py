"""Records from a server that misbehaves: all that is asked ends in the output or set aside, once, with a true
reason; nothing is lost by a kill, nothing leaks, nothing is mixed."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from chat_server import Chat, handler_of, kinds, pictures, sample_of
from conftest import hear_ctrl_c, make_dataset
from web_server import serving

from visdial_lab import api_client, api_data
from visdial_lab.api_client import Server
from visdial_lab.api_data import Recipe, generate, manifest_path, rejected_path, samples
from visdial_lab.api_page import read_statistics, reason_kind, write_page
from visdial_lab.api_prompt import prompt
from visdial_lab.chat import split_reminder
from visdial_lab.cli import main
from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.files import only_one
from visdial_lab.generation import read_records
from visdial_lab.text_metrics import exact_match, token_f1
from visdial_lab.visdial import VisDial

MODEL = Recipe("gemma3:27b", rounds="all")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


def run(visdial, output, chat, recipe=MODEL, retries=1, **options):
    with serving(chat, handler_of) as url:
        return generate(visdial, output, recipe, Server(f"{url}/v1", retries, timeout=20), **options)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_sample(visdial) -> dict[str, str]:
    """{id of a sample: the text that a server knows it by}."""
    return {
        f"{visdial.split}-{dialog.image_id}-r{turn.round_id}": sample_of(
            prompt(dialog, turn.round_id, picture=False)
        )
        for dialog in visdial
        for turn in dialog.rounds
    }


def test_records_hold_the_human_dialog_and_the_models_answer(train, tmp_path):
    chat = Chat()
    manifest = run(train, tmp_path / "out.jsonl", chat)
    records = read_records(tmp_path / "out.jsonl")
    assert len(records) == manifest["records"] == 12 and manifest["rejected"] == 0
    assert manifest["state"] == "complete" and manifest["tokens"] == {"prompt": 3600, "completion": 240}
    assert len({record["id"] for record in records}) == 12
    known = by_sample(train)
    for record in records:
        dialog, round_id = train.by_id(record["image_id"]), record["round_id"]
        said = [m["content"][0]["text"] for m in record["messages"] if m["role"] == "assistant"]
        assert said == [turn.answer for turn in dialog.rounds[: round_id - 1]] + [
            chat.answer(known[record["id"]])
        ]
        assert [m.get("weight") for m in record["messages"][1::2]] == [0] * (round_id - 1) + [None]
        answer, human = split_reminder(said[-1])[1], dialog.rounds[round_id - 1].answer
        assert record["human_answer"] == human
        assert record["agreement"]["exact_match"] == exact_match(answer, human)
        assert record["agreement"]["token_f1"] == pytest.approx(token_f1(answer, human), abs=1e-4)
    assert {picture.size for body in chat.bodies for picture in pictures(body)} == {(32, 24)}
    assert not list(tmp_path.glob("*.part-*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("style", ["reminder", "plain"])
def test_no_request_holds_the_answer_that_is_asked_for(tiny, tmp_path, style):
    """Nor when it is asked for again; every human answer here is a string of its own."""
    path = tiny / "visdial_1.0_train.json"
    document = json.loads(path.read_text())
    answers = document["data"]["answers"] = [
        f"canary{n}bird" for n in range(len(document["data"]["answers"]))
    ]
    for n, turn in enumerate(t for entry in document["data"]["dialogs"] for t in entry["dialog"]):
        answers.append(f"target{n}bird")
        turn["answer"] = turn["answer_options"][turn["gt_index"]] = len(answers) - 1
    path.write_text(json.dumps(document))
    train, chat = VisDial.load(tiny, "train"), Chat()
    chat.reply = "<reminder>never closed"
    manifest = run(train, tmp_path / "out.jsonl", chat, Recipe("gemma3:27b", style, rounds="all"))
    assert manifest["rejected"] == 12 and len(chat.bodies) == 12 * 3  # asked again, twice
    known = by_sample(train)
    human = {
        text: [turn.answer for turn in dialog.rounds[: turn_id - 1]]
        for dialog in train
        for turn_id in range(1, 4)
        for text in [known[f"train-{dialog.image_id}-r{turn_id}"]]
    }
    for body in chat.bodies:
        text = json.dumps(body["messages"])
        assert sorted(set(re.findall(r"(?:target|canary)\d+bird", text))) == sorted(
            human[sample_of(body["messages"])]
        )


def test_a_bad_reply_is_asked_for_again_with_the_reason(train, tmp_path):
    chat, replies = Chat(), iter(["brown", "<reminder>it = the dog</reminder> brown"])
    chat.answer = lambda sample: next(replies)
    run(train, tmp_path / "out.jsonl", chat, max_samples=1)
    first, second = chat.bodies
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2]["content"] == "brown"
    assert "there is no <reminder>" in second["messages"][3]["content"]
    (record,) = lines(tmp_path / "out.jsonl")
    assert record["attempts"] == 2 and record["tokens"] == {"prompt": 600, "completion": 40}


REASONS = {  # fault of the server → what a sample may be set aside for
    "always 500": "the server answers 500: out of luck",
    "always no json": "the response cannot be read",
    "always no form": "the reminder is not closed",
    "always oversized": "the reply is too long",
    "always empty": "the reply is empty",
}


def check_partition(visdial, output: Path, chat: Chat) -> None:
    """Every sample once, in the output or set aside; set aside exactly those that cannot be had, truly."""
    known = by_sample(visdial)
    records, rejected = lines(output), lines(rejected_path(output))
    ids = Counter(row["id"] for row in records + rejected)
    assert set(ids) == set(known) and max(ids.values()) == 1
    for record in records:
        fault = chat.fault(known[record["id"]])
        assert fault is None or not fault.startswith("always"), (fault, record["id"])
        assert record["messages"][-1]["content"][0]["text"] == chat.answer(known[record["id"]])
    for one in rejected:
        assert one["reason"].startswith(REASONS[chat.fault(known[one["id"]])])


@pytest.mark.slow
def test_a_thousand_requests_to_a_server_full_of_faults(tmp_path):
    make_dataset(tmp_path / "data", dialogs=100, rounds=10)
    train, chat = VisDial.load(tmp_path / "data", "train"), Chat(faults=0.3)
    manifest = run(train, tmp_path / "out.jsonl", chat, retries=2, concurrency=32)
    check_partition(train, tmp_path / "out.jsonl", chat)
    met = kinds(chat)
    assert len(chat.requests) == 1000 and all(met[fault] for fault in REASONS) and len(met) == 16
    assert manifest["rejected"] == sum(met[fault] for fault in REASONS) > 100


def test_a_few_requests_to_a_server_full_of_faults(train, tmp_path):
    chat = Chat(faults=0.6)
    run(train, tmp_path / "out.jsonl", chat)
    check_partition(train, tmp_path / "out.jsonl", chat)


@pytest.mark.slow
def test_killed_twenty_times_and_taken_up_again(tmp_path):
    """The same final files as of a run that nobody disturbed, and no sample finished twice."""
    make_dataset(tmp_path / "data", dialogs=60, rounds=10)
    train, chat = VisDial.load(tmp_path / "data", "train"), Chat(faults=0.2, delay=0.15)
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{root: {tmp_path / 'data'}}}\n")
    output, rng = tmp_path / "killed.jsonl", random.Random(5)
    with serving(chat, handler_of) as url:
        common = ["--config", str(config), "--model", "gemma3:27b", "--base-url", f"{url}/v1"]
        common += ["--rounds", "all", "--retries", "2", "--concurrency", "4"]
        command = [sys.executable, "-m", "visdial_lab", "generate", "api", *common, "--output-path"]
        journal, kills, progress = output.with_name("killed.jsonl.part-0"), 0, []
        while kills < 20:
            process = subprocess.Popen([*command, str(output)], cwd=ROOT, stderr=subprocess.DEVNULL)
            before = len(chat.bodies)
            while len(chat.bodies) == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.8))
            assert process.poll() is None, "finished before it was killed twenty times"
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            progress.append(journal.read_bytes().count(b"\n") if journal.exists() else 0)  # whole lines
        assert progress == sorted(progress) and progress[-1] > progress[0]
        subprocess.run([*command, str(output)], cwd=ROOT, check=True, capture_output=True)
        whole = tmp_path / "whole.jsonl"
        subprocess.run([*command, str(whole)], cwd=ROOT, check=True, capture_output=True)
    check_partition(train, output, chat)
    free = ("attempts", "tokens")  # a fault that comes once may have hit before a kill or after
    for path, other in ((output, whole), (rejected_path(output), rejected_path(whole))):
        stripped = [
            [{k: v for k, v in row.items() if k not in free} for row in lines(p)] for p in (path, other)
        ]
        assert stripped[0] == stripped[1]


def test_interrupted_and_resumed_in_this_process(train, tmp_path):
    """What was finished is not asked again."""
    chat, output = Chat(), tmp_path / "out.jsonl"

    def stop(count, total, note):
        if count == 5:
            raise WorkFailed("stopped here")

    with pytest.raises(WorkFailed, match="stopped here"):
        run(train, output, chat, progress=stop, concurrency=1)
    assert not output.exists() and len(lines(tmp_path / "out.jsonl.part-0")) == 6  # with its header
    done, chat.requests = list(chat.requests), {}
    assert run(train, output, chat, concurrency=1)["records"] == 12
    assert len(done) == 5 and len(chat.requests) == 7 and not set(done) & set(chat.requests)
    before = output.read_bytes(), rejected_path(output).read_bytes()
    chat.requests = {}
    assert run(train, output, chat)["state"] == "complete"  # nothing is left to ask
    assert chat.requests == {} and (output.read_bytes(), rejected_path(output).read_bytes()) == before


def test_every_entry_is_on_the_disk_before_its_worker_asks_on(train, tmp_path, monkeypatch):
    chat, synced = Chat(), []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(len(chat.bodies)), real(number)))
    run(train, tmp_path / "out.jsonl", chat, concurrency=1)
    assert synced == list(range(1, 13))


def test_sixteen_requests_are_under_way_at_once(tmp_path):
    make_dataset(tmp_path / "data", dialogs=20, rounds=4)
    chat = Chat(delay=0.2)
    run(VisDial.load(tmp_path / "data", "train"), tmp_path / "out.jsonl", chat, concurrency=16)
    assert chat.together == 16


def test_retry_after_is_honoured(train, tmp_path):
    chat = Chat()
    chat.fault = lambda sample: "429"  # once for each sample, "Retry-After: 1"
    assert run(train, tmp_path / "out.jsonl", chat, max_samples=3)["records"] == 3
    assert [len(times) for times in chat.requests.values()] == [2, 2, 2]
    assert all(second - first > 0.95 for first, second in chat.requests.values())


def test_a_server_that_dies_costs_nothing(train, tmp_path):
    """Nothing is set aside for it; the same command goes on once it is back."""
    chat, output = Chat(), tmp_path / "out.jsonl"

    def die(count, total, note):
        if count == 3:
            chat.status = (503, "out of memory", {})

    with pytest.raises(
        WorkFailed, match=r"failed 8 samples in a row, .*503: out of memory.*\n3 are finished"
    ):
        run(train, output, chat, retries=0, concurrency=1, progress=die)
    chat.status = None
    assert run(train, output, chat, retries=0)["records"] == 12
    assert Counter(map(len, chat.requests.values())) == {1: 12}


def test_a_missing_picture_is_no_sign_of_a_living_server(tmp_path):
    make_dataset(tmp_path / "data", dialogs=30, rounds=2)
    train = VisDial.load(tmp_path / "data", "train")
    for dialog in train[::2]:
        dialog.image_path.unlink()
    chat = Chat()
    chat.fault = lambda sample: "always 500"
    with pytest.raises(WorkFailed, match="8 samples in a row"):
        run(train, tmp_path / "out.jsonl", chat, retries=0, concurrency=1, skip_bad=True)


def test_a_server_that_fails_everything_is_no_result(train, tmp_path):
    chat = Chat()
    chat.fault = lambda sample: "always 500"
    with pytest.raises(WorkFailed, match="failed every sample: the server answers 500"):
        run(train, tmp_path / "out.jsonl", chat, retries=0, max_samples=2)


def test_retries_are_bounded(train, tmp_path):
    chat = Chat()
    bad = next(iter(by_sample(train).values()))
    chat.fault = lambda sample: "always 500" if sample == bad else None
    assert run(train, tmp_path / "out.jsonl", chat, retries=2)["rejected"] == 1
    assert len(chat.requests[bad]) == 3


@pytest.mark.parametrize("fault", ["very late", "dribble"])
def test_a_request_that_takes_too_long_is_given_up(train, tmp_path, monkeypatch, fault):
    """No byte for a while; or one after the other, so that no single wait is long."""
    monkeypatch.setattr(api_client, "_LONGEST_WAIT", 0.3)
    chat, output = Chat(), tmp_path / "out.jsonl"
    bad = next(iter(by_sample(train).values()))
    chat.fault = lambda sample: f"always {fault}" if sample == bad else None
    with serving(chat, handler_of) as url:
        manifest = generate(train, output, MODEL, Server(f"{url}/v1", retries=0, timeout=0.5))
    assert manifest["records"] == 11
    assert [one["reason"] for one in lines(rejected_path(output))] == ["it takes too long"]


def completion(message, **more) -> bytes:
    return json.dumps({"choices": [{"message": message}]} | more).encode()


BODIES = [
    b"[]",
    b'"text"',
    b"3",
    b"null",
    b"{}",
    b"",
    b"\xff\xfe",
    b"NaN",
    b"[" * 100_000,
    b'{"choices": {}}',
]
BODIES += [b'{"choices": [3]}', b'{"choices": [null]}', completion(None), completion("brown")]
BODIES += [completion({"content": [{"type": "text", "text": "a"}]}), completion({"content": {"a": 1}})]
BODIES += [
    b"<html>sorry</html>",
    b'{"error": {"message": "it failed"}}',
    b"9" * 5000,
    completion({"content": 7}),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:24]))
def test_a_response_that_is_none_has_a_reason(train, tmp_path, body):
    chat = Chat()
    chat.raw = body
    with pytest.raises(WorkFailed, match=r"failed every sample: the response|it failed"):
        run(train, tmp_path / "out.jsonl", chat, max_samples=2)


@pytest.mark.parametrize(
    "usage", [None, 3, [], {}, {"prompt_tokens": "x", "completion_tokens": None}, {"prompt_tokens": -1}]
)
def test_odd_token_counts_are_estimated(train, tmp_path, usage):
    chat = Chat()
    chat.raw = completion({"content": "<reminder>a</reminder> brown"}, usage=usage)
    assert run(train, tmp_path / "out.jsonl", chat, max_samples=1)["tokens"]["prompt"] > 100


def test_half_a_character_can_be_written(train, tmp_path):
    chat = Chat()
    chat.raw = completion({"content": "<reminder>a</reminder> bro\ud800wn \x00"})
    run(train, tmp_path / "out.jsonl", chat, max_samples=1)
    assert "bro?wn" in (tmp_path / "out.jsonl").read_text()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(tiny, tmp_path):
    chat, config = Chat(delay=0.5), tmp_path / "c.yaml"
    config.write_text(f"data: {{root: {tiny}}}\n")
    with serving(chat, handler_of) as url:
        command = [sys.executable, "-m", "visdial_lab", "generate", "api", "--config", str(config)]
        command += ["--model", "gemma3:27b", "--base-url", f"{url}/v1", "--rounds", "all"]
        command += ["--concurrency", "2", "--output-path", str(tmp_path / "out.jsonl")]
        process = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
        )
        while len(chat.bodies) < 5 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "interrupted; what was finished before is kept" in said
    assert len(lines(tmp_path / "out.jsonl.part-0")) >= 4


KEY = "sk-canary-0123456789abcdef"


SLOW = [pytest.param(status, marks=pytest.mark.slow) for status in (400, 404, 429)]


@pytest.mark.parametrize("status", [401, 500, *SLOW])
def test_the_key_is_in_no_output_whatever_the_server_does(tiny, tmp_path, status):
    """The server echoes the key in its error messages; even with --debug nobody sees it."""
    chat = Chat()
    chat.status = (status, f"bad request with key {KEY}!", {"X-Key": KEY})
    folder = tmp_path / "out"
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{root: {tiny}}}\n")
    with serving(chat, handler_of) as url:
        command = [sys.executable, "-m", "visdial_lab", "--debug", "generate", "api", "--config", str(config)]
        command += ["--model", "gemma3:27b", "--base-url", f"{url}/v1", "--retries", "0"]
        command += ["--output-path", str(folder / "out.jsonl")]
        environment = os.environ | {"OPENAI_API_KEY": KEY, "OPENAI_LOG": "debug"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert "Traceback" in done.stderr and "***" in done.stderr
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert KEY not in done.stdout + done.stderr and KEY.encode() not in written


def test_the_key_is_sent_and_kept_out_of_the_files(train, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    chat, output = Chat(), tmp_path / "out" / "out.jsonl"
    bad = next(iter(by_sample(train).values()))
    chat.fault = lambda sample: "always 500" if sample == bad else None
    run(train, output, chat, retries=0)
    write_page(output)
    assert chat.keys == {f"Bearer {KEY}"}
    assert not any(KEY.encode() in path.read_bytes() for path in output.parent.iterdir())


@pytest.mark.parametrize("key", ["sk-\nInjected: 1", "schlüssel"])
def test_a_key_that_is_none_is_refused_unseen(train, tmp_path, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY in the environment holds characters") as caught:
        run(train, tmp_path / "out.jsonl", Chat())
    assert key not in str(caught.value)


# -- bad input --


def test_server_down(train, tmp_path):
    with serving(Chat(), handler_of) as url:
        pass
    with pytest.raises(UserError, match=r"no server answers at .*ollama serve"):
        generate(train, tmp_path / "out.jsonl", MODEL, Server(f"{url}/v1"))


def test_wrong_model_shows_the_servers_list(train, tmp_path):
    with pytest.raises(
        UserError, match=r"'gemma3:99b' .*not found.*\nModels that it lists: gemma3:27b, other:1b"
    ):
        run(train, tmp_path / "out.jsonl", Chat(), Recipe("gemma3:99b"))


def test_a_server_without_a_list_of_models_is_asked(train, tmp_path):
    chat = Chat(models=())
    chat.models = type("Any", (list,), {"__contains__": lambda self, name: True})()
    assert run(train, tmp_path / "out.jsonl", chat, max_samples=2)["records"] == 2
    assert chat.bodies[0]["max_tokens"] == 1


def test_refused_key(train, tmp_path):
    chat = Chat()
    chat.status = (401, "no key given", {})
    with pytest.raises(UserError, match=r"wants a key \(.*401: no key given\); OPENAI_API_KEY .*not set"):
        run(train, tmp_path / "out.jsonl", chat)


@pytest.mark.parametrize(
    "url", ["localhost:11434", "ftp://x/v1", "http://", "http://a:b@c/v1", "http://a/v1?key=b", "http://[/v1"]
)
def test_addresses_that_are_none_or_hold_secrets(train, tmp_path, url):
    with pytest.raises(UserError, match="--base-url"):
        generate(train, tmp_path / "out.jsonl", MODEL, Server(url))


def test_missing_pictures(tiny, tmp_path):
    train = VisDial.load(tiny, "train")
    train[1].image_path.unlink()
    with pytest.raises(UserError, match=f"no picture for 1 of 4 dialogs, first image {train[1].image_id}"):
        run(train, tmp_path / "out.jsonl", Chat())
    assert not list(tmp_path.glob("out*"))
    manifest = run(train, tmp_path / "out.jsonl", Chat(), skip_bad=True)
    assert (manifest["records"], manifest["rejected"]) == (9, 3)
    train[0].image_path.write_bytes(b"no picture")
    manifest = run(train, tmp_path / "two.jsonl", Chat(), skip_bad=True)
    reasons = {one["reason"] for one in lines(rejected_path(tmp_path / "two.jsonl"))}
    assert manifest["rejected"] == 6 and len(reasons) == 2
    assert all(reason.startswith("no prompt: dialog") for reason in reasons)


def test_unwritable_output(train, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        run(train, tmp_path / "file" / "out.jsonl", Chat())
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError, match=r"folder\.jsonl"):
        run(train, tmp_path / "folder.jsonl", Chat())
    with pytest.raises(UserError, match=r"ends in \.jsonl"):
        run(train, tmp_path / "out.json", Chat())


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Recipe("other:1b", rounds="all"), "model 'gemma3:27b', now 'other:1b'"),
        (Recipe("gemma3:27b", "plain", rounds="all"), "style 'reminder', now 'plain'"),
        (Recipe("gemma3:27b", rounds="all", temperature=0.5), "temperature 0.0, now 0.5"),
        (Recipe("gemma3:27b", rounds="last"), "rounds 'all', now 'last'"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_an_output_of_another_configuration_is_never_mixed(train, tmp_path, other, named, finished):
    chat, output = Chat(), tmp_path / "out.jsonl"
    if finished:
        run(train, output, chat)
    else:
        with pytest.raises(WorkFailed):
            run(train, output, chat, progress=_fail_at_three, concurrency=1)
    before = {path: path.read_bytes() for path in tmp_path.glob("out*")}
    with pytest.raises(UserError, match=f"another configuration.*{re.escape(named)}"):
        run(train, output, chat, other)
    assert {path: path.read_bytes() for path in tmp_path.glob("out*")} == before


def _fail_at_three(count, total, note):
    if count == 3:
        raise WorkFailed("stopped here")


def test_other_dialogs_are_another_configuration(tiny, tmp_path):
    run(VisDial.load(tiny, "train"), tmp_path / "out.jsonl", Chat())
    with pytest.raises(UserError, match="another configuration: dialogs"):
        run(VisDial.load(tiny, "val"), tmp_path / "out.jsonl", Chat())
    own = tmp_path / "own.txt"
    own.write_text("be brief")
    with pytest.raises(UserError, match="another configuration: template"):
        run(
            VisDial.load(tiny, "train"),
            tmp_path / "out.jsonl",
            Chat(),
            Recipe("gemma3:27b", rounds="all", template=str(own)),
        )


def test_a_file_of_somebody_else_is_not_touched(train, tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_text("mine\n")
    with pytest.raises(UserError, match="was not made by this command"):
        run(train, output, Chat())
    assert output.read_text() == "mine\n"
    manifest_path(tmp_path / "two.jsonl").write_text("[]")
    with pytest.raises(UserError, match="no manifest of this command"):
        run(train, tmp_path / "two.jsonl", Chat())


def test_two_runs_at_once_are_refused(train, tmp_path):
    held = only_one(tmp_path / ".out.jsonl.lock", "two at once")
    with held, pytest.raises(UserError, match="another run is writing"):
        run(train, tmp_path / "out.jsonl", Chat())


# -- budgets, order, more and less --


def test_token_budget_stops_and_the_next_run_goes_on(train, tmp_path):
    chat, output = Chat(), tmp_path / "out.jsonl"
    manifest = run(train, output, chat, token_budget=1600, concurrency=2)  # 320 a sample
    assert manifest["state"] == "stopped: token budget" and manifest["records"] == len(lines(output)) == 5
    assert run(train, output, chat, token_budget=1600)["records"] == 5  # the whole output counts
    assert run(train, output, chat)["records"] == 12
    assert Counter(map(len, chat.requests.values())) == {1: 12}


def test_time_budget(train, tmp_path):
    manifest = run(train, tmp_path / "out.jsonl", Chat(delay=0.3), time_budget=0.2, concurrency=3)
    assert manifest["state"] == "stopped: time budget" and 0 < manifest["records"] <= 3


def test_tokens_are_estimated_where_the_server_does_not_count(train, tmp_path):
    chat = Chat()
    chat.usage = False
    tokens = run(train, tmp_path / "out.jsonl", chat, max_samples=1)["tokens"]
    assert 300 < tokens["prompt"] < 1000 and 5 < tokens["completion"] < 50


def test_costs_are_told_on_the_way(train, tmp_path):
    told = []
    manifest = run(
        train, tmp_path / "out.jsonl", Chat(), prices=(1000, 10_000), progress=lambda *a: told.append(a)
    )
    assert manifest["cost"] == pytest.approx(3.6 + 2.4)
    assert told[0][:2] == (0, 12) and told[-1] == (12, 12, "3.8k tokens, $6.00 of about $6.00")


def test_a_longer_run_adds_to_a_shorter_one(train, tmp_path):
    chat = Chat()
    run(train, tmp_path / "a.jsonl", chat, max_samples=4)
    first = {row["id"] for row in lines(tmp_path / "a.jsonl")}
    run(train, tmp_path / "a.jsonl", chat, max_samples=9)
    assert first < {row["id"] for row in lines(tmp_path / "a.jsonl")}
    assert Counter(map(len, chat.requests.values())) == {1: 9}
    run(train, tmp_path / "b.jsonl", Chat(), max_samples=9)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_rejected_samples_are_asked_again_if_wanted(train, tmp_path):
    chat, output = Chat(), tmp_path / "out.jsonl"
    chat.reply = "no form"
    assert run(train, output, chat)["rejected"] == 12
    chat.reply = None
    assert run(train, output, chat)["rejected"] == 12
    assert run(train, output, chat, retry_rejected=True)["records"] == 12
    assert lines(rejected_path(output)) == []


def test_order_of_samples(train):
    everything = samples(train, "all")
    assert sorted(everything) == [(place, r) for place in range(4) for r in (1, 2, 3)]
    assert {round_id for _, round_id in samples(train, "last")} == {3}
    assert sorted(place for place, _ in samples(train, "random", 3)) == [0, 1, 2, 3]
    assert len({tuple(samples(train, "random", seed)) for seed in range(9)}) > 1
    with pytest.raises(UserError, match="rounds: expected all, last or random"):
        samples(train, "first")


def test_it_runs_inside_an_event_loop_too(train, tmp_path):
    """As in Jupyter."""

    async def cell():
        return run(train, tmp_path / "out.jsonl", Chat())

    assert asyncio.run(cell())["records"] == 12


# -- the page and the command --


def test_statistics_and_page(train, tmp_path):
    chat, output = Chat(), tmp_path / "out.jsonl"
    known = by_sample(train)
    bad = set(list(known.values())[:2])
    chat.fault = lambda sample: "always oversized" if sample in bad else None
    run(train, output, chat)
    found = read_statistics(output)
    assert found["reasons"] == {"the reply is too long": 2}
    assert sum(part["asked"] for part in found["by"]["question"].values()) == 12
    assert sum(part["records"] for part in found["by"]["round"].values()) == 10
    exact = [row["agreement"]["exact_match"] for row in lines(output)]
    assert found["agreement"]["exact_match"] == pytest.approx(sum(exact) / 10)
    page = write_page(output).read_text()
    assert "10 of 12 samples wanted" in page and page.count('<article class="sample"') == 10
    assert page.count("data:image/jpeg") == 10 and "the reply is too long: " in page
    assert "<script" not in page and str(tmp_path) not in page


def test_page_escapes_what_a_model_wrote(train, tmp_path):
    chat, output = Chat(), tmp_path / "out.jsonl"
    chat.reply = "<script>alert(1)</script>"
    run(train, output, chat)
    page = write_page(output).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "0 of 12" in page


def test_kinds_of_reasons():
    assert reason_kind("the answer is too long: 31 words, at most 20") == "the answer is too long"
    assert reason_kind("expected one <reminder>, found 2 of it") == "expected one <reminder>"


def test_command(tiny, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{root: {tiny}}}\n")
    chat, output = Chat(), tmp_path / "out.jsonl"
    options = ["--config", str(config), "--style", "plain", "--max_samples", "3", "--prices", "1", "2"]
    with serving(chat, handler_of) as url, pytest.raises(SystemExit) as done:
        command = ["generate", "api", "--output_path", str(output), "--model", "gemma3:27b"]
        main([*command, "--base-url", f"{url}/v1", *options])
    said = capsys.readouterr()
    assert done.value.code == 0, said.err  # a reminder where none belongs is set aside, not an error
    assert f"0 records in {output}, 3 set aside" in said.out
    assert "asking: 3 of 3" in said.err and "3 set aside" in said.err
    assert (tmp_path / "out.html").exists()


@pytest.mark.parametrize("place", ["records", "rejected", "manifest", "journal"])
def test_a_crash_while_the_results_are_written(train, tmp_path, monkeypatch, place):
    chat, output = Chat(faults=0.5), tmp_path / "out.jsonl"
    writers = {"records": "write_jsonl", "rejected": "write_jsonl", "manifest": "write_json"}
    after = {"records": 0, "rejected": 1, "manifest": 1, "journal": 0}[place]  # calls that go well before
    holder = api_data.journal if place == "journal" else api_data
    name = writers.get(place, "remove")
    real, calls = getattr(holder, name), []

    def crash(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise WorkFailed("crashed")
        return real(*arguments)

    monkeypatch.setattr(holder, name, crash)
    with pytest.raises(WorkFailed, match="crashed"):
        run(train, output, chat)
    monkeypatch.undo()
    asked = {sample: list(times) for sample, times in chat.requests.items()}
    assert run(train, output, chat)["state"] == "complete"
    assert chat.requests == asked  # all was on the disk already
    check_partition(train, output, chat)
    assert not list(tmp_path.glob("*.part-*"))


def test_instructions_of_ones_own_are_read_once(train, tmp_path):
    own, chat = tmp_path / "own.txt", Chat()
    own.write_text("be brief")
    recipe = Recipe("gemma3:27b", rounds="all", template=str(own))
    run(train, tmp_path / "out.jsonl", chat, recipe, progress=lambda *_: own.write_text("be long"))
    assert {body["messages"][0]["content"] for body in chat.bodies} == {"be brief"}
    with pytest.raises(UserError, match=r"template 'own\.txt [0-9a-f]+', now 'own\.txt"):
        run(train, tmp_path / "out.jsonl", chat, recipe)
