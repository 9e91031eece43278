"""Execute the five notebooks in place, in order: `python tests/execute_notebooks.py`, or some: `… 01 05`.

Committed notebooks are executed ones, because nbval compares nothing in a cell that never ran. The results of
an earlier run are removed first, so that what is committed shows the training and the ranking as they happen.
"""

import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from visdial_lab.config import load_config
from visdial_lab.files import course_root, write_text

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def execute(path: Path, timeout: int) -> nbformat.NotebookNode:
    """Run a notebook from its first cell to its last; returns it with its outputs, stripped."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name=notebook.metadata.kernelspec.name,
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute()
    return strip(notebook)


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what tells about this machine or breaks viewers: widget state, papermill's notes, versions."""
    for name in ("widgets", "papermill"):
        notebook.metadata.pop(name, None)
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        for name in ("execution", "papermill"):
            cell.metadata.pop(name, None)
    return notebook


def forget(run: Path) -> None:
    """Remove the artefacts that make notebooks 03 and 04 skip their work."""
    for path in [run / "history.json", *run.glob("scores_*.npz")]:
        path.unlink(missing_ok=True)
    if (run / "adapter" / "lab.json").is_file():
        shutil.rmtree(run / "adapter")


def main(numbers: list[str]) -> int:
    config = load_config("scenes")
    if not numbers:
        forget(course_root() / config.notebooks.output_dir)
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        if numbers and path.name[:2] not in numbers:
            continue
        started = time.monotonic()
        try:
            notebook = execute(path, config.notebooks.timeout)
        except CellExecutionError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return 1
        write_text(path, nbformat.writes(notebook) + "\n")
        print(f"{path.name}: {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
