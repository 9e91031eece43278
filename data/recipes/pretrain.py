"""Pre-train the embedded base model from nothing: it learns to see and to answer, not yet to converse.

    python data/recipes/pretrain.py --work runs/pre --seconds 900 --stop-after 540
    python data/recipes/pretrain.py --work runs/pre --seconds 900 --resume-from runs/pre/checkpoint.pt

`--output` must hold the tokenizer already (gemma3_scenes.py makes it). The scenes have seeds of their
own; none of them is in data/scenes. All cores go on drawing while the GPU already learns from the scenes
that are ready.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import gemma3_scenes
import pretrain_data
import pretrain_model

from visdial_lab.files import atomic_path, write_text

START = time.monotonic()
LOG_EVERY = 50
TIMED_STEPS = 50  # the first steps wait for the GPU after each phase, to show where the time goes


def log(path: Path, **values) -> None:
    """Append one JSON line to `path` and print it."""
    line = json.dumps({"wall": round(time.monotonic() - START, 1), **values})
    print(line, flush=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def begin(options: argparse.Namespace, device) -> dict:
    """The training state: a fresh model and optimizer, or those of `--resume-from`.

    A checkpoint brings everything back; a model's folder only its weights, and the schedule starts anew.
    """
    import torch
    from transformers import Gemma3ForConditionalGeneration

    vocabulary = pretrain_data.load_tokenizer(str(options.output)).get_vocab_size()
    model = pretrain_model.build_model(vocabulary, options.seed).to(device)
    optimizer = pretrain_model.build_optimizer(model, fused=device.type == "cuda")
    state = {"step": 0, "seconds": 0.0, "images_seen": 0, "history": []}
    if options.resume_from and options.resume_from.is_dir():
        trained = Gemma3ForConditionalGeneration.from_pretrained(options.resume_from, dtype=torch.float32)
        model.load_state_dict(trained.state_dict())
    elif options.resume_from:
        saved = torch.load(options.resume_from, map_location=device, weights_only=True)
        model.load_state_dict(saved.pop("model"))
        optimizer.load_state_dict(saved.pop("optimizer"))
        state = saved
    return {**state, "model": model, "optimizer": optimizer}


def fit(state: dict, scenes, held_out: list[Path], options: argparse.Namespace) -> tuple[dict, int]:
    """Train until the schedule or this command's time is over; `state` is changed in place.

    Returns the attention masks and the first position that can hold an answer, which evaluation needs too.
    """
    import torch

    model, optimizer, device = state["model"], state["optimizer"], scenes.device
    log_path = options.work / "log.jsonl"
    generator = torch.Generator(device).manual_seed(options.seed + state["step"])
    ids, _, images = scenes.batch(2, generator)
    first = int((ids[0] == model.config.eoi_token_index).nonzero()[0]) + 1
    masks = pretrain_model.attention_masks(model, ids[:1])
    pretrain_model.check_forward(model, ids, pretrain_model.to_pixels(images), masks, first)
    loss_of = pretrain_model.answer_loss
    if options.compile:
        loss_of = torch.compile(loss_of, dynamic=False)

    def progress() -> float:
        return state["step"] / options.steps if options.steps else state["seconds"] / options.seconds

    phases = {"batch": 0.0, "forward": 0.0, "backward": 0.0, "optimizer": 0.0}
    timed = 0

    def lap(phase: str, since: float) -> float:
        if timed >= TIMED_STEPS:
            return since
        if device.type == "cuda":
            torch.cuda.synchronize()
        phases[phase] += time.monotonic() - since
        return time.monotonic()

    def step():
        at = time.monotonic()
        ids, answers, images = scenes.batch(options.batch_size, generator)
        pixels = pretrain_model.to_pixels(images, generator)
        at = lap("batch", at)
        with pretrain_model.half_precision(device):
            loss = loss_of(model, ids, answers, pixels, masks, first)
        at = lap("forward", at)
        loss.backward()
        at = lap("backward", at)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = pretrain_model.learning_rate(progress(), options.peak_rate)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        lap("optimizer", at)
        state["step"] += 1
        state["images_seen"] += options.batch_size
        return loss.detach(), norm

    step()[0].item()  # compiles the model; the schedule's clock starts after it
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    log(
        log_path,
        event="compiled",
        memory_gb=memory,
        seconds={name: round(phases[name], 1) for name in phases},
    )
    phases.update(dict.fromkeys(phases, 0.0))
    logged, logged_step = time.monotonic(), state["step"]
    began = logged - state["seconds"]
    while progress() < 1 and time.monotonic() - START < options.stop_after:
        loss, norm = step()
        state["seconds"] = time.monotonic() - began
        timed += 1
        if timed == TIMED_STEPS:
            log(log_path, milliseconds={name: round(phases[name] / timed * 1e3, 2) for name in phases})
        if state["step"] % LOG_EVERY == 0:
            value = loss.item()  # waits for the GPU, so the speed below is honest
            now = time.monotonic()
            log(
                log_path,
                step=state["step"],
                seconds=round(state["seconds"], 1),
                loss=round(value, 4),
                gradient_norm=round(norm.item(), 3),
                images_per_second=round((state["step"] - logged_step) * options.batch_size / (now - logged)),
                scenes=scenes.count,
            )
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss is {value} at step {state['step']}")
            scenes.take_finished()
            logged, logged_step = time.monotonic(), state["step"]
        if state["step"] % options.evaluate_every == 0:
            result = pretrain_model.evaluate(model, held_out[:2], masks, first, options.batch_size)
            state["history"].append({"step": state["step"], "seconds": round(state["seconds"], 1), **result})
            log(log_path, event="evaluation", **state["history"][-1])
    state["finished"] = progress() >= 1
    return masks, first


def save(
    state: dict, scenes_seen: int, held_out: list[Path], masks, first: int, options: argparse.Namespace
) -> None:
    """Write the checkpoint and the model, and judge the model as it was saved (in bfloat16)."""
    import torch
    from transformers import Gemma3ForConditionalGeneration

    model = state["model"]
    kept = {name: state[name] for name in ("step", "seconds", "images_seen", "history")}
    checkpoint = {**kept, "model": model.state_dict(), "optimizer": state["optimizer"].state_dict()}
    with atomic_path(options.work / "checkpoint.pt") as temporary:
        torch.save(checkpoint, temporary)
    weights = gemma3_scenes.save_model(model, options.output)

    shipped = Gemma3ForConditionalGeneration.from_pretrained(options.output, dtype=torch.float32).to(
        model.device
    )
    on_gpu = model.device.type == "cuda"
    metrics = {
        "finished": state["finished"],
        "parameters": sum(parameter.numel() for parameter in shipped.parameters()),
        "weights_bytes": weights.stat().st_size,
        "vocabulary": shipped.config.text_config.vocab_size,
        "held_out": pretrain_model.evaluate(shipped, held_out, masks, first, options.batch_size),
        "held_out_scenes": options.held_out,
        "scenes": scenes_seen,
        "images_seen": state["images_seen"],
        "steps": state["step"],
        "batch_size": options.batch_size,
        "length": options.length,
        "chats_per_scene": options.sets,
        "peak_learning_rate": options.peak_rate,
        "seed": options.seed,
        "training_seconds": round(state["seconds"], 1),
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "torch": torch.__version__,
        "history": state["history"],
    }
    write_text(options.output / "pretraining.json", json.dumps(metrics, indent=2) + "\n")
    log(options.work / "log.jsonl", event="saved", **{name: metrics[name] for name in list(metrics)[:5]})


def train(options: argparse.Namespace) -> None:
    """Draw, train, evaluate, save."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    shards = options.work / "shards"
    options.work.mkdir(parents=True, exist_ok=True)
    log_path = options.work / "log.jsonl"
    pretrain_model.check_layout(options.output, options.length)
    with pretrain_data.start_pool(options.workers) as pool:
        layout = (options.output, options.sets, options.length)
        judged = pretrain_data.start_drawing(
            pool, shards, f"held-out-{options.seed}", options.held_out, *layout
        )
        drawn = pretrain_data.start_drawing(pool, shards, f"pretrain-{options.seed}", options.scenes, *layout)
        state = begin(options, device)
        log(log_path, event="begin", device=str(device), step=state["step"])
        for result in filter(None, judged.values()):
            result.get()
        scenes = pretrain_data.Scenes(drawn, options.scenes, device)
        while scenes.count < min(options.start_with, options.scenes):
            time.sleep(0.2)
            scenes.take_finished()
        log(log_path, event="drawn", scenes=scenes.count)
        masks, first = fit(state, scenes, list(judged), options)
    save(state, scenes.count, list(judged), masks, first, options)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--output", type=Path, default=Path("data/gemma3-scenes"), help="has the tokenizer, gets the model")
    add("--work", type=Path, default=Path("runs/pretrain"), help="shards, checkpoint.pt and log.jsonl")
    add("--seconds", type=float, default=900, help="training time of the whole schedule")
    add("--steps", type=int, help="length of the schedule in steps instead of seconds")
    add("--stop-after", type=float, default=math.inf, help="seconds after which this command stops training")
    add("--resume-from", type=Path, help="checkpoint.pt, or a saved model's folder (weights only)")
    add("--scenes", type=int, default=300_000, help="training scenes to draw in all")
    add("--start-with", type=int, default=30_000, help="scenes to wait for before training starts")
    add("--held-out", type=int, default=2000, help="scenes to evaluate on")
    add("--sets", type=int, default=3, help="differently worded chats for a scene")
    add("--length", type=int, default=320, help="tokens in a chat, a multiple of 64")
    add("--batch-size", type=int, default=256)
    add("--peak-rate", type=float, default=1e-3, help="highest learning rate")
    add("--evaluate-every", type=int, default=1000, help="steps")
    add("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes that draw")
    add("--seed", type=int, default=0)
    add("--no-compile", dest="compile", action="store_false", help="do without torch.compile")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
