"""The notebooks on Colab's own machinery: IPython 7, ipykernel 6, ipywidgets 7.7, and its libraries.

A virtual environment gets those versions (tests/colab/constraints.txt); torch and whatever else is big are
borrowed from the environment that the tests run in, but not what Colab lacks. It starts where a student on
Colab starts: in an empty folder, without the course. GitHub is a local repository; pip is the real one.
"""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import tiny_model
import tiny_profile
from colab import refresh
from notebook_runs import NOTEBOOKS, ROOT, WIDGET, kernel_at, outputs, run_notebook, text
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_packaging import EXTRAS, PROJECT

from visdial_lab import platforms

HERE = Path(__file__).with_name("colab")
CONSTRAINTS = refresh.read_list((HERE / "constraints.txt").read_text())
ABSENT = re.search(r"^# not there: (.+)$", (HERE / "constraints.txt").read_text(), re.M)[1].split()
LIST = (HERE / "pip-freeze-2026.01.txt").read_text()
# Of the borrowed libraries, those that this version of transformers does not take as they are.
FITTING = ["tokenizers>=0.22,<=0.23.0"]


# ---- the list


def test_reading_colabs_list():
    found = refresh.read_list(LIST)
    assert found["ipython"] == "7.34.0" and found["jupyter-client"] == "7.4.9"
    assert found["torch"] == "2.9.0"  # was 2.9.0+cpu
    assert found["google-colab"] == "1.0.0" and found["en-core-web-sm"] == "3.8.0"
    assert "jupyter-kernel-gateway" not in found  # a commit is no version
    wheel = "torch @ https://download.pytorch.org/whl/cu118/torch-2.1.0%2Bcu118-cp310-cp310-linux_x86_64.whl"
    assert refresh.read_list(wheel) == {"torch": "2.1.0"}
    assert refresh.read_list("# comment\n\nnot a line\n") == {}


def test_refreshing_from_the_list(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(refresh, "FILE", tmp_path / "colab" / "tests" / "constraints.txt")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    refresh.FILE.parent.mkdir(parents=True)
    refresh.FILE.write_text("# … Python 3.12.\nnumpy==1.0\ngone-package==1\n")
    refresh.main(str(HERE / "pip-freeze-2026.01.txt"))
    written = refresh.FILE.read_text()
    assert "Python 3.12" in written and "\nnumpy==2.0.2\n" in written and "pip==" not in written
    assert "# not there: bitsandbytes msgspec papermill rouge-score sacrebleu trl\n" in written
    said = capsys.readouterr().out
    assert "numpy: 1.0 → 2.0.2" in said and "gone-package: 1 → gone" in said
    assert "trl: not there, setup() installs it" in said
    assert "datasets 4.0.0: outside of <5,>=4.8.5, setup() replaces it" in said
    refresh.main(str(HERE / "pip-freeze-2026.01.txt"), "3.14")
    assert "Python 3.14" in refresh.FILE.read_text()


def test_the_colab_extra_is_what_its_list_lacks():
    """pyproject's `colab` list: the packages that are not there, and those of a version that does not do."""
    named = {canonicalize_name(need.name) for need in EXTRAS["colab"]}
    needs = {canonicalize_name(need.name): need for need in map(Requirement, PROJECT["dependencies"])}
    other = {name for name in CONSTRAINTS if name in needs and not fits(needs[name], CONSTRAINTS[name])}
    assert named == {*ABSENT, *other}
    assert not other & platforms.HELD, "Colab holds a version that the course was not tried with"


def fits(need: Requirement, version: str) -> bool:
    return need.specifier.contains(version.removesuffix(".*"), prereleases=True)


@pytest.mark.slow
def test_pip_finds_what_is_missing_for_colabs_python(tmp_path):
    """What setup() would ask pip for, for the Python that Colab has; nothing is installed."""
    python = re.search(r"Python (3\.\d+)", (HERE / "constraints.txt").read_text())[1]
    held = [f"{name}=={CONSTRAINTS[name]}" for name in sorted(platforms.HELD) if name in CONSTRAINTS]
    (tmp_path / "held.txt").write_text("\n".join(held) + "\n")
    wanted = [str(need) for need in EXTRAS["colab"] if need.name != "rouge-score"]  # is not built beforehand
    stay = [f"{name}=={CONSTRAINTS[name]}" for name in ("torch", "transformers", "peft")]
    words = ["--quiet", "--disable-pip-version-check", "--dry-run", "--ignore-installed"]
    words += ["--only-binary=:all:", "--python-version", python, "--target", str(tmp_path / "none")]
    words += ["--constraint", str(tmp_path / "held.txt"), *stay, *wanted]
    pip = [sys.executable, "-m", "pip", "install", *words]
    try:
        done = subprocess.run(pip, capture_output=True, text=True, timeout=500)
    except subprocess.TimeoutExpired:
        pytest.skip("SKIPPED: the package index was too slow to say whether Colab's packages fit together")
    if (
        done.returncode
        and "No matching distribution found" in done.stderr
        and "from versions: none" in done.stderr
    ):
        pytest.skip("SKIPPED: no package index within reach, so nothing was tried for Colab's Python")
    assert done.returncode == 0, done.stderr[-2000:]


# ---- the machine


def git(*words: str, work_tree: Path = ROOT, folder: Path) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    place = [f"--git-dir={folder}", f"--work-tree={work_tree}"]
    subprocess.run(["git", *who, *place, *words], check=True, cwd=work_tree, capture_output=True)


@pytest.fixture(scope="module")
def colab_python(tmp_path_factory) -> Path:
    """A Python with Colab's notebook machinery, transformers, peft, datasets and numpy; the rest is ours, but
    without what Colab lacks."""
    home = tmp_path_factory.mktemp("colab") / "venv"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    python = home / "bin" / "python"
    names = {*platforms.HELD, *refresh.STACK, "transformers", "peft", "datasets"}
    names -= {"torch", "torchvision", "torchaudio", "triton"}
    wanted = [f"{name}=={CONSTRAINTS[name]}" for name in sorted(names) if name in CONSTRAINTS]
    words = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    pip = [python, "-m", "pip", *words, *wanted, *FITTING]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=600)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["?"])[-1]
        pytest.skip(f"SKIPPED: Colab's packages cannot be fetched here, so nothing was tried on them: {last}")
    [own] = (home / "lib").glob("python*/site-packages")
    borrowed = home.parent / "borrowed"
    borrow(borrowed, [*ABSENT, "datasets", "visdial-lab"])
    (own / "zz-borrowed.pth").write_text(f"{borrowed}\n")  # behind its own
    return python


