"""QLoRA: the base model stays frozen in 4 bits; small LoRA matrices beside it learn to hold a dialog."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visdial_lab.chat import collator, takes_images, token_count
from visdial_lab.config import Config
from visdial_lab.errors import UserError
from visdial_lab.files import atomic_folder, portable, resolve, sha256, write_json
from visdial_lab.generation import read_records
from visdial_lab.models import load_base_for_training, pick_device

_REMEMBERED = 2**28  # numbers of image features to keep: 1 GB in float32
OnLog = Callable[[int, int, float, float, float], None]


def finetune(
    config: Config,
    records: str | Path | list[dict],
    output_dir: str | Path,
    val: str | Path | list[dict] | None = None,
    on_log: OnLog | None = None,
) -> dict[str, Any]:
    """Teach the base model the answers in `records`; writes an adapter folder, whole or not at all.

    records, val: a .jsonl file or a list of records; with `val` the loss on it is measured after each epoch.
    on_log(step, total, loss, learning_rate, seconds_left) is called every `logging_steps`.
    Returns {"history": [{"step", "loss", "learning_rate", …}], "adapter": Path, "seconds": float}.
    The folder holds a PEFT adapter, the processor and lab.json (config, data hashes, versions, seed,
    seconds, loss). Raises UserError for settings this machine cannot honour, bad records, and a folder that
    is not an adapter of ours.
    """
    _check_settings(config)
    rows, source = _read(records)
    val_rows, val_source = _read(val) if val is not None else ([], None)
    base, base_sha256 = _base(config)
    started = time.monotonic()
    with atomic_folder(output_dir) as folder:
        model, processor = load_base_for_training(config)
        for name, part in (("records", rows), ("val", val_rows)):
            _check_records(processor, part, config.training.max_seq_length, name)
        if takes_images(processor) and not config.peft.finetune_vision_layers:
            _look_once(model, pictures=len(rows) + len(val_rows))
        trainer = _trainer(config, model, processor, rows, val_rows, folder, on_log)
        trainer.train()
        history = [row for row in trainer.state.log_history if "loss" in row or "eval_loss" in row]
        seconds = time.monotonic() - started
        _save(trainer.model, processor, folder, base)
        notes = {
            "config": config.model_dump(),
            "base_model": base,
            "base_model_sha256": base_sha256,
            "records": source,
            "val": val_source,
            "versions": _versions(),
            "device": pick_device(),
            "seed": config.training.seed,
            "steps": trainer.state.global_step,
            "seconds": round(seconds, 1),
            "final_loss": next((row["loss"] for row in reversed(history) if "loss" in row), None),
        }
        write_json(folder / "lab.json", notes)
    return {"history": history, "adapter": Path(output_dir), "seconds": seconds}


def lora_targets(config: Config, sees: bool) -> str:
    """The modules that get LoRA matrices, as a pattern over their full names.

    Gemma-3 with a vision tower: model.language_model.layers.N.self_attn.q_proj …,
    model.vision_tower….layers.N.mlp.fc1 …; text-only: model.layers.N.self_attn.q_proj …. Raises UserError
    when nothing would be trained.
    """
    peft = config.peft
    towers, kinds = [], []
    if peft.finetune_language_layers:
        towers.append(r"model\.(?:language_model\.)?layers")
    if peft.finetune_vision_layers and sees:
        towers.append(r"model\.vision_tower\..*layers")
    if peft.finetune_attention_modules:
        kinds.append(r"self_attn\.(?:q_proj|k_proj|v_proj|o_proj|out_proj)")
    if peft.finetune_mlp_modules:
        kinds.append(r"mlp\.(?:gate_proj|up_proj|down_proj|fc1|fc2)")
    if not towers or not kinds:
        raise UserError(
            "peft: nothing to train; this model needs finetune_language_layers and attention or mlp modules"
        )
    return rf"(?:{'|'.join(towers)})\.\d+\.(?:{'|'.join(kinds)})"


def _check_settings(config: Config) -> None:
    """Every setting is honoured or refused with its reason, before anything is loaded."""
    import torch

    training = config.training
    on_gpu = pick_device() == "cuda"
    if training.backend == "unsloth":
        raise UserError('training.backend is "unsloth", which is not available here; use "peft" (or "auto")')
    if not on_gpu and (training.fp16 or training.bf16):
        raise UserError("training.fp16 and training.bf16 need a GPU; on the CPU set both to false (float32)")
    if on_gpu and training.bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError("training.bf16: this GPU has no bfloat16; set fp16 to true and bf16 to false")
    if not on_gpu and training.optim in ("paged_adamw_8bit", "adamw_torch_fused"):
        raise UserError(f"training.optim {training.optim} needs a GPU; use adamw_torch or adamw_8bit")
    if config.peft.bias == "all" and config.model.load_in_4bit:
        raise UserError('peft.bias "all" cannot be merged into 4-bit layers; use "none" or "lora_only"')


def _read(records: str | Path | list[dict]) -> tuple[list[dict], dict[str, Any]]:
    """The records, and where they came from, for lab.json."""
    if isinstance(records, (str, Path)):
        path = resolve(records)
        rows = read_records(path)
        return rows, {"path": portable(path), "sha256": sha256(path), "count": len(rows)}
    if not records:
        raise UserError("there are no records to train on; generate some first")
    text = json.dumps(records, sort_keys=True, ensure_ascii=False)
    return records, {"path": None, "sha256": hashlib.sha256(text.encode()).hexdigest(), "count": len(records)}


def _check_records(processor: Any, rows: list[dict], limit: int, name: str) -> None:
    """Find the record that would fail before the training starts, not an hour into it."""
    for row in rows:
        if takes_images(processor):
            if row["image"] is None:
                raise UserError(f"{name}: {row['id']} has no image, but this model is trained on pictures")
            if not resolve(row["image"]).is_file():
                raise UserError(f"{name}: {row['id']}: image not found: {row['image']}")
        length = token_count(processor, row["messages"])
        if length > limit:
            raise UserError(
                f"{name}: {row['id']} has {length} tokens, training.max_seq_length is {limit}; "
                "raise it or use fewer rounds"
            )


def _trainer(
    config: Config, model: Any, processor: Any, rows: list, val_rows: list, folder: Path, on_log: OnLog | None
) -> Any:
    """TRL's SFTTrainer around our collator; nothing of it is written to disk."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    training = config.training
    set_seed(training.seed)  # the LoRA matrices are drawn now
    collate = collator(processor)
    both = [*rows, *val_rows]
    settings = SFTConfig(
        **training.model_dump(exclude={"output_dir", "max_seq_length", "backend"}),
        output_dir=str(folder),
        per_device_eval_batch_size=training.per_device_train_batch_size,
        gradient_checkpointing=config.model.use_gradient_checkpointing,
        max_length=None,  # too long is an error (see _check_records), never a silent cut
        eval_strategy="epoch" if val_rows else "no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=pick_device() == "cuda",
    )
    # Records stay Python objects: the trainer shuffles their numbers, the collator opens the pictures.
    trainer = SFTTrainer(
        model=model,
        args=settings,
        data_collator=lambda items: collate([both[item["record"]] for item in items]),
        train_dataset=Dataset.from_dict({"record": range(len(rows))}),
        eval_dataset=Dataset.from_dict({"record": range(len(rows), len(both))}) if val_rows else None,
        processing_class=processor,
        peft_config=LoraConfig(
            **config.peft.model_dump(include={"r", "lora_alpha", "lora_dropout", "bias", "use_rslora"}),
            target_modules=lora_targets(config, takes_images(processor)),
            task_type="CAUSAL_LM",
        ),
        callbacks=[_progress(on_log)] if on_log else None,
    )
    trainer.remove_callback(PrinterCallback)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # TRL makes them bfloat16, too coarse for small steps and slow on CPUs
            parameter.data = parameter.data.float()
    return trainer


