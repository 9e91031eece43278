"""The command line: each command is a few lines over a library call.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 the work
failed, 2 the input or the call is wrong, 130 interrupted.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from visdial_lab import __version__, cli_grading, cli_models
from visdial_lab.cli_generate import ConfigOption, generate
from visdial_lab.errors import UserError, WorkFailed, counted
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
cli_models.add_commands(app)

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
        say(f"wrote {evalai[1]}: {counted(count, 'entry', 'entries')}")
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
