"""Running a notebook with a profile of our own, in a kernel of our own, and looking at what came out."""

import json
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"


def run_notebook(
    name: str,
    profile: Path,
    run: Path,
    cwd: Path | None = None,
    kernel: str = "python3",
    last: int | None = None,
    then: str = "",
) -> nbformat.NotebookNode:
    """Execute a notebook (or its code cells up to number `last`) in another profile and run folder.

    then: code of a cell that is added behind the others.

    Raises nbclient's CellExecutionError, which shows the cell and its error.
    """
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    parameters = f"PROFILE = {str(profile)!r}\nOUTPUT = {str(run)!r}\nIMAGE_ID = 1008"
    code[0].source = parameters
    notebook.cells = code[: last or len(code)]
    if then:
        notebook.cells.append(nbformat.v4.new_code_cell(then))
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name=kernel,
        resources={"metadata": {"path": str(cwd or ROOT / "notebooks")}},
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute()
    return notebook


def kernel_at(python: Path, folder: Path, env: dict[str, str]) -> str:
    """Make a Python known to Jupyter as a kernel, in a folder of $JUPYTER_PATH; returns the kernel's name."""
    home = folder / "kernels" / "another-python"
    home.mkdir(parents=True)
    start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": start, "display_name": "another Python", "language": "python", "env": env}
    (home / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    assert "another-python" in KernelSpecManager().find_kernel_specs()
    return "another-python"


def outputs(notebook: nbformat.NotebookNode) -> list:
    return [output for cell in notebook.cells for output in cell.outputs]


def text(notebook: nbformat.NotebookNode) -> str:
    """All that was printed."""
    return "".join(output.get("text", "") for output in outputs(notebook))