def _look_once(model: Any, pictures: int) -> None:
    """A frozen vision tower says the same about a picture in every epoch: keep it, if memory allows."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    if pictures * model.config.mm_tokens_per_image * model.config.get_text_config().hidden_size > _REMEMBERED:
        return
    look, remembered = model.model.get_image_features, {}

    def look_once(pixel_values: Any, **options: Any) -> Any:
        keys = [hashlib.sha256(picture.float().cpu().numpy()).digest() for picture in pixel_values]
        fresh = [place for place, key in enumerate(keys) if key not in remembered]
        if fresh:
            with torch.no_grad():
                features = look(pixel_values[fresh], **options).pooler_output  # [fresh, tokens, width]
            remembered.update(zip([keys[place] for place in fresh], features, strict=True))
        return BaseModelOutputWithPooling(pooler_output=torch.stack([remembered[key] for key in keys]))

    model.model.get_image_features = look_once


def _progress(on_log: OnLog) -> Any:
    """A trainer callback that passes loss, learning rate and the seconds left on to `on_log`."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.begun = time.monotonic()

        def on_log(self, args, state, control, logs=None, **kwargs):
            if logs and "loss" in logs:
                pace = (time.monotonic() - self.begun) / max(1, state.global_step)
                left = pace * (state.max_steps - state.global_step)
                on_log(state.global_step, state.max_steps, logs["loss"], logs["learning_rate"], left)

    return Progress()


def _base(config: Config) -> tuple[str, str | None]:
    """The base model's folder seen from the course folder (adapters travel) and its hash, or its hub name."""
    folder = resolve(config.model.name)
    return (portable(folder), sha256(folder)) if folder.is_dir() else (config.model.name, None)


def _save(model: Any, processor: Any, folder: Path, base: str) -> None:
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's card repeats this machine's path to the base


def _versions() -> dict[str, str]:
    """What the result depends on besides the data."""
    import platform
    from importlib.metadata import version

    packages = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}
