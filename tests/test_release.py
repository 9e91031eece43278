"""The problem sets: what is released fits its source and tells nothing, and scores are as declared."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
import tiny_problem_set

from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.grading import problem_sets
from visdial_lab.grading.problem_sets import load, overlay, stub
from visdial_lab.grading.release import leaks, out_of_sync, prove, release
from visdial_lab.grading.sandbox import choose
from visdial_lab.grading.submissions import cells_of

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.parent.name for path in (ROOT / "solutions").glob("*/hidden.py"))


@pytest.fixture(scope="module")
def solutions(tmp_path_factory):
    return tiny_problem_set.build(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def released(solutions):
    return release("ps0", solutions.parent / "assignments", solutions)


def test_there_are_five_problem_sets():
    assert NAMES == ["ps1", "ps2", "ps3", "ps4", "ps5"]


@pytest.mark.parametrize("name", NAMES)
def test_a_problem_set_is_whole(name):
    """Points declared and tested, five planted wrong answers or more, one open question, words to read."""
    given = load(name)
    assert len(given.mutants) >= 5 and len(given.open) == 1
    assert len({mutant.name for mutant in given.mutants}) == len(given.mutants)
    for exercise in given.exercises:
        own = [test for test in given.tests if test.exercise == exercise]
        assert any(test.visible for test in own) and any(not test.visible for test in own), exercise
        assert all(test.goal for test in own)
    text = "\n".join(cell.source for cell in given.cells if cell.type == "markdown")
    for word in ("difficulty ★", "minutes", "points", "<details>"):
        assert text.count(word) >= len(given.exercises) - 1, word


@pytest.mark.parametrize("name", NAMES)
def test_nothing_leaks(name):
    assert leaks(load(name), ROOT / "assignments" / name) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_assignments_are_in_sync(name):
    assert out_of_sync(name, ROOT / "assignments") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_as_declared(name):
    """The solution scores everything, untouched stubs nothing, a planted mistake what it declares."""
    assert prove(load(name), choose(unsafe=True)) == []


def test_the_released_notebook(released, solutions):
    notebook = nbformat.read(released / "ps0.ipynb", as_version=4)
    nbformat.validate(notebook)
    text = (released / "ps0.ipynb").read_text()
    assert "SOLUTION" not in text and "return 0.0" not in text and "the mean is the middle" not in text
    checks = json.loads((released / "checks.json").read_text())["exercises"]
    assert checks["ps0.mean"]["hidden"] == 2 and len(checks["ps0.mean"]["tests"]) == 1
    assert "secret" not in json.dumps(checks)
    assert sorted(path.name for path in released.iterdir()) == ["checks.json", "ps0.ipynb"]
    assert leaks(load("ps0", solutions), released) == []


def test_leaks_are_found(released, solutions, tmp_path):
    folder, given = tmp_path / "ps0", load("ps0", solutions)
    shutil.copytree(released, folder)
    shutil.copy(solutions / "ps0" / "hidden.py", folder)
    assert leaks(given, folder) == ["hidden.py should not be there"]
    (folder / "hidden.py").unlink()
    text = (folder / "ps0.ipynb").read_text()
    secret = "total = np.asarray(matrix)[:n].sum(axis=0)"
    (folder / "ps0.ipynb").write_text(text.replace("# Problem set 0", secret))
    assert "is from the solution" in "; ".join(leaks(given, folder))
    (folder / "ps0.ipynb").write_text(text.replace('"outputs": []', '"outputs": [{"x": 1}]'))
    assert "the notebook has outputs" in leaks(given, folder)
    (folder / "ps0.ipynb").write_text(text)
    checks = (folder / "checks.json").read_text()
    (folder / "checks.json").write_text(checks.replace("small lists", "n of zero"))
    assert leaks(given, folder) == ["hidden test “n of zero” is named"]


def test_being_out_of_sync_is_found(released, solutions, tmp_path):
    shutil.copytree(released, tmp_path / "ps0")
    assert out_of_sync("ps0", tmp_path, solutions) == []
    (tmp_path / "ps0" / "checks.json").write_text("{}")
    assert len(out_of_sync("ps0", tmp_path, solutions)) == 1


def test_release_leaves_other_files_alone(released, solutions, tmp_path):
    (tmp_path / "ps0").mkdir()
    (tmp_path / "ps0" / "notes.txt").touch()
    with pytest.raises(UserError, match="was not made by release"):
        release("ps0", tmp_path, solutions)


def test_nbgrader_alone_would_not_ship_the_tests():
    """Whoever releases with formgrader's button uses the same configuration."""
    text = (ROOT / "nbgrader_config.py").read_text()
    assert '"hidden.py"' in text and '"mutants.py"' in text
    assert f'"{problem_sets.STUB}"' in text and f'"{problem_sets.TEXT_STUB}"' in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda hidden: hidden.replace('"sum and count", 2', '"sum and count", 3'),
            "the tests' points are 5",
        ),
        (lambda hidden: hidden.replace("ps0.rows", "ps0.cols"), "ps0.cols has tests or mutants but no check"),
        (lambda hidden: hidden.replace("random matrices", "two rows"), "two tests are called “two rows”"),
        (lambda hidden: hidden.replace("visible=True", "visible=True, faster_than='x'"), "cannot be visible"),
        (
            lambda hidden: hidden.replace("def _rows(rng):", "def _rows(rng)"),
            r"hidden.py, line \d+: expected",
        ),
    ],
)
def test_what_does_not_hold_together_is_refused(tmp_path, change, words):
    solutions = tiny_problem_set.build(tmp_path)
    path = solutions / "ps0" / "hidden.py"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=words):
        load("ps0", solutions)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda hidden: hidden.replace('call("rows", rng', 'call("rowz", rng'),
            "“random matrices”.*rowz is not",
        ),
        (
            lambda hidden: hidden.replace("rng.normal(size=(4, 3))", "rng"),
            "“random matrices” passes .*plain data",
        ),
        (
            lambda hidden: hidden.replace("size=(4, 3)", "sise=4"),
            "“random matrices”: drawing its inputs fails",
        ),
    ],
)
def test_which_test_fails_is_said(tmp_path, change, words):
    solutions = tiny_problem_set.build(tmp_path)
    path = solutions / "ps0" / "hidden.py"
    path.write_text(change(path.read_text()))
    with pytest.raises(WorkFailed, match=words):
        prove(load("ps0", solutions), choose(unsafe=True))


