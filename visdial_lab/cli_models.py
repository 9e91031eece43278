"""The commands about models: teach one, ask it, have it rank, merge it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from visdial_lab.cli_generate import ConfigOption, StyleOption, load_config_with
from visdial_lab.errors import UserError
from visdial_lab.progress import progress, say

ModelOption = Annotated[str, Option(help="Folder of a base model or an adapter, or a hub name.")]
AnswerStyleOption = Annotated[
    str | None, Option(help="plain, or reminder: recall, then answer. Default: as the model was trained.")
]


def add_commands(app: typer.Typer) -> None:
    """Give the command line its commands about models."""
    for command in (finetune, infer, rank, export):
        app.command()(command)


def finetune(
    config: ConfigOption = "scenes",
    model_name: Annotated[str | None, Option(help="Base model: folder or hub name.")] = None,
    dataset_path: Annotated[Path | None, Option(help="Records (.jsonl); default: from all dialogs.")] = None,
    output_dir: Annotated[Path | None, Option(help="Adapter folder to write.")] = None,
    batch_size: Annotated[int | None, Option(help="Dialogs a step on each device.")] = None,
    grad_accum: Annotated[int | None, Option(help="Steps added up before the weights move.")] = None,
    lr: Annotated[float | None, Option(help="Peak learning rate.")] = None,
    epochs: Annotated[float | None, Option(help="Passes over the records.")] = None,
    max_steps: Annotated[int | None, Option(help="Stop after so many steps.")] = None,
    replace: Annotated[bool, Option("--replace", help="Begin anew where another run has left work.")] = False,
    style: StyleOption = None,
) -> None:
    """Fine-tune the base model with QLoRA; writes an adapter folder. Stopped, it goes on when given again.

    On several GPUs: accelerate launch --num_processes N -m visdial_lab finetune …
    """
    from visdial_lab.backends import check_device
    from visdial_lab.files import resolve
    from visdial_lab.finetune import finetune as train
    from visdial_lab.generation import records
    from visdial_lab.visdial import load_dialogs

    options = {
        "model.name": model_name,
        "training.per_device_train_batch_size": batch_size,
        "training.gradient_accumulation_steps": grad_accum,
        "training.learning_rate": lr,
        "training.num_train_epochs": epochs,
        "training.max_steps": max_steps,
        "generation.style": style,
    }
    given = load_config_with(config, options)
    check_device(given)
    rows = dataset_path or list(records(load_dialogs(given), **given.generation.model_dump()))
    folder = output_dir or resolve(given.training.output_dir)
    watched = given.training.num_eval_dialogs
    val = load_dialogs(given, given.data.val_split)[:watched] if watched else None
    with progress("fine-tuning") as update:
        result = train(
            given,
            rows,
            folder,
            val,
            on_log=lambda step, total, loss, *_: update(step, total, f"loss {loss:.3f}"),
            replace=replace,
        )
    when = "was finished before, in" if result["finished_before"] else "after"
    since = f" from step {result['resumed_at']} on" if result["resumed_at"] else ""
    print(f"adapter in {result['adapter']} {when} {result['seconds']:.0f} s{since}")


def infer(
    model_path: ModelOption,
    image_path: Annotated[Path | None, Option(help="The picture to talk about.")] = None,
    conversation: Annotated[
        str | None, Option(help=r'"Q: …\nA: …\nQ: …": the last line is the question to answer.')
    ] = None,
    caption: Annotated[str | None, Option(help="What is known about the picture beforehand.")] = None,
    batch_file: Annotated[
        Path | None,
        Option(help='JSON list of {"image": path, "conversation": "Q: …"}, each with a "caption" if wanted.'),
    ] = None,
    output_file: Annotated[
        Path | None, Option(help='For --batch-file: the same list, each entry with its "answer".')
    ] = None,
    max_new_tokens: Annotated[int, Option(min=1, help="Longest answer in tokens.")] = 32,
    temperature: Annotated[float, Option(min=0, help="0 = always the likeliest token.")] = 0.0,
    top_p: Annotated[float, Option(help="Sample from the likeliest tokens of this probability.")] = 1.0,
    stream: Annotated[bool, Option("--stream", help="Print the answer while it is made.")] = False,
    batch_size: Annotated[int, Option(min=1, help="Entries answered at once.")] = 16,
    resume: Annotated[bool, Option(help="Go on where a --batch-file was stopped, or begin anew.")] = True,
    skip_bad: Annotated[bool, Option("--skip-bad", help="List bad entries and do the others.")] = False,
    style: AnswerStyleOption = None,
) -> None:
    """Answer a question about a picture, or a whole file of them."""
    if (batch_file is None) == (conversation is None):
        raise UserError("give either --conversation (with --image-path) or --batch-file (with --output-file)")
    if (batch_file is None) != (output_file is None):
        raise UserError("--batch-file and --output-file go together")
    from visdial_lab.chat import record_image, said_fields
    from visdial_lab.inference import answer, answer_file, check_image
    from visdial_lab.models import answer_style, load_model, sees

    decoding = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
    if batch_file is not None:
        with progress("answering") as update:
            entries, skipped = answer_file(
                model_path, batch_file, output_file, batch_size, resume, skip_bad, update, style, **decoding
            )
        say(f"wrote {output_file}")
        _list_skipped(skipped, entries, "entries")
        return
    check_image(image_path, image_path is None and sees(model_path))
    if image_path is not None and not sees(model_path):
        say("note: this model reads text only and does not look at the picture")
    model, processor = load_model(model_path)
    picture = record_image({"image": image_path, "image_id": 0, "source": "given"})
    style = answer_style(model_path, style)
    text = answer(model, processor, picture, conversation, caption, style, stream=stream, **decoding)
    if not stream:
        said = said_fields(text)
        if "reminder" in said:
            say(f"reminder: {said['reminder']}")
        print(said["answer"])


def rank(
    model_path: ModelOption,
    dialogs: Annotated[Path, Option(help="Dialogs file in VisDial's format.")],
    output_file: Annotated[Path, Option(help="Predictions to write (EvalAI's format).")],
    image_dir: Annotated[Path | None, Option(help="Folder of the images; default: beside.")] = None,
    split: Annotated[str | None, Option(help="If the file does not say: train, val, test.")] = None,
    limit: Annotated[int | None, Option(min=1, help="Only the first so many dialogs.")] = None,
    blank_image: Annotated[bool, Option("--blank-image", help="Score a gray picture instead.")] = False,
    length_normalised: Annotated[
        bool, Option("--length-normalised", help="Mean, not sum of tokens.")
    ] = False,
    load_in_4bit: Annotated[bool | None, Option(help="Default: as the adapter was trained.")] = None,
    memory_gb: Annotated[float | None, Option(min=0.1, help="GiB beyond the weights; default: all.")] = None,
    resume: Annotated[bool, Option(help="Go on where a run was stopped, or begin anew.")] = True,
    skip_bad: Annotated[bool, Option("--skip-bad", help="List bad dialogs and do the others.")] = False,
    style: AnswerStyleOption = None,
) -> None:
    """Rank the 100 candidate answers of every round by the probability the model gives them.

    On several GPUs: accelerate launch --num_processes N -m visdial_lab rank …
    """
    from visdial_lab.journal import sources
    from visdial_lab.models import answer_style, load_model, pick_device, pick_dtype
    from visdial_lab.predictions import check_pictures, join_processes, rank_dialogs
    from visdial_lab.ranking import iter_scores
    from visdial_lab.reminding import iter_recalled_scores
    from visdial_lab.visdial import VisDial

    bad: dict[int, str] = {}
    source = VisDial.load(dialogs, split, image_root=image_dir, on_bad=bad.__setitem__ if skip_bad else None)
    unreadable = [bad[n] for n in sorted(bad) if limit is None or n < limit]
    chosen = list(source[: limit and limit - len(unreadable)])
    number, count, device = join_processes()
    device = device or pick_device()
    scoring = {"blank_image": blank_image, "length_normalised": length_normalised}
    settings = scoring | {"split": source.split, "limit": limit, "load_in_4bit": load_in_4bit}
    style = settings["style"] = answer_style(model_path, style)
    settings |= {"image_dir": image_dir and str(image_dir.absolute()), "dtype": str(pick_dtype(device))}
    made_from = sources(model_path, **settings)

    def score(left: list, on_bad: Any) -> Iterator:
        check_pictures(model_path, chosen, image_dir, blank_image)
        model, processor = load_model(model_path, load_in_4bit, device)
        rank_by = iter_recalled_scores if style == "reminder" else iter_scores
        return rank_by(model, processor, left, **scoring, memory_gb=memory_gb, on_bad=on_bad)

    share = f", process 1 of {count}" if count > 1 else ""
    with progress(f"ranking{share}") as update:
        skipped = rank_dialogs(
            chosen, output_file, made_from, score, number, count, resume, skip_bad, unreadable, update
        )
    if number == 0:
        say(f"wrote {output_file}")
        _list_skipped(skipped, len(chosen) + len(unreadable), "dialogs")


def export(
    model_path: Annotated[Path, Option(help="Folder of an adapter.")],
    output_dir: Annotated[Path, Option(help="Model folder to write.")],
    merged: Annotated[
        bool, Option("--merged", help="One model, the adapter in its weights; there is no other form.")
    ] = True,
) -> None:
    """Merge an adapter into its base model: safetensors, processor, model card, Modelfile for Ollama."""
    from visdial_lab.export import export as write

    missing = write(model_path, output_dir)
    print(f"merged model in {output_dir}")
    for reason in missing:
        say(f"note: not for Ollama: {reason}")


def _list_skipped(reasons: list[str], total: int, what: str) -> None:
    """Say what --skip-bad has left out; then the command ends with exit code 1."""
    for reason in reasons:
        say(f"skipped: {reason}")
    if reasons:
        say(f"{len(reasons)} of {total} {what} skipped; once mended, the same command adds them")
        raise typer.Exit(1)
