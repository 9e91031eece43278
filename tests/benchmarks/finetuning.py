"""How fast a model is fine-tuned, and in how much memory: the usual recipe and ours, as JSON.

On a GPU: a random-weight model of Gemma-3-4b's true shape (no download), dialogs of 10 rounds with random
words (or --dialogs and --tokenizer, real ones), noise pictures of 480 × 640, all through `finetune`:
    python tests/benchmarks/finetuning.py --variants seed-unsloth seed-peft ours-unsloth ours-peft
seed: one answer a sample, its history before it, batch 2 × 4, NF4, LoRA on both towers, checkpointing.
ours: all ten answers of a dialog behind one picture, as the profile gemma3-4b has it. t4: profile
gemma3-4b-t4. A variant may carry changes: ours-peft:training.per_device_train_batch_size=32.
Each variant has a process of its own (Unsloth changes libraries for the whole process).
Several GPUs: --launch "torchrun --nproc-per-node 2".
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]

WARM_UP = 5  # steps not counted: kernels are compiled and tuned in them
SEED_RECIPE = {
    "model.load_in_4bit": True,
    "model.use_gradient_checkpointing": True,
    "peft.finetune_vision_layers": True,
    "training.per_device_train_batch_size": 2,
    "training.gradient_accumulation_steps": 4,
    "training.group_by_length": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--variants", nargs="+", default=["seed-unsloth", "seed-peft", "ours-unsloth", "ours-peft"]
    )
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps each, warm-up included")
    parser.add_argument("--dialogs", type=Path, help="a VisDial file with real dialogs")
    parser.add_argument("--tokenizer", type=Path, help="folder of Gemma-3's tokenizer")
    parser.add_argument("--model", type=Path, help="folder to keep the random-weight model in")
    parser.add_argument("--launch", default=sys.executable, help="what starts each variant's process")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print("RESULT " + json.dumps(one(options)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.model = options.model or Path(folder) / "gemma3-4b"
        if not options.model.exists():
            subprocess.run([sys.executable, __file__, "--one", "build", *arguments(options)], check=True)
        results: dict = {}
        for variant in options.variants:
            place = Path(folder) / f"run{len(results)}"
            call = [*shlex.split(options.launch), __file__, "--one", variant, *arguments(options)]
            call += ["--folder", str(place)]
            began = time.perf_counter()
            ran = subprocess.run(call, stdout=subprocess.PIPE, text=True)
            lines = [
                line for line in ran.stdout.splitlines() if line.startswith('RESULT {"')
            ]  # the first process's
            found = json.loads(lines[0].removeprefix("RESULT ")) if lines else {"failed": ran.returncode}
            results[variant] = found | {"process_seconds": time.perf_counter() - began}
            print(variant, json.dumps(results[variant]), file=sys.stderr, flush=True)
    baseline = results.get("seed-unsloth", {}).get("answers_per_second")
    for found in results.values():
        if baseline and "answers_per_second" in found:
            found["times_seed_unsloth"] = found["answers_per_second"] / baseline
    print(json.dumps(results, indent=1))


def arguments(options) -> list[str]:
    given = ["--steps", str(options.steps), "--model", str(options.model)]
    for name in ("dialogs", "tokenizer"):
        if getattr(options, name):
            given += [f"--{name}", str(getattr(options, name))]
    return given


def one(options) -> dict:
    """One variant, or `build`: the model's folder."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.one == "build":
        return build(options)
    name, _, changes = options.one.partition(":")
    kind, backend = name.split("-")
    if backend == "unsloth":
        import unsloth  # noqa: F401  before transformers, as its authors ask

    import visdial_lab  # noqa: F401, I001
    import torch

    from visdial_lab import finetune as module
    from visdial_lab.chat import token_count
    from visdial_lab.config import load_config
    from visdial_lab.models import load_processor

    settings = {"model.name": str(options.model), "training.backend": backend, "training.logging_steps": 1}
    settings |= {"training.save_steps": None, "training.num_eval_dialogs": 0, "training.warmup_steps": 0}
    settings |= {"training.max_steps": options.steps, "training.early_stopping_patience": None}
    if kind == "seed":
        settings |= SEED_RECIPE | {"training.torch_compile": backend == "unsloth"}
    for change in filter(None, changes.split(",")):
        key, _, value = change.partition("=")
        settings[key] = json.loads(value)
    config = load_config("gemma3-4b-t4" if kind == "t4" else "gemma3-4b", settings)
    module._REMEMBERED = 0  # every picture is new, as in an epoch
    training, world = config.training, int(os.environ.get("WORLD_SIZE", 1))
    per_step = training.per_device_train_batch_size * training.gradient_accumulation_steps * world
    rows = make_records(options, per_step * options.steps, kind == "seed")
    ticks: list[float] = []
    began = time.perf_counter()
    module.finetune(
        config, rows, options.folder / "adapter", on_log=lambda *_: ticks.append(time.perf_counter())
    )
    total, peak = time.perf_counter() - began, torch.cuda.max_memory_allocated() / 2**30
    if not ticks:
        return {}
    warm = min(WARM_UP, options.steps // 2)
    steps = [later - earlier for earlier, later in zip(ticks[warm - 1 :], ticks[warm:], strict=False)]
    seconds = statistics.median(steps)  # an epoch has thousands; the few that compile a length don't count
    processor = load_processor(options.model)
    sample = rows[:: max(1, len(rows) // 64)]
    lengths = [token_count(processor, row["messages"]) for row in sample]
    answers = 1 if kind == "seed" else statistics.mean(len(row["messages"]) / 2 for row in sample)
    needed = sum(
        operations(options.model, length, config.peft.finetune_vision_layers, answers) for length in lengths
    )
    needed *= per_step / len(sample) / world
    rate = matrix_rate()
    return {
        "device": torch.cuda.get_device_name(),
        "processes": world,
        "batch": f"{training.per_device_train_batch_size} x {training.gradient_accumulation_steps}",
        "answers_per_second": answers * per_step / seconds,
        "samples_per_second": per_step / seconds,
        "tokens_per_second": statistics.mean(lengths) * per_step / seconds,
        "seconds_per_step": seconds,
        "mean_step": statistics.mean(steps),
        "slowest_step": max(steps),
        "tokens_per_sample": statistics.mean(lengths),
        "peak_gib": peak,
        "matrix_rate_tflops": rate,
        "fraction_of_matrix_rate": needed / seconds / 1e12 / rate,
        "total_seconds": total,
    }


def build(options) -> dict:
    """Save Gemma-3-4b's shape with random weights and a processor to `options.model`."""
    import visdial_lab  # noqa: F401, I001
    import ranking
    from transformers import AutoTokenizer

    tokenizer = (
        AutoTokenizer.from_pretrained(options.tokenizer)
        if options.tokenizer
        else ranking.tokenizer_with_words()
    )
    model, processor = ranking.gemma3_4b(tokenizer, four_bit=False)
    model.save_pretrained(options.model)
    processor.save_pretrained(options.model)
    return {}


def make_records(options, count: int, single: bool) -> list[dict]:
    """Records over noise pictures; with `single` each ends at a random round, as in the usual recipe."""
    import numpy as np
    from PIL import Image

    from visdial_lab.chat import chat_messages
    from visdial_lab.generation import only_last_learnt
    from visdial_lab.visdial import VisDial

    rng = np.random.default_rng(0)
    images = options.folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    real = list(VisDial.load(options.dialogs, "val")) if options.dialogs else None
    rows = []
    for number in range(count):
        path = images / f"{number % 256}.jpg"
        if not path.exists():
            noise = rng.integers(0, 255, (15, 20, 3), dtype=np.uint8)  # of a photo's size on the disk
            Image.fromarray(noise).resize((640, 480)).save(
                path.with_suffix(f".{os.getpid()}.jpg"), quality=90
            )
            path.with_suffix(f".{os.getpid()}.jpg").rename(path)
        if real:
            dialog = real[number % len(real)]
            caption, turns = dialog.caption, [(turn.question, turn.answer) for turn in dialog.rounds]
        else:
            caption = words(rng, 11)
            turns = [(words(rng, 7), words(rng, int(rng.integers(1, 6)))) for _ in range(10)]
        if single:
            turns = turns[: int(rng.integers(1, len(turns) + 1))]
        messages = chat_messages(turns, caption)
        if single:
            messages = only_last_learnt(messages)
        rows.append(
            {
                "id": f"n{number}",
                "image_id": number,
                "image": str(path),
                "source": "noise",
                "messages": messages,
            }
        )
    return rows


def words(rng, count: int) -> str:
    return "".join(f"w{word:05d}" for word in rng.integers(0, 20_000, count))


def operations(model: Path, length: int, vision_trained: bool, answers: float) -> float:
    """Floating-point operations that a sample needs: forward, and gradients of activations.

    Weights are frozen, so backward costs as much as forward, not twice. Recomputation is not counted.
    """
    config = json.loads((model / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    attention = text["num_attention_heads"] * text["head_dim"]
    kv = text["num_key_value_heads"] * text["head_dim"]
    layer = text["hidden_size"] * (2 * attention + 2 * kv + 3 * text["intermediate_size"])
    once = text["num_hidden_layers"] * (2 * layer * length + 4 * attention * length**2 / 2)
    once += 2 * text["hidden_size"] * text["vocab_size"] * 4.5 * answers  # tokens of an answer, about
    width, patches = vision["hidden_size"], (vision["image_size"] // vision["patch_size"]) ** 2
    patch = 4 * width**2 + 2 * width * vision["intermediate_size"]
    seen = vision["num_hidden_layers"] * (2 * patch * patches + 4 * width * patches**2)
    return 2 * once + (2 if vision_trained else 1) * seen


def matrix_rate() -> float:
    import ranking

    return ranking.matrix_rate()


if __name__ == "__main__":
    main()
