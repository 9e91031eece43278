"""QLoRA: the base model stays frozen in 4 bits; small LoRA matrices beside it learn to hold a dialog."""

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from visdial_lab import checkpoints
from visdial_lab.backends import check_settings, choose_backend, compile_layers, look_once, trainable_model
from visdial_lab.chat import collator, takes_images
from visdial_lab.config import Config, flat
from visdial_lab.contrast import Candidates, add_contrast
from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.files import atomic_folder, portable, read_json, resolve, sha256, write_json
from visdial_lab.generation import read_records, records
from visdial_lab.metrics import sparse_values
from visdial_lab.models import load_processor, pick_device, silence, training_base
from visdial_lab.negatives import WrongAnswers
from visdial_lab.ranking import iter_scores
from visdial_lab.reminding import iter_recalled_scores
from visdial_lab.training_data import by_length, check_style, fitting
from visdial_lab.visdial import VisDial

OnLog = Callable[[int, int, float, float, float], None]


def finetune(
    config: Config,
    rows: str | Path | list[dict],
    output_dir: str | Path,
    val: VisDial | None = None,
    on_log: OnLog | None = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Teach the base model the answers in the records `rows`; writes an adapter folder, whole or not at all.

    rows: a .jsonl file or a list of records. val: dialogs on which every checkpoint is measured (loss, and
    MRR where they have options); the best one becomes the adapter. on_log(step, total, loss, learning_rate,
    seconds_left) is called every `logging_steps`.
    Checkpoints gather in OUTPUT_DIR.training; the same call goes on from the last one, after a kill too, to
    the same losses and weights. What another run has left there is refused, or, with `replace`, replaced.
    Several processes (`accelerate launch`) share every batch. With `negatives` the loss has a second part.
    Returns {"history": [{"step", "loss", "learning_rate" … or "eval_loss", "eval_mrr" …}], "adapter": Path,
    "seconds": float, "finished_before": bool, "resumed_at": the step "seconds" counts from}; of a loss of two
    parts the history has "answer_loss" and "contrastive_loss" too. The folder holds a PEFT adapter, the
    processor, history.json and lab.json (config, data hashes, versions, seed, seconds, loss). Raises
    UserError for settings this machine cannot honour, bad records, and a folder that is not ours; WorkFailed
    when the GPU's memory does not suffice.
    """
    from accelerate import PartialState

    backend, output = choose_backend(config), Path(os.path.realpath(output_dir))
    check_settings(config, backend)
    found, source = _read(rows)
    check_style(found, config.generation.style)
    silence()
    processes = PartialState(cpu=pick_device() == "cpu")
    made_from = _made_from(config, source, val, backend) | {"processes": processes.num_processes}
    with processes.main_process_first():
        if checkpoints.finished(output, made_from, replace):
            checkpoints.remove(output, made_from)  # a kill just before this would have left them
            history, notes = (read_json(output / name) for name in ("history.json", "lab.json"))
            done = {"history": history, "adapter": Path(output_dir), "seconds": notes["seconds"]}
            return done | {"finished_before": True, "resumed_at": 0}
        checkpoints.check(output, made_from, replace)
    processor = load_processor(training_base(config))
    kept, lengths = fitting(processor, found, config.training, "records")
    val_rows: list[dict] = []
    if val is not None:
        val_rows = list(records(val, style=config.generation.style))
        val_rows = fitting(processor, val_rows, config.training, "val")[0]
    ranked = val if _has_options(val, config) else None
    wrong = None
    if config.training.negatives:
        wrong = WrongAnswers(kept, config.training.negatives, config.training.seed)
    with processes.main_process_first():
        work = checkpoints.begin(output, made_from, replace)
    started = time.monotonic()
    model = trainable_model(config, backend, processor)
    if backend == "peft" and takes_images(processor) and not config.peft.finetune_vision_layers:
        look_once(model.get_base_model(), pictures=len(kept) + len(val_rows))
    if backend == "peft" and config.training.torch_compile:
        compile_layers(model)
    trainer = _trainer(config, model, processor, (kept, lengths), val_rows, work, wrong)
    if wrong is not None:
        add_contrast(trainer, wrong, config.training.contrastive_weight)
    _watch(trainer, processor, ranked, on_log, config)
    last = checkpoints.last(work)
    with _explained(config, max(lengths)):
        trainer.train(resume_from_checkpoint=last)
    history = [row for row in trainer.state.log_history if {"loss", "eval_loss", "eval_mrr"} & row.keys()]
    seconds = time.monotonic() - started
    notes = {
        "config": config.model_dump(),
        "made_from": made_from,
        "base_model": made_from["model.name"],
        "base_model_sha256": made_from["base model"],
        "records": source | {"trained": len(kept)},
        "val": val and {"path": portable(val.path), "dialogs": len(val)},
        "backend": backend,
        "versions": _versions(backend),
        "device": pick_device(),
        "seed": config.training.seed,
        "steps": trainer.state.global_step,
        "best": trainer.state.best_model_checkpoint and trainer.state.best_global_step,
        "seconds": round(seconds, 1),
        "final_loss": next((row["loss"] for row in reversed(history) if "loss" in row), None),
    }
    if processes.is_main_process:
        with atomic_folder(output) as folder:
            _save(trainer.accelerator.unwrap_model(trainer.model), processor, folder, notes["base_model"])
            write_json(folder / "history.json", history)
            write_json(folder / "lab.json", notes)
        checkpoints.remove(output, made_from)
    processes.wait_for_everyone()
    done = {"history": history, "adapter": Path(output_dir), "seconds": seconds}
    return done | {"finished_before": False, "resumed_at": int(last.rpartition("-")[2]) if last else 0}


def _read(rows: str | Path | list[dict]) -> tuple[list[dict], dict[str, Any]]:
    """The records, and where they came from, for lab.json."""
    if isinstance(rows, (str, Path)):
        path = resolve(rows)
        found = read_records(path)
        return found, {"path": portable(path), "sha256": sha256(path), "count": len(found)}
    if not rows:
        raise UserError("there are no records to train on; generate some first")
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False)
    return rows, {"path": None, "sha256": hashlib.sha256(text.encode()).hexdigest(), "count": len(rows)}


def _has_options(val: VisDial | None, config: Config) -> bool:
    """Whether these dialogs can be ranked; UserError when they cannot, but the best MRR is wanted."""
    if val is not None and all(turn.options for dialog in val for turn in dialog.rounds):
        return True
    if val is not None and config.training.save_steps and config.training.metric_for_best_model == "mrr":
        where = f"rounds of {portable(val.path)} have no options to rank"
        raise UserError(f"training.metric_for_best_model mrr: {where}; take loss, or other val dialogs")
    return False


def _made_from(config: Config, source: dict, val: VisDial | None, backend: str) -> dict[str, Any]:
    """Everything that losses and weights depend on, flat, so that a difference can be named."""
    elsewhere = {"output_dir", "backend", "report_to", "dataloader_num_workers"}
    folder = resolve(config.model.name)
    there = folder.is_dir()
    made_from = {}
    for name, value in flat(config).items():
        section, _, key = name.partition(".")
        if section in ("model", "peft", "training") and key not in elsewhere:
            made_from[name] = value
    made_from |= {
        "model.name": portable(folder) if there else config.model.name,  # adapters travel
        "base model": sha256(folder) if there else None,
        "generation.style": config.generation.style,
        "records": source["sha256"],
        "val": val and f"{sha256(val.path)[:16]}, {len(val)} dialogs",
        "backend": backend,
    }
    return made_from


def _trainer(
    config: Config,
    model: Any,
    processor: Any,
    train: tuple[list, list],
    val_rows: list,
    work: Path,
    wrong: WrongAnswers | None,
) -> Any:
    """TRL's SFTTrainer around our collator; what it writes, checkpoints, goes to `work`.

    train: records and their lengths. wrong: what else stands in the batches of training.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    training = config.training
    watched = bool(val_rows and training.save_steps)
    ours = {  # keys that are not TRL's, or not in its words
        *("output_dir", "max_seq_length", "backend", "on_too_long", "num_eval_dialogs", "torch_compile"),
        *("negatives", "contrastive_weight", "group_by_length", "early_stopping_patience", "save_steps"),
        "metric_for_best_model",
    }
    saving: dict[str, Any] = {"save_strategy": "no"}
    if training.save_steps:
        saving = {"save_strategy": "steps", "save_steps": training.save_steps, "save_total_limit": 2}
    if watched:
        metric = training.metric_for_best_model
        saving |= {"eval_strategy": "steps", "eval_steps": training.save_steps}
        saving |= {"load_best_model_at_end": True, "metric_for_best_model": f"eval_{metric}"}
        saving |= {"greater_is_better": metric == "mrr"}
    settings = SFTConfig(
        **training.model_dump(exclude=ours),
        **saving,
        output_dir=str(work),
        per_device_eval_batch_size=training.per_device_train_batch_size,
        gradient_checkpointing=config.model.use_gradient_checkpointing,
        max_length=None,  # too long was dealt with before, it is never a silent cut
        disable_tqdm=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=pick_device() == "cuda",
        use_cpu=pick_device() == "cpu",
        ddp_find_unused_parameters=False,
    )
    both, cut = [*train[0], *val_rows], len(train[0])
    # Records stay Python objects: the trainer shuffles their numbers, the collator opens the pictures.
    trainer = SFTTrainer(
        model=model,
        args=settings,
        data_collator=functools.partial(
            _collate, collator(processor), both, cut, wrong and Candidates(processor, wrong)
        ),
        train_dataset=Dataset.from_dict({"record": range(cut)}),
        eval_dataset=Dataset.from_dict({"record": range(cut, len(both))}) if watched else None,
        processing_class=processor,
    )
    trainer.remove_callback(PrinterCallback)
    if training.group_by_length:
        step = training.per_device_train_batch_size * trainer.args.world_size
        sampler = by_length(train[1], step * training.gradient_accumulation_steps, training.seed)
        trainer._get_train_sampler = lambda *_: sampler
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # TRL makes them bfloat16, too coarse for small steps and slow on CPUs
            parameter.data = parameter.data.float()
    return trainer


def _collate(
    collate: Callable, rows: list[dict], cut: int, candidates: Candidates | None, items: list[dict]
) -> dict[str, Any]:
    """A batch; of training, which has the records before `cut`, with candidates if there are any."""
    numbers = [item["record"] for item in items]
    batch = collate([rows[number] for number in numbers])
    return candidates(batch, numbers) if candidates and numbers[0] < cut else batch


def _watch(trainer: Any, processor: Any, val: VisDial | None, on_log: OnLog | None, config: Config) -> None:
    """Callbacks: progress, sealing checkpoints, validating the last step, MRR beside the loss, stopping.

    val: dialogs to rank; None when the loss alone is watched.
    """
    from transformers import EarlyStoppingCallback, TrainerCallback

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.begun, self.first = time.monotonic(), state.global_step

        def on_log(self, args, state, control, logs=None, **kwargs):
            if on_log and logs and "loss" in logs and state.is_world_process_zero:
                pace = (time.monotonic() - self.begun) / max(1, state.global_step - self.first)
                left = pace * (state.max_steps - state.global_step)
                on_log(state.global_step, state.max_steps, logs["loss"], logs["learning_rate"], left)

        def on_step_end(self, args, state, control, **kwargs):
            if trainer.eval_dataset is not None and state.global_step >= state.max_steps:
                control.should_evaluate = True

        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            if val is not None:
                metrics["eval_mrr"] = _mrr(trainer, processor, val, config)
                trainer.log({"eval_mrr": metrics["eval_mrr"]})

        def on_save(self, args, state, control, **kwargs):
            if state.is_world_process_zero:
                checkpoints.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    trainer.add_callback(Watch())
    if config.training.early_stopping_patience and trainer.eval_dataset is not None:
        trainer.add_callback(EarlyStoppingCallback(config.training.early_stopping_patience))


def _mrr(trainer: Any, processor: Any, val: VisDial, config: Config) -> float:
    """MRR of the model as it is now, in the style it learns; several processes share the dialogs."""
    from accelerate.utils import gather_object

    def refuse(number: int, error: UserError) -> None:
        raise error

    model, args = trainer.accelerator.unwrap_model(trainer.model), trainer.args
    own = list(val)[args.process_index :: args.world_size]
    rank_by = iter_recalled_scores if config.generation.style == "reminder" else iter_scores
    found = rank_by(model, processor, own, on_bad=refuse, memory_gb=config.evaluation.memory_gb)
    by_dialog = [(own[number], rows) for number, rows, *_ in found]
    reciprocal = [
        value
        for dialog, rows in by_dialog
        for value in sparse_values(np.stack(rows), [turn.gt_index for turn in dialog.rounds])["mrr"].tolist()
    ]
    return float(np.mean(gather_object(reciprocal)))


@contextlib.contextmanager
def _explained(config: Config, longest: int) -> Iterator[None]:
    """Running out of memory becomes a WorkFailed that says, with numbers, what to lower."""
    import torch

    try:
        yield
    except RuntimeError as error:
        in_library = "ALLOC_FAILED" in str(error)  # cuBLAS and cuDNN say it in their own words
        if not in_library and not isinstance(error, torch.OutOfMemoryError):
            raise
        training, gib = config.training, 2**30
        size, steps = training.per_device_train_batch_size, training.gradient_accumulation_steps
        free, total = (count / gib for count in torch.cuda.mem_get_info())
        others = total - free - torch.cuda.memory_reserved() / gib
        # up to 1 GiB is what CUDA itself takes
        shared = f" (other programs on this GPU hold {others:.1f})" if others > 1 else ""
        advice = []
        if size > 1:
            advice.append(
                f"per_device_train_batch_size {size} → {size // 2} with gradient_accumulation_steps "
                f"{steps} → {2 * steps} (the same training, slower)"
            )
        if not config.model.use_gradient_checkpointing:
            advice.append("model.use_gradient_checkpointing true")
        if training.negatives > 1:
            advice.append(f"training.negatives {training.negatives} → {training.negatives // 2}")
        if not config.model.load_in_4bit:
            advice.append("model.load_in_4bit true")
        advice.append(f"max_seq_length below {longest} (the longest dialog) with on_too_long drop_rounds")
        raise WorkFailed(
            f"out of GPU memory: {torch.cuda.max_memory_allocated() / gib:.1f} GiB of {total:.1f} in use"
            f"{shared} with {size} dialogs of up to {longest} tokens a step. Change {'; or '.join(advice)}"
        ) from None


def _save(model: Any, processor: Any, folder: Path, base: str) -> None:
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's card repeats this machine's path to the base


def _versions(backend: str) -> dict[str, str]:
    """What the result depends on besides the data."""
    import platform
    from importlib.metadata import version

    packages = ["torch", "transformers", "peft", "trl", "bitsandbytes", "datasets"]
    packages += ["unsloth", "unsloth_zoo"] if backend == "unsloth" else []
    return {"python": platform.python_version()} | {package: version(package) for package in packages}