def test_a_source_that_cannot_be_read_is_named(tmp_path):
    path = tiny_problem_set.build(tmp_path) / "ps0" / "ps0.ipynb"
    text = path.read_text()
    path.write_text(text.replace("### END SOLUTION", "## END SOLUTION"))
    with pytest.raises(UserError, match="cell ps0-mean-code has the marks"):
        load("ps0", tmp_path / "solutions")
    path.write_text("{")
    with pytest.raises(UserError, match=r"ps0.ipynb is not a notebook of format 4"):
        load("ps0", tmp_path / "solutions")


def test_the_authors_own_run_leaves_no_times(tmp_path):
    path = tiny_problem_set.build(tmp_path) / "ps0" / "ps0.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[1].metadata["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
    nbformat.write(notebook, path)
    folder = release("ps0", tmp_path / "assignments", tmp_path / "solutions")
    assert "iopub" not in (folder / "ps0.ipynb").read_text()


def test_an_unknown_problem_set(solutions):
    with pytest.raises(UserError, match="give a name, for instance ps0"):
        load("solutions/ps0", solutions)
    with pytest.raises(UserError, match=r"no problem set 'ps7'.*there are ps0"):
        load("ps7", solutions)


def test_a_solution_that_fails_is_said(tmp_path):
    solutions = tiny_problem_set.build(tmp_path)
    path = solutions / "ps0" / "ps0.ipynb"
    path.write_text(path.read_text().replace("print(mean", "1 / 0; print(mean"))
    with pytest.raises(WorkFailed, match="the reference solution fails in cell ps0-show: division by zero"):
        release("ps0", tmp_path / "assignments", solutions)