def borrow(folder: Path, without: list[str]) -> None:
    """Links to all that is installed here, without some packages."""
    folder.mkdir()
    without = [canonicalize_name(name) for name in without]
    for place in (path for path in sys.path if path.endswith(("site-packages", "dist-packages"))):
        absent = [
            one for one in metadata.distributions(path=[place]) if canonicalize_name(one.name) in without
        ]
        left_out = {"__pycache__", *(file.parts[0] for one in absent for file in one.files or ())}
        for path in Path(place).iterdir():
            if path.name not in left_out and path.suffix != ".pth" and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)


@pytest.fixture(scope="module")
def github(tmp_path_factory) -> dict[str, str]:
    """Settings of git with which the course's address is a repository made from this working tree."""
    folder = tmp_path_factory.mktemp("github") / "course.git"
    subprocess.run(["git", "init", "--quiet", "--bare", folder], check=True)
    git("add", ".", folder=folder)
    git("commit", "--quiet", "--message", "the course", folder=folder)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{folder.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": platforms.REPOSITORY,
    }


@pytest.fixture(scope="module")
def colab(colab_python, github, tmp_path_factory):
    """Run notebooks as on Colab: its kernel, in /content, which is empty at first. → (run, content folder)"""
    folder = tmp_path_factory.mktemp("machine")
    (folder / "content").mkdir()
    profile = tiny_profile.write(folder, "scenes", tiny_model.build(folder / "model", width=64))
    env = github | {
        "COLAB_RELEASE_TAG": "release-colab_20261101",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": "",
        "VISDIAL_LAB_ROOT": "",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    jupyter = pytest.MonkeyPatch()
    jupyter.setenv("JUPYTER_PATH", str(folder))
    kernel = kernel_at(colab_python, folder, env)

    def run(name: str, **options):
        return run_notebook(name, profile, folder / "run", folder / "content", kernel, **options)

    yield run, folder / "content"
    jupyter.undo()


@pytest.fixture(scope="module")
def started(colab, colab_python) -> tuple[dict[str, str], str]:
    """The first notebook up to its setup cell: the versions there were before, and what the cell said."""
    before = versions(colab_python)
    return before, text(colab[0]("01_data_exploration", last=2))


@pytest.mark.slow
def test_the_library_with_colabs_libraries(colab_python):
    code = "import IPython, ipykernel, ipywidgets, traitlets, transformers, peft, numpy\n"
    code += "for m in (IPython, ipykernel, ipywidgets, traitlets, transformers, peft, numpy):\n"
    code += "    print(m.__name__.lower(), m.__version__)"
    run = subprocess.run([colab_python, "-c", code], capture_output=True, text=True, check=True)
    for line in run.stdout.splitlines()[-7:]:
        name, version = line.split()
        assert version.startswith(CONSTRAINTS[name].removesuffix("*")), line


@pytest.mark.slow
def test_widgets_of_that_time_move(colab_python, started):
    """The widgets' own tests, on ipywidgets 7.7 and with what the setup cell has installed."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "test_widgets.py")]
    run = subprocess.run([colab_python, *words], capture_output=True, text=True, env=env, cwd=ROOT)
    assert run.returncode == 0, run.stdout[-2000:]
    assert "skipped" not in run.stdout


@pytest.mark.slow
def test_the_setup_cell_in_an_empty_folder(colab, colab_python, started):
    """The course is fetched, and what is missing, once; a new session in that folder finds all of it."""
    run, content = colab
    before, said = started
    installing, *lines = said.strip().splitlines()
    assert installing.startswith("Colab: installing ")
    asked = re.findall(r"([\w-]+)[<>]", installing)
    assert set(asked) == {need.name for need in EXTRAS["colab"]}
    assert len(lines) == 3 and lines[0].startswith("VisDial Lab") and " · Colab · " in lines[0]
    assert (content / "visdial-lab" / "data" / "scenes").is_dir()
    after = versions(colab_python)
    for name in (*platforms.HELD, "transformers", "peft"):
        assert after.get(name) == before.get(name), f"{name} was replaced"
    assert (colab_python.parent / "visdial-lab").is_file()
    again = text(run("02_data_generation", last=2))
    assert again.strip().splitlines() == lines


def versions(python: Path) -> dict[str, str]:
    code = "from importlib import metadata\nfor d in metadata.distributions(): print(d.name, d.version)"
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    found = {}
    for name, version in map(str.split, run.stdout.splitlines()):
        found.setdefault(canonicalize_name(name), version)  # its own come first
    return found


# Every control of the notebook is moved, as a hand would, and what is then drawn is looked at.
MOVE = """
def _move_everything():  # names of its own: a notebook may have its own `moved`
    import ipywidgets

    everything = list(ipywidgets.Widget.widgets.values())
    pages = [widget for widget in everything if type(widget).__name__ == "HTML"]
    moved, wrong = 0, []
    for control in everything:
        kind = type(control).__name__
        if kind in ("IntSlider", "FloatSlider"):
            values = [control.max, control.min]
        elif kind in ("Dropdown", "ToggleButtons", "RadioButtons", "SelectionSlider"):
            values = [option[1] if isinstance(option, tuple) else option for option in control.options]
        elif kind in ("Checkbox", "ToggleButton"):
            values = [not control.value]
        elif kind in ("Text", "Textarea", "Combobox"):
            values = ["", "is there a <b>dog</b>?"]
        else:
            continue
        for value in values:
            control.value = value
            moved += 1
            drawn = [page.value for page in pages if "role='alert'" in page.value]
            wrong += [page for page in drawn if "UserError" not in page]  # that one is for the student
    print(f"moved {moved} times, wrong: {wrong}")

_move_everything()
"""


@pytest.mark.slow
def test_every_cell_of_every_notebook(colab, started):
    """Widgets among them: each is made, stands beside its static picture, and can be moved."""
    run, _ = colab
    for name in NOTEBOOKS:
        notebook = run(name, then=MOVE)
        moved = re.search(r"moved (\d+) times, wrong: \[\]$", text(notebook).strip())
        assert moved, f"{name}: {text(notebook).strip().splitlines()[-1]}"
        assert int(moved[1]) > 0 or not any(WIDGET in output.get("data", {}) for output in outputs(notebook))
        for output in outputs(notebook):
            assert output.output_type != "error"
            if WIDGET in output.get("data", {}):
                assert "text/html" in output["data"], f"{name}: a widget without a static picture"
        made = sum(WIDGET in output.get("data", {}) for output in outputs(notebook))
        committed = (ROOT / "notebooks" / f"{name}.ipynb").read_text().count(f'"{WIDGET}"')
        assert made == committed, f"{name}: {made} widgets here, {committed} in the committed notebook"
