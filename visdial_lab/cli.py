"""The command line: each command is a few lines over a library call.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 the work
failed, 2 the input or the call is wrong, 130 interrupted.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from visdial_lab import __version__
from visdial_lab.errors import UserError
from visdial_lab.progress import progress, say

if TYPE_CHECKING:
    from visdial_lab.config import Config
    from visdial_lab.visdial import VisDial

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
generate = typer.Typer(help="Make training records from dialogs.", no_args_is_help=True)
app.add_typer(generate, name="generate")

ConfigOption = Annotated[str, Option(help="A profile's name, or the path of a YAML file.")]
_IMAGES = (
    "all: the official zips (the default; 20 GB for train). needed: only the photos of the dialogs asked "
)
_IMAGES += "for, one by one from COCO (the default with --limit or --licence free). none."
_LICENCE = (
    "any, or free: only photos that COCO's own lists call attribution, share-alike, no known restrictions "
)
_LICENCE += (
    "or US government work. Fetches the lists (241 MB for train), leaves out what is not in them, and "
)
_LICENCE += "believes them: COCO took them from Flickr and did not check."
ModelOption = Annotated[str, Option(help="Folder of a base model or an adapter, or a hub name.")]


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
        if debug:
            import traceback

            traceback.print_exc()
        code, message = _verdict(error)
        say(message if debug or code != 1 else f"{message} (--debug shows where)")
    sys.exit(code)


def _verdict(error: BaseException) -> tuple[int, str]:
    """The exit code for an error, and what to say about it."""
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted; what was finished before is kept"
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if hasattr(error, "format_message"):  # the call itself: an unknown option, a missing value …
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "visdial-lab"
        return 2, f"error: {' '.join(error.format_message().split())}\nsee {where} --help"
    return 1, f"error: {type(error).__name__}: {' '.join(str(error).split())[:500]}"


@contextlib.contextmanager
def _result_file(path: Path) -> Iterator[Callable[[Any], None]]:
    """Give a function that writes the result; a place that cannot be written is found out before the work."""
    from visdial_lab.files import atomic_path

    with atomic_path(path) as temporary:
        temporary.touch()
        yield lambda obj: temporary.write_text(json.dumps(obj, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"wrote {path}")


def _load_config(name: str, options: dict[str, Any]) -> "Config":
    """The profile, with those options laid over it that were given."""
    from visdial_lab.config import load_config

    return load_config(name, {key: value for key, value in options.items() if value is not None})


def _load_dialogs(config: "Config", split: str | None = None) -> "VisDial":
    """The dialogs to train on, or so many of another split."""
    from visdial_lab.visdial import VisDial

    return VisDial.load(config.data.root, split or config.data.train_split)[: config.data.num_train_dialogs]


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


@generate.command()
def base(
    output_path: Annotated[Path, Option(help="The .jsonl file to write.")],
    config: ConfigOption = "scenes",
    split: Annotated[str | None, Option(help="Split to read; default: the config's.")] = None,
    sample_count: Annotated[int | None, Option(help="So many dialogs; default: the config's.")] = None,
) -> None:
    """Turn human dialogs into training records (TRL's conversational format), one a line."""
    from visdial_lab.generation import write_records

    given = _load_config(config, {"generation.sample_count": sample_count})
    written = write_records(output_path, _load_dialogs(given, split), **given.generation.model_dump())
    print(f"{written} records in {output_path}")


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
) -> None:
    """Fine-tune the base model with QLoRA; writes an adapter folder."""
    from visdial_lab.files import resolve
    from visdial_lab.finetune import finetune as train
    from visdial_lab.generation import records

    options = {
        "model.name": model_name,
        "training.per_device_train_batch_size": batch_size,
        "training.gradient_accumulation_steps": grad_accum,
        "training.learning_rate": lr,
        "training.num_train_epochs": epochs,
        "training.max_steps": max_steps,
    }
    given = _load_config(config, options)
    rows = dataset_path or list(records(_load_dialogs(given), **given.generation.model_dump()))
    folder = output_dir or resolve(given.training.output_dir)
    with progress("fine-tuning") as update:
        result = train(
            given, rows, folder, on_log=lambda step, total, loss, *_: update(step, total, f"loss {loss:.3f}")
        )
    print(f"adapter in {result['adapter']} after {result['seconds']:.0f} s")


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
) -> None:
    """Answer a question about a picture, or a whole file of them."""
    if (batch_file is None) == (conversation is None):
        raise UserError("give either --conversation (with --image-path) or --batch-file (with --output-file)")
    if (batch_file is None) != (output_file is None):
        raise UserError("--batch-file and --output-file go together")
    from visdial_lab.chat import record_image, takes_images
    from visdial_lab.files import resolve
    from visdial_lab.inference import answer, read_batch
    from visdial_lab.models import load_model

    entries = [{"image": image_path and str(image_path), "conversation": conversation, "caption": caption}]
    if batch_file is not None:
        entries = read_batch(batch_file)
    for entry in entries:
        if entry.get("image") is not None and not resolve(entry["image"]).is_file():
            raise UserError(f"image not found: {entry['image']}")
    model, processor = load_model(model_path)
    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}

    def reply(number: int, entry: dict, **options: Any) -> str:
        if entry.get("image") is None and takes_images(processor):
            raise UserError(f"{model_path} looks at pictures: give --image-path (or image in the batch file)")
        picture = record_image({"image": entry.get("image"), "image_id": number, "source": "batch"})
        return answer(
            model, processor, picture, entry["conversation"], entry.get("caption"), **sampling, **options
        )

    if output_file is None:
        show = (lambda piece: print(piece, end="", flush=True)) if stream else None
        text = reply(1, entries[0], on_text=show)
        print("" if stream else text)
        return
    with _result_file(output_file) as write, progress("answering") as update:
        for number, entry in enumerate(entries):
            entry["answer"] = reply(number, entry)
            update(number + 1, len(entries))
        write(entries)