def test_prove_finds_what_is_wrong(tmp_path):
    solutions = tiny_problem_set.build(tmp_path)
    mutants = solutions / "ps0" / "mutants.py"
    mutants.write_text(mutants.read_text().replace('or [0.0]))", 5', 'or [0.0]))", 4'))
    problems = prove(load("ps0", solutions), choose(unsafe=True))
    assert len(problems) == 1 and problems[0].startswith("mutant “median” scores 5, not 4")


# ---- a student's notebook laid over the source


@pytest.fixture
def given(solutions):
    return load("ps0", solutions)


def code_of(to_run):
    return [code for _, code in to_run]


def cells(released, **changes):
    found = cells_of((released / "ps0.ipynb").read_bytes())
    return [cell | {"source": changes.get(cell["id"], cell["source"])} for cell in found]


def test_answers_count_and_everything_else_is_restored(given, released):
    student = cells(released, **{"ps0-mean-code": "mine = 1", "ps0-setup": "import os", "ps0-show": ""})
    to_run, notes = overlay(given, student)
    assert "mine = 1" in code_of(to_run) and "import os" not in code_of(to_run)
    assert dict(to_run)["ps0-show"].startswith("print(mean")
    assert not [name for name, _ in to_run if name in ("ps0-mean", "ps0-rows")]  # checks do not run
    assert notes[:2] == [
        f"locked cell {n} was changed; the original was used" for n in ("ps0-setup", "ps0-show")
    ]


def test_missing_cells_come_back(given, released):
    student = [cell for cell in cells(released) if cell["id"] not in ("ps0-setup", "ps0-mean-code")]
    to_run, notes = overlay(given, student)
    assert to_run[0][0] == "ps0-setup" and dict(to_run)["ps0-mean-code"] == ""
    assert "locked cell ps0-setup was gone; it was put back" in notes
    assert "the answer cell of ps0.mean is missing; other cells count" in notes


def test_of_two_answers_the_last_with_something_in_it_counts(given, released):
    student = cells(released)
    at = next(n for n, cell in enumerate(student) if cell["id"] == "ps0-mean-code")
    untouched = student[at]
    student[at:at] = [untouched | {"source": "first"}, untouched | {"source": "second"}]
    to_run, notes = overlay(given, student)
    assert dict(to_run)["ps0-mean-code"] == "second"
    assert "ps0.mean was answered in 3 cells; the last counts" in notes


def test_a_renamed_cell_still_runs_where_it_stands(given, released):
    student = cells(released, **{"ps0-mean-code": "def mean(): pass"})
    student = [cell | {"id": "other"} if cell["id"] == "ps0-mean-code" else cell for cell in student]
    to_run, _ = overlay(given, student)
    names = [name for name, code in to_run]
    assert names.index("own cell 1 after ps0-mean-text") < names.index("ps0-rows-code")


def test_tampered_marks_change_nothing(given, released):
    """An own cell that claims a locked cell's id, an answer that became text, ids that are no names."""
    student = [{"type": "code", "source": "evil = 1", "id": "ps0-setup"}, *cells(released)]
    student = [cell | {"type": "markdown"} if cell["id"] == "ps0-rows-code" else cell for cell in student]
    to_run, notes = overlay(given, student)
    assert "evil = 1" not in code_of(to_run)
    assert "the answer cell of ps0.rows is missing; other cells count" in notes


def test_the_stub_is_the_one_that_nbgrader_makes(given, released):
    made = {cell["id"]: cell["source"] for cell in cells_of((released / "ps0.ipynb").read_bytes())}
    for cell in given.cells:
        if cell.role == "answer":
            assert stub(cell.source) == made[cell.id] and "NotImplementedError" in made[cell.id]
