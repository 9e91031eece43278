"""The command line: each command is a few lines over a library call.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 the work
failed, 2 the input or the call is wrong, 130 interrupted.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from visdial_lab import __version__, cli_grading, cli_models
from visdial_lab.cli_generate import ConfigOption, StyleOption, generate, load_config_with
from visdial_lab.cli_models import AnswerStyleOption, ModelOption
from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.progress import progress, say

app = typer.Typer(
    name="visdial-lab",
    help="Teach a vision-language model to talk about pictures: data, QLoRA, answers, ranking, metrics.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: half the start-up time of the framed one
    context_settings={
        "token_normalize_func": lambda name: name.replace("_", "-"),  # --batch_size is --batch-size
        "help_option_names": ["-h", "--help"],
    },
)
app.add_typer(generate, name="generate")

_IMAGES = (
    "all: the official zips (the default; 20 GB for train). needed: only the photos of the dialogs asked "
    "for, one by one from COCO (the default with --limit or --licence free). none."
)
_LICENCE = (
    "any, or free: only photos that COCO's own lists call free to use: attribution, share-alike, no known "
    "restrictions, US government. The lists (241 MB for train) are Flickr's word, which COCO did not check."
)


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit; what went wrong is told in one or two lines, or in full with --debug."""
    words = sys.argv[1:] if argv is None else argv
    debug = "--debug" in words  # accepted anywhere in the line
    try:
        code = app([word for word in words if word != "--debug"], "visdial-lab", standalone_mode=False) or 0
        if code == 130:  # typer has caught a Ctrl-C
            raise KeyboardInterrupt
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (Exception, KeyboardInterrupt) as error:
        code, message = _verdict(error)
        if debug:
            traceback.print_exc()
        elif code == 1 and not isinstance(error, WorkFailed):
            message += " (--debug shows where)"
        say(message)
    sys.exit(code)


def _verdict(error: BaseException) -> tuple[int, str]:
    """The exit code for an error, and what to say about it."""
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted; what was finished before is kept"
    if isinstance(error, (UserError, WorkFailed)):
        return 2 if isinstance(error, UserError) else 1, f"error: {error}"
    if hasattr(error, "format_message"):  # the call itself: an unknown option, a missing value …
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "visdial-lab"
        return 2, f"error: {' '.join(error.format_message().split())}\nsee {where} --help"
    return 1, f"error: {type(error).__name__}: {' '.join(str(error).split())[:500]}"


def _list_skipped(reasons: list[str], total: int, what: str) -> None:
    """Say what --skip-bad has left out; then the command ends with exit code 1."""
    for reason in reasons:
        say(f"skipped: {reason}")
    if reasons:
        say(f"{len(reasons)} of {total} {what} skipped; once mended, the same command adds them")
        raise typer.Exit(1)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"visdial-lab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass  # both options have done their work by now


@app.command()
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
    print(f"adapter in {result['adapter']} {when} {result['seconds']:.0f} s")


@app.command()
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


@app.command()
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


app.command()(cli_models.export)


