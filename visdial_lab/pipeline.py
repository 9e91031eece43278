"""The whole course as one command: papermill runs the five notebooks, then the report is written.

A notebook is done when its manifest says so, its inputs and outputs are still what they were, and its text
has not changed. So a run that was killed goes on with the notebook that was running.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from visdial_lab.config import Config, config_to_yaml, load_config
from visdial_lab.errors import UserError, shown
from visdial_lab.files import (
    atomic_path,
    course_root,
    portable,
    read_json,
    resolve,
    sha256,
    write_json,
    write_text,
)

Progress = Callable[[int, int, str], None]

STEPS = {  # what can be skipped → the notebook's number and the files that later steps need of it
    "exploration": ("01", ()),
    "generation": ("02", ("records.jsonl",)),
    "training": ("03", ("adapter", "history.json")),
    "inference": ("04", ("predictions_before.json", "predictions_after.json", "predictions_blind.json")),
    "evaluation": ("05", ("metrics.json",)),
}
_OURS = re.compile(  # everything that a run folder holds; --no-resume removes these and nothing else
    r"config\.yaml|pipeline\.json|records\.jsonl|adapter|history\.json|metrics\.json|report\.html|notebooks"
    r"|(answers|predictions)_\w+\.json|scores_\w+\.npz|manifest_\d\d\.json"
)


class NotebookFailed(Exception):
    """A notebook stopped with an error: the work failed, and the message says in which cell and why."""


def run_pipeline(
    config: Config,
    output: str | Path | None = None,
    resume: bool = True,
    skip: Sequence[str] = (),
    progress: Progress | None = None,
) -> Path:
    """Run the notebooks that are not done yet into `output`, then write the report; returns its path.

    output: the run folder (default: the config's, in the course folder); it gets config.yaml, the executed
    notebooks, and everything they make. resume=False begins anew. skip: steps to leave out (see STEPS).
    progress(done, total, notebook) is called after each cell, counted over all notebooks.
    Raises UserError when the folder holds something else, or a skipped step's results are missing, and
    NotebookFailed when a notebook stops (it is kept, with the error inside).
    """
    unknown = [step for step in skip if step not in STEPS]
    if unknown:
        raise UserError(f"--skip {shown(unknown[0])} is no step; the steps are: {', '.join(STEPS)}")
    run = Path(os.path.abspath(output)) if output else course_root() / config.notebooks.output_dir
    notebooks = _find_notebooks(skip)
    _check_folder(run, config, resume)
    with _alone(run):
        if not resume:
            _empty(run)
        _check_skipped(run, skip)
        write_text(run / "config.yaml", config_to_yaml(config))
        done, total = 0, sum(cells for _, cells in notebooks.values())
        for source, cells in notebooks.values():
            on_cell = functools.partial(_count, progress, done, total, source.stem)
            on_cell(0)
            if not _is_done(run, source):
                _execute(config, run, source, on_cell)
            on_cell(cells)
            done += cells
        if not (run / "metrics.json").is_file():
            if "evaluation" in skip:
                return run
            raise NotebookFailed(f"the notebooks ran, but left no metrics.json in {portable(run)}")
        from visdial_lab.report import write_report

        return write_report(run)


def _count(progress: Progress | None, before: int, total: int, notebook: str, finished: int) -> None:
    if progress is not None:
        progress(before + finished, total, notebook)


def _find_notebooks(skip: Sequence[str]) -> dict[str, tuple[Path, int]]:
    """Number → (notebook, cells in it) for the steps that are not skipped."""
    folder = course_root() / "notebooks"
    found = {}
    for step, (number, _) in STEPS.items():
        if step in skip:
            continue
        paths = sorted(folder.glob(f"{number}_*.ipynb"))
        if len(paths) != 1:
            names = ", ".join(path.name for path in paths) or "none"
            raise UserError(f"expected one notebook {number}_….ipynb in {folder}, found {names}")
        found[number] = paths[0], len(_cells(paths[0])) + 1  # papermill adds one with the parameters
    return found


def _cells(notebook: Path) -> list[dict]:
    content = read_json(notebook, "notebook")
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise UserError(f"notebook {notebook}: no cells in it; is it a notebook (format 4)?")
    return content["cells"]


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
        different = _differences(before.model_dump(), config.model_dump())
        if different:
            raise UserError(
                f"--output {run} holds a run of another configuration ({different[0]}); "
                "choose another folder, or begin anew with --no-resume"
            )


def _empty(run: Path) -> None:
    """Remove what an earlier run left, and nothing that anyone else put there."""
    for path in list(run.iterdir()):
        if _OURS.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _differences(before: dict, now: dict) -> list[str]:
    """Every key whose value differs, as "training.max_steps was -1, is 20"."""
    found = []
    for key, value in now.items():
        if isinstance(value, dict):
            found += [f"{key}.{line}" for line in _differences(before[key], value)]
        elif value != before[key]:
            found.append(f"{key} was {shown(before[key])}, is {shown(value)}")
    return found


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keep a second pipeline out of the folder (the lock goes with the process, however it ends), and remove
    what a killed one left under temporary names."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = (run / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write into the run folder {run}: {error.strerror}") from None
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            pass
        except OSError:
            raise UserError(f"another pipeline is at work in {run}; wait for it or choose a folder") from None
        for left in [*run.glob(".*.tmp-*"), *run.glob("notebooks/.*.tmp-*")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        yield


def _check_skipped(run: Path, skip: Sequence[str]) -> None:
    """A later step would fail in the middle of a notebook; say it now."""
    for place, (step, (_, leaves)) in enumerate(STEPS.items()):
        missing = [name for name in leaves if not (run / name).exists()]
        if step in skip and missing and any(later not in skip for later in list(STEPS)[place + 1 :]):
            raise UserError(
                f"--skip {step}: {run} holds no {missing[0]} that a later step needs; do not skip"
            )


def _is_done(run: Path, source: Path) -> bool:
    """Whether this notebook, as it is now, has made what is in the run folder from what is there now."""
    manifest_path = run / f"manifest_{source.stem[:2]}.json"
    log = _log(run).get(source.stem, {})
    if not manifest_path.is_file() or log.get("source_sha256") != _source_hash(source):
        return False
    manifest = read_json(manifest_path, "manifest")
    files = manifest["read"] | manifest["wrote"]
    return (
        (run / "notebooks" / source.name).is_file()
        and manifest["config_sha256"] == sha256(run / "config.yaml")
        and all(_hash(run, name) == expected for name, expected in files.items())
    )


def _hash(run: Path, name: str) -> str | None:
    path = run / name if (run / name).exists() else resolve(name)
    return sha256(path) if path.exists() else None


def _log(run: Path) -> dict[str, dict]:
    """pipeline.json: {notebook: {"source_sha256", "seconds"}} of the notebooks that ran to their end."""
    path = run / "pipeline.json"
    return read_json(path, "pipeline log") if path.is_file() else {}


def _source_hash(notebook: Path) -> str:
    """A fingerprint of what is written in the cells; outputs do not count."""
    texts = ["".join(cell["source"]) for cell in _cells(notebook)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _execute(config: Config, run: Path, source: Path, on_cell: Callable[[int], Any]) -> None:
    """Run one notebook into run/notebooks; raises NotebookFailed with the cell and its error."""
    log = _log(run)
    log.pop(source.stem, None)
    write_json(run / "pipeline.json", log)
    (run / f"manifest_{source.stem[:2]}.json").unlink(missing_ok=True)
    target = run / "notebooks" / source.name
    parameters = {"PROFILE": portable(run / "config.yaml"), "OUTPUT": portable(run)}
    started, problem = time.monotonic(), None
    with atomic_path(target) as temporary:
        try:
            _papermill(config, source, temporary, parameters, on_cell)
        except _Stopped as stopped:
            problem = stopped
        _tidy(temporary, source, target)
    if problem is not None:
        raise NotebookFailed(f"notebook {source.stem}, {problem}; it is kept in {portable(target)}")
    if not (run / f"manifest_{source.stem[:2]}.json").is_file():
        raise NotebookFailed(f"notebook {source.stem} ended without writing its manifest")
    log[source.stem] = {
        "source_sha256": _source_hash(source),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(run / "pipeline.json", log)


class _Stopped(Exception):
    """In which cell a notebook stopped, and why."""


def _papermill(
    config: Config, source: Path, target: Path, parameters: dict[str, str], on_cell: Callable[[int], Any]
) -> None:
    """One notebook through papermill. Raises _Stopped; `target` then holds what was executed."""
    import logging

    import nbformat
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellControlSignal, DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines

    finished = 0

    class Counting(NBClientEngine):
        """papermill's own engine, telling us of each cell that is done."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):
            complete = nb_man.cell_complete

            def completed(cell, **place):
                nonlocal finished
                complete(cell, **place)
                finished += 1
                on_cell(finished)

            nb_man.cell_complete = completed
            super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("visdial-lab", Counting)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else every kernel prints a notice
    try:
        papermill.execute_notebook(
            source,
            target,
            parameters,
            engine_name="visdial-lab",
            kernel_name=config.notebooks.kernel_name,
            progress_bar=False,
            cwd=course_root(),
            execution_timeout=config.notebooks.timeout,
            extra_arguments=["--log-level=CRITICAL"],  # its notices are not for the reader
        )
    except NoSuchKernel:
        name = config.notebooks.kernel_name
        raise UserError(f"notebooks.kernel_name: no Jupyter kernel {shown(name)} here; try python3") from None
    except papermill.PapermillExecutionError as error:
        raise _Stopped(_one_line(f"In [{error.exec_count}]", error.ename, error.evalue)) from None
    except (CellControlSignal, DeadKernelError, TimeoutError) as error:
        # papermill saved the notebook without a word about this: write it into the cell that was running
        notebook = nbformat.read(target, 4)
        running = notebook.cells[finished - 1] if finished else None
        if running is not None and running.cell_type == "code":
            ename, evalue = type(error).__name__, str(error)
            running.outputs.append(nbformat.v4.new_output("error", ename=ename, evalue=evalue))
            nbformat.write(notebook, target)
        raise _Stopped(_one_line(f"cell {finished}", type(error).__name__, str(error))) from None


def _one_line(where: str, ename: str, evalue: str) -> str:
    text = " ".join(evalue.split())
    return f"{where}: {ename}: {text[:400]}"


def _tidy(notebook: Path, source: Path, target: Path) -> None:
    """Take this machine's paths out of the notes that papermill leaves in the notebook."""
    if notebook.is_file():
        content = read_json(notebook, "executed notebook")
        notes = content["metadata"].get("papermill", {})
        notes.update(input_path=portable(source), output_path=portable(target))
        notebook.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