@app.command()
def rank(
    model_path: ModelOption,
    dialogs: Annotated[Path, Option(help="Dialogs file in VisDial's format.")],
    output_file: Annotated[Path, Option(help="Predictions to write (EvalAI's format).")],
    image_dir: Annotated[Path | None, Option(help="Folder of the images; default: beside.")] = None,
    split: Annotated[str | None, Option(help="If the file does not say: train, val, test.")] = None,
    blank_image: Annotated[bool, Option("--blank-image", help="Score a gray picture instead.")] = False,
    batch_size: Annotated[int, Option(min=1, help="Dialogs read at once.")] = 8,
    limit: Annotated[int | None, Option(min=1, help="Only the first so many dialogs.")] = None,
) -> None:
    """Rank the 100 candidate answers of every round by the probability the model gives them."""
    from visdial_lab.models import load_model
    from visdial_lab.ranking import predictions, score_dialogs
    from visdial_lab.visdial import VisDial

    chosen = list(VisDial.load(dialogs, split, image_root=image_dir)[:limit])
    with _result_file(output_file) as write:
        model, processor = load_model(model_path)
        with progress("ranking") as update:
            scores = score_dialogs(model, processor, chosen, blank_image, batch_size, progress=update)
        write(predictions(chosen, scores))


@app.command()
def evaluate(
    prediction_file: Annotated[Path, Option(help="Predictions, as `rank` writes them.")],
    groundtruth_file: Annotated[Path, Option(help="Dialogs file with the human answers.")],
    dense_file: Annotated[Path | None, Option(help="Dense annotations, for NDCG.")] = None,
    output_file: Annotated[Path | None, Option(help="metrics.json to write.")] = None,
    limit: Annotated[int | None, Option(min=1, help="Only the first so many dialogs.")] = None,
    verbose: Annotated[bool, Option("--verbose", help="Also by round of the dialog.")] = False,
) -> None:
    """Compute MRR, recall, mean rank and NDCG, with 95 % intervals over dialogs."""
    from visdial_lab.files import portable, read_json, sha256, write_json
    from visdial_lab.metrics import evaluate as measure
    from visdial_lab.visdial import VisDial

    truth = VisDial.load(groundtruth_file, dense=dense_file)[:limit]
    entries = read_json(prediction_file, "predictions file")
    result = measure(truth, entries)
    title = f"{prediction_file.name}: {result['n_rounds']} rounds of {len(truth)} dialogs"
    rows = []
    for key, value in result["metrics"].items():
        low, high = result["intervals"][key]
        rows.append((key, f"{value:.4f}", f"{low:.4f} to {high:.4f}"))
    _print_table(title, ("metric", "value", "95 % interval"), rows)
    if verbose:
        _print_table(
            "by round", ("round", "rounds", "mrr", "r@1", "r@5", "r@10", "mean"), _by_round(truth, entries)
        )
    if output_file is not None:
        files = [file for file in (prediction_file, groundtruth_file, dense_file) if file is not None]
        sources = {portable(file): sha256(file) for file in files}
        write_json(output_file, result | {"computed_from": {"files": sources, "visdial_lab": __version__}})
        say(f"wrote {output_file}")


def _by_round(dialogs: Any, entries: list) -> list[tuple[str, ...]]:
    """Metrics of the first rounds of all dialogs, of the second ones, and so on, as text."""
    from visdial_lab.metrics import sparse_metrics, validate_predictions

    ranks = validate_predictions(entries, dialogs)
    rounds = [turn for dialog in dialogs for turn in dialog.rounds if turn.options is not None]
    rows = []
    for round_id in sorted({turn.round_id for turn in rounds}):
        own = [n for n, turn in enumerate(rounds) if turn.round_id == round_id]
        values = sparse_metrics(-ranks[own], [rounds[n].gt_index for n in own])
        rows.append((str(round_id), str(len(own)), *(f"{value:.4f}" for value in values.values())))
    return rows


def _print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(title, table)


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
    from visdial_lab.pipeline import NotebookFailed, run_pipeline

    try:
        with progress("pipeline") as update:
            report = run_pipeline(load_config(config), output, resume, skip or (), update)
    except NotebookFailed as error:  # it says itself where to look: no traceback of ours would tell more
        say(f"error: {error}")
        raise typer.Exit(1) from None
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
    from visdial_lab.download import DownloadFailed, plan
    from visdial_lab.download import download as fetch

    job = plan(split or ["val"], root, images, limit, licence, base_url)
    print("\n".join(job.lines()))
    try:
        if not dry_run and (job.files or job.photos):
            with progress("download (MB)") as update:
                fetch(job, update)
    except DownloadFailed as error:  # it says itself what is missing: no traceback of ours would tell more
        say(f"error: {error}\nthe same command goes on from here")
        raise typer.Exit(1) from None


@app.command()
def doctor() -> None:
    """Check what is installed, which profile this machine can run, and what to do about each gap."""
    from visdial_lab.doctor import check_machine

    checks = check_machine()
    marks = {True: "[ok]  ", False: "[fail]", None: "[note]"}
    for name, good, found, advice in checks:
        print(f"{marks[good]} {name}: {found}")
        if advice:
            print(f"       → {advice}")
    if any(good is False for _, good, _, _ in checks):
        raise typer.Exit(1)
