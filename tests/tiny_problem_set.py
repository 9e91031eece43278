"""ps0: a problem set of a few lines, for the tests of release and grading."""

import json
from pathlib import Path

import nbformat

_CELLS = [
    ("ps0-title", "markdown", {"locked": True}, "# Problem set 0"),
    (
        "ps0-setup",
        "code",
        {"locked": True},
        "from visdial_lab.exercises import check\nimport numpy as np\n\n\ndef twice(x):\n    return 2 * x",
    ),
    ("ps0-mean-text", "markdown", {"locked": True}, "### ps0.mean · the mean\ndifficulty ★☆☆ · 4 points"),
    (
        "ps0-mean-code",
        "code",
        {"solution": True},
        'def mean(values):\n    """The mean of a list of numbers, 0.0 for an empty one."""\n'
        "    ### BEGIN SOLUTION\n    if not values:\n        return 0.0\n"
        "    return float(sum(values) / len(values))\n    ### END SOLUTION",
    ),
    ("ps0-mean", "code", {"grade": True, "locked": True, "points": 4}, 'check("ps0.mean")'),
    ("ps0-rows-code", "code", {"solution": True},
     "def rows(matrix, n):\n    ### BEGIN SOLUTION\n    if n < 1:\n"
     '        raise ValueError("n must be at least 1")\n'
     "    total = np.asarray(matrix)[:n].sum(axis=0)\n    return total\n    ### END SOLUTION"),
    ("ps0-rows", "code", {"grade": True, "locked": True, "points": 3}, 'check("ps0.rows")'),
    ("ps0-show", "code", {"locked": True}, "print(mean([1, 2]), rows(np.eye(3), 2))"),
    ("ps0-open", "markdown", {"grade": True, "solution": True, "points": 5}, "Because the mean is the middle."),
]  # fmt: skip

# ruff: noqa: E501 (tables of cells and tests)

_HIDDEN = """
from visdial_lab.exercises import Test, build, call


def _means(rng):
    for size in (1, 3, 10):
        yield call("mean", rng.normal(size=size).tolist())


def _rows(rng):
    for n in (1, 2):
        yield call("rows", rng.normal(size=(4, 3)), n)


TESTS = [
    Test("ps0.mean", "small lists", "sum and count", 1, lambda rng: [call("mean", [1, 2, 3])], visible=True),
    Test("ps0.mean", "random lists of secret kinds", "sum and count", 2, _means),
    Test("ps0.mean", "an empty list of secrets", "the edge of a definition", 1, lambda rng: [call("mean", [])]),
    Test("ps0.rows", "two rows", "axes", 1, lambda rng: [call("rows", build("twice", [[1.0, 2.0]]), 2)], visible=True),
    Test("ps0.rows", "random matrices", "axes", 1, _rows),
    Test("ps0.rows", "n of zero", "refusing nonsense", 1, lambda rng: [call("rows", [[1.0]], 0)]),
]
"""

_MUTANTS = """
from visdial_lab.exercises import Mutant

MUTANTS = [
    Mutant("fails on empty", "ps0.mean", "def mean(values):\\n    return sum(values) / len(values)", 6),
    Mutant("median", "ps0.mean", "def mean(values):\\n    return float(np.median(values or [0.0]))", 5),
    Mutant("no check", "ps0.rows", "def rows(matrix, n):\\n    return np.asarray(matrix)[:n].sum(axis=0)", 6),
    Mutant("other axis", "ps0.rows", "def rows(matrix, n):\\n    return np.asarray(matrix)[:n].sum(axis=1)", 4),
    Mutant("int", "ps0.mean", "def mean(values):\\n    return int(sum(values) / len(values)) if values else 0", 3),
]
"""


def build(course: Path) -> Path:
    """Write course/solutions/ps0 and return course/solutions."""
    folder = course / "solutions" / "ps0"
    folder.mkdir(parents=True)
    notebook = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python"}})
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for grade_id, kind, marks, source in _CELLS:
        cell = getattr(nbformat.v4, f"new_{kind}_cell")(source, id=grade_id)
        defaults = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3}
        cell.metadata["nbgrader"] = defaults | marks | {"grade_id": grade_id}
        notebook.cells.append(cell)
    nbformat.write(notebook, folder / "ps0.ipynb")
    (folder / "hidden.py").write_text(_HIDDEN)
    (folder / "mutants.py").write_text(_MUTANTS)
    return folder.parent


def submission(folder: Path, answers: dict[str, str] | None = None, **more: str) -> dict:
    """A student's notebook, made from the released one: {grade_id: source} replaced, cells added at the end."""
    notebook = json.loads((folder / "ps0.ipynb").read_text())
    for cell in notebook["cells"]:
        grade_id = cell["metadata"]["nbgrader"]["grade_id"]
        cell["source"] = (answers or {}).get(grade_id, cell["source"])
    for source in more.values():
        notebook["cells"].append(
            {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        )
    return notebook
