"""The whole course as one command: papermill runs the five notebooks, then the report is written.

A notebook is done when its manifest says so, its inputs and outputs are still what they were, and its text
has not changed. So a run that was killed goes on with the notebook that was running.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from visdial_lab.backends import check_device
from visdial_lab.config import Config, config_to_yaml, flat, load_config
from visdial_lab.course import manifest_holds
from visdial_lab.errors import UserError, WorkFailed, differences, shown
from visdial_lab.files import atomic_path, course_root, only_one, portable, read_json, write_text
from visdial_lab.progress import Progress, quiet
from visdial_lab.report import write_report

STEPS = {  # what can be skipped → the notebook's number and the files that later steps need of it
    "exploration": ("01", ()),
    "generation": ("02", ("records.jsonl",)),
    "training": ("03", ("adapter", "history.json")),
    "inference": (
        "04",
        tuple(f"predictions_{name}.json" for name in ("before", "after", "blind", "forgetful")),
    ),
    "evaluation": ("05", ("metrics.json",)),
}
_OURS = re.compile(  # everything that a run folder holds; --no-resume removes these and nothing else
    r"config\.yaml|records\.jsonl|adapter|history\.json|metrics\.json|report\.html|notebooks"
    r"|(answers|predictions)_\w+\.json|scores_\w+\.npz|manifest_\d\d\.json"
)
_SILENCE = 30  # seconds after which a cell that still runs is heard of again


def run_pipeline(
    config: Config,
    output: str | Path | None = None,
    resume: bool = True,
    skip: Sequence[str] = (),
    progress: Progress = quiet,
) -> Path:
    """Run the notebooks that are not done yet into `output`, then write the report; returns its path.

    output: the run folder (default: the config's, in the course folder); it gets config.yaml, the executed
    notebooks, and everything they make. resume=False begins anew. skip: steps to leave out (see STEPS).
    progress(done, total, note) is called at each cell, counted over all notebooks, and every half minute
    while a cell runs; note: the notebook, with what a long cell printed last.
    Raises UserError for a GPU's profile without a GPU, a folder that holds something else, and a skipped step
    whose results are missing, and WorkFailed when a notebook stops (it is kept, with the error inside).
    """
    for step in skip:
        if step not in STEPS:
            raise UserError(f"--skip {shown(step)} is no step; the steps are: {', '.join(STEPS)}")
    run = Path(os.path.abspath(output)) if output else course_root() / config.notebooks.output_dir
    notebooks = {path: len(_texts(path)) + 1 for path in _find_notebooks(skip)}  # papermill adds a cell
    done, total = 0, sum(notebooks.values())
    for source in notebooks:
        if source.name[:2] == STEPS["training"][0] and not (resume and _is_done(run, source)):
            check_device(config)

    def tell(cells: int, note: str) -> None:
        progress(done + cells, total, note)

    _check_folder(run, config, resume)
    with _alone(run):
        if not resume:  # remove what an earlier run left, and nothing that anyone else put there
            _remove([path for path in run.iterdir() if _OURS.fullmatch(path.name)])
        _check_skipped(run, skip)
        write_text(run / "config.yaml", config_to_yaml(config))
        for source, cells in notebooks.items():
            if not _is_done(run, source):
                _execute(config, run, source, tell)
            tell(cells, source.stem)
            done += cells
        if "evaluation" in skip and not (run / "metrics.json").is_file():
            return run
        return write_report(run)


def _find_notebooks(skip: Sequence[str]) -> Iterator[Path]:
    """The notebooks of the steps that are not skipped, in order."""
    folder = course_root() / "notebooks"
    for number in (number for step, (number, _) in STEPS.items() if step not in skip):
        paths = sorted(folder.glob(f"{number}_*.ipynb"))
        if len(paths) != 1:
            names = ", ".join(path.name for path in paths) or "none"
            raise UserError(f"expected one notebook {number}_….ipynb in {folder}, found {names}")
        yield paths[0]


def _texts(notebook: Path) -> list[str]:
    """What is written in each cell, without the cell in which papermill puts the parameters."""
    content = read_json(notebook, "notebook")
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise UserError(f"notebook {notebook}: no cells in it; is it a notebook (format 4)?")
    cells = [c for c in content["cells"] if "injected-parameters" not in c["metadata"].get("tags", ())]
    return ["".join(cell["source"]) for cell in cells]


def _check_folder(run: Path, config: Config, resume: bool) -> None:
    """Make sure that the run folder is new, or ours and of this very configuration."""
    if run.exists() and not run.is_dir():
        raise UserError(f"--output {run} is a file; give the name of a folder")
    names = [path.name for path in run.iterdir() if path.name[0] != "."] if run.is_dir() else []
    strangers = sorted(name for name in names if not _OURS.fullmatch(name))
    if strangers and "config.yaml" not in names:
        raise UserError(f"--output {run} holds other files ({strangers[0]}); name a new folder")
    if resume and "config.yaml" in names:
        before = load_config(run / "config.yaml")
        if changes := differences(flat(before), flat(config)):
            raise UserError(
                f"--output {run} holds a run of another configuration ({changes}); "
                "choose another folder, or begin anew with --no-resume"
            )


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keep a second pipeline out of the folder, and remove what a killed one left under temporary names."""
    with only_one(run / ".lock", f"another pipeline is at work in {run}"):
        _remove([*run.glob(".*.tmp-*"), *run.glob("notebooks/.*.tmp-*")])
        yield


def _remove(paths: list[Path]) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _check_skipped(run: Path, skip: Sequence[str]) -> None:
    """A later step would fail in the middle of a notebook; say it now."""
    last = max((number for step, (number, _) in STEPS.items() if step not in skip), default="")
    for step, (number, leaves) in STEPS.items():
        missing = [name for name in leaves if not (run / name).exists()]
        if step in skip and missing and number < last:
            raise UserError(
                f"--skip {step}: {run} holds no {missing[0]} that a later step needs; do not skip"
            )


def _is_done(run: Path, source: Path) -> bool:
    """Whether this notebook, as it is now, has made what is in the run folder from what is there now."""
    executed = run / "notebooks" / source.name
    return manifest_holds(run, source.stem) and executed.is_file() and _texts(executed) == _texts(source)


def _execute(config: Config, run: Path, source: Path, tell: Callable[[int, str], None]) -> None:
    """Run one notebook into run/notebooks; raises WorkFailed with the cell and its error."""
    import nbformat
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    manifest, target = run / f"manifest_{source.stem[:2]}.json", run / "notebooks" / source.name
    _remove([manifest, target])
    logging.getLogger("papermill").setLevel(logging.ERROR)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else every kernel prints a notice
    problem, untold = "", None
    with atomic_path(target) as temporary:
        try:
            with _watched(source.stem, tell) as watching:
                papermill.execute_notebook(
                    source,
                    temporary,
                    {"PROFILE": portable(run / "config.yaml"), "OUTPUT": portable(run)},
                    kernel_name=config.notebooks.kernel_name,
                    progress_bar=False,
                    cwd=course_root(),
                    execution_timeout=config.notebooks.timeout,
                    extra_arguments=["--log-level=CRITICAL"],  # its notices are not for the reader
                    **watching,
                )
        except NoSuchKernel:
            name = shown(config.notebooks.kernel_name)
            raise UserError(f"notebooks.kernel_name: no Jupyter kernel {name} here; try python3") from None
        except papermill.PapermillExecutionError as error:
            problem = f"In [{error.exec_count}]: {error.ename}: {error.evalue}"
        except (CellControlSignal, DeadKernelError, TimeoutError) as error:
            untold = error
        notebook = nbformat.read(temporary, 4)
        notebook.metadata.papermill.update(input_path=portable(source), output_path=portable(target))
        if untold is not None:  # papermill saved the notebook without a word about it
            begun = [cell for cell in notebook.cells if cell.metadata.papermill.start_time]
            ename, evalue = type(untold).__name__, str(untold)
            begun[-1].outputs.append(nbformat.v4.new_output("error", ename=ename, evalue=evalue))
            problem = f"cell {len(begun)}: {ename}: {evalue}"
        nbformat.write(notebook, temporary)
    if not problem and not manifest.is_file():
        problem = "last cell: it ended without writing its manifest"
    if problem:
        problem = " ".join(problem.split())[:400]
        raise WorkFailed(f"notebook {source.stem}, {problem}; it is kept in {portable(target)}")


@contextlib.contextmanager
def _watched(notebook: str, tell: Callable[[int, str], None]) -> Iterator[dict[str, Any]]:
    """Tell of each cell that begins, and again every half minute, with the last line that it has printed.

    Gives the options that papermill needs for it.
    """
    running, printed, over = 0, io.StringIO(), threading.Event()

    def on_cell_start(cell: dict, cell_index: int) -> None:
        nonlocal running
        running = cell_index
        printed.seek(0)
        printed.truncate()
        tell(running, notebook)

    def remind() -> None:
        while not over.wait(_SILENCE):
            last = printed.getvalue().strip().splitlines()[-1:]
            tell(running, " ".join(": ".join([notebook, *last]).split())[:100])

    thread = threading.Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield {"on_cell_start": on_cell_start, "stdout_file": printed}
    finally:
        over.set()
        thread.join()