@app.command()
def evaluate(
    prediction_file: Annotated[Path | None, Option(help="Predictions, as `rank` writes them.")] = None,
    groundtruth_file: Annotated[Path | None, Option(help="Dialogs file with the human answers.")] = None,
    dense_file: Annotated[Path | None, Option(help="Dense annotations, for NDCG.")] = None,
    output_file: Annotated[Path | None, Option(help="metrics.json to write.")] = None,
    html: Annotated[Path | None, Option(help="Page to write, with plots and dialogs.")] = None,
    compare: Annotated[
        list[Path] | None, Option(metavar="<path>", help="Another run's predictions (repeatable).")
    ] = None,
    train_file: Annotated[Path | None, Option(help="Training dialogs, for the prior baselines.")] = None,
    evalai: Annotated[
        tuple[str, Path] | None, Option(metavar="SPLIT OUT", help="Write EvalAI's file: val or test, path.")
    ] = None,
    check: Annotated[Path | None, Option(help="A submission made elsewhere: what is wrong?")] = None,
    image_dir: Annotated[Path | None, Option(help="Folder of the images; default: beside.")] = None,
    allow_partial: Annotated[bool, Option("--allow-partial", help="Rounds may be missing.")] = False,
    limit: Annotated[int | None, Option(min=1, help="Only the first so many dialogs.")] = None,
    verbose: Annotated[bool, Option("--verbose", help="Also by round, type, dialog.")] = False,
) -> None:
    """Compute MRR, recall, mean rank, NDCG with 95 % intervals over dialogs; check and write submissions."""
    from visdial_lab import evaluation, submission
    from visdial_lab.files import portable, read_json, sha256, write_json
    from visdial_lab.visdial import VisDial

    dialogs = None
    if groundtruth_file is not None:
        every = VisDial.load(groundtruth_file, dense=dense_file, image_root=image_dir)
        dialogs = every[:limit]
    if check is not None:
        problems = submission.check_submission(read_json(check, "submission"), dialogs, allow_partial)
        print("\n".join(problems) or "nothing wrong was found")
        if problems:
            raise UserError(f"{check} is not what the server expects: mend what is listed above")
        return
    if prediction_file is None or dialogs is None:
        raise UserError("give --prediction-file and --groundtruth-file, or a submission to --check")

    def predicted(file: Path) -> Any:
        """Without those beyond --limit."""
        return evaluation.without(every[len(dialogs) :], read_json(file, "predictions file"))

    entries = predicted(prediction_file)
    if evalai is not None:
        count = submission.write_submission(evalai[1], entries, dialogs, evalai[0], allow_partial)
        say(f"wrote {evalai[1]}: {count:,} entries")
        if dialogs.split == "test":
            return  # its answers are a secret of the server
    runs = {prediction_file.name: entries}
    for file in compare or ():
        runs[str(file) if file.name in runs else file.name] = predicted(file)
    train = train_file and VisDial.load(train_file)
    result = evaluation.evaluate_run(dialogs, runs, train, evaluation.read_truth(dialogs), allow_partial)
    evaluation.print_tables(result, verbose)
    if output_file is not None:
        files = [prediction_file, groundtruth_file, dense_file, train_file, *(compare or ())]
        sources = {portable(file): sha256(file) for file in files if file is not None}
        write_json(output_file, result | {"computed_from": {"files": sources, "visdial_lab": __version__}})
        say(f"wrote {output_file}")
    if html is not None:
        evaluation.write_page(html, prediction_file.name, dialogs, entries, result)
        say(f"wrote {html}")


@app.command()
def pipeline(
    config: ConfigOption = "scenes",
    output: Annotated[Path | None, Option(help="Run folder; default: the config's.")] = None,
    resume: Annotated[bool, Option("--resume/--no-resume", help="Go on where it stopped, or anew.")] = True,
    skip: Annotated[
        list[str] | None,
        Option(
            help="Leave a step out and use what is there: exploration, generation, training, inference "
            "or evaluation. May be given several times."
        ),
    ] = None,
) -> None:
    """Run the five notebooks one after the other and write metrics.json and report.html."""
    from visdial_lab.config import load_config
    from visdial_lab.pipeline import run_pipeline

    with progress("pipeline") as update:
        report = run_pipeline(load_config(config), output, resume, skip or (), update)
    print(f"report: {report}")


@app.command()
def download(
    split: Annotated[list[str] | None, Option(help="train, val (default), test or all; repeatable.")] = None,
    root: Annotated[Path, Option(help="The data folder to fill.")] = Path("data/visdial"),
    images: Annotated[str | None, Option(help=_IMAGES)] = None,
    limit: Annotated[int | None, Option(min=1, help="Photos of the first so many dialogs only.")] = None,
    licence: Annotated[str, Option(help=_LICENCE)] = "any",
    base_url: Annotated[str | None, Option(help="A mirror with the same file names.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Only say what would be fetched.")] = False,
) -> None:
    """Fetch VisDial v1.0: dialogs, dense annotations, photos. Given again, it goes on where it stopped."""
    from visdial_lab.download import download as fetch
    from visdial_lab.download import plan

    job = plan(split or ["val"], root, images, limit, licence, base_url)
    print("\n".join(job.lines()))
    if not dry_run and (job.files or job.photos):
        with progress("download (MB)") as update:
            fetch(job, update)


@app.command()
def doctor(
    config: Annotated[str | None, Option(help="A YAML file of your own to check as well.")] = None,
) -> None:
    """Check what is installed, which profile this machine can run, and what to do about each gap."""
    from visdial_lab.config import load_config
    from visdial_lab.doctor import check_machine

    checks = check_machine(config and load_config(config))
    marks = {True: "[ok]  ", False: "[fail]", None: "[note]"}
    for name, good, found, advice in checks:
        print(f"{marks[good]} {name}: {found}")
        if advice:
            print(f"       → {advice}")
    if any(good is False for _, good, _, _ in checks):
        raise typer.Exit(1)


cli_grading.add_commands(app)
