"""The generator against a real server with a real model: `transformers serve` with the embedded Gemma-3."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from visdial_lab.api_client import Server
from visdial_lab.api_data import Recipe, generate, rejected_path
from visdial_lab.api_page import read_statistics, write_page
from visdial_lab.errors import UserError
from visdial_lab.generation import read_records
from visdial_lab.visdial import VisDial

ROOT = Path(__file__).resolve().parents[1]
MODEL = "data/gemma3-scenes"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def real_server(tmp_path_factory):
    """The address of `transformers serve` with the embedded model, on a free port."""
    if not (ROOT / MODEL / "model.safetensors").is_file():
        pytest.skip("SKIPPED: the embedded model is not built")
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", MODEL, "--device", "cpu"]
    environment = os.environ | {
        "HF_HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "GOMP_SPINCOUNT": "30000",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "log").open("w") as log:
        command += ["--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def test_a_real_model_writes_records(real_server, scenes, tmp_path):
    train, output = VisDial.load(scenes, "train"), tmp_path / "out.jsonl"
    recipe = Recipe(MODEL, "plain", max_tokens=32, tries=2)
    manifest = generate(train, output, recipe, Server(real_server), max_samples=12, concurrency=2)
    assert manifest["state"] == "complete" and manifest["records"] + manifest["rejected"] == 12
    assert manifest["records"] >= 6, rejected_path(output).read_text()
    records = read_records(output)
    text = json.dumps([record["messages"] for record in records])
    assert "<" not in "".join(record["messages"][-1]["content"][0]["text"] for record in records), text
    assert {part["type"] for record in records for part in record["messages"][0]["content"]} == {
        "image",
        "text",
    }
    found = read_statistics(output)
    assert len({row["answer"] for row in found["rows"]}) > 1  # it does not say the same to everything
    assert write_page(output).read_text().count("data:image/jpeg") == len(records)


def test_the_picture_reaches_the_model(real_server, scenes, tmp_path):
    """Its tokens are counted by the server: as many more than without as the processor makes of a picture."""
    import openai

    from visdial_lab.api_prompt import prompt

    dialog = VisDial.load(scenes, "train")[0]
    client = openai.OpenAI(base_url=real_server, api_key="none")
    counts = []
    for picture in (True, False):
        messages = prompt(dialog, 1, "plain", picture)
        said = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4, temperature=0)
        counts.append(said.usage.prompt_tokens)
    tokens = json.loads((ROOT / MODEL / "processor_config.json").read_text())["image_seq_length"]
    assert counts[0] - counts[1] >= tokens


def test_what_it_cannot_do_is_set_aside(real_server, scenes, tmp_path):
    """The small model has never seen a reminder: each sample is set aside for that."""
    train, output = VisDial.load(scenes, "train"), tmp_path / "out.jsonl"
    recipe = Recipe(MODEL, "reminder", max_tokens=24, tries=2)
    manifest = generate(train, output, recipe, Server(real_server), max_samples=3, concurrency=1)
    assert (manifest["records"], manifest["rejected"]) == (0, 3)
    for line in rejected_path(output).read_text().splitlines():
        one = json.loads(line)
        assert one["reason"] and len(one["replies"]) == 2


def test_another_model_than_it_serves(real_server, scenes, tmp_path):
    with pytest.raises(UserError, match=r"does not answer for model 'gemma3:27b' .*pinned to"):
        generate(
            VisDial.load(scenes, "train"), tmp_path / "out.jsonl", Recipe("gemma3:27b"), Server(real_server)
        )
