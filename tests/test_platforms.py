"""What setup() does before anything else: on one's own machine it says what is missing, on Colab and Kaggle
it fetches that. The network is a local git repository; pip is watched, not run."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from notebook_runs import run_notebook, text

import visdial_lab
from visdial_lab import UserError, platforms
from visdial_lab.errors import WorkFailed

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def a_machine_of_ones_own(monkeypatch):
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Pretend to be Colab: in an empty folder, from which no course is found."""
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20261101")
    monkeypatch.setenv("VISDIAL_LAB_ROOT", "")  # remembered, so that what the test sets is undone

    def not_around():
        raise UserError("course folder not found")

    monkeypatch.setattr(platforms, "course_root", not_around)
    (tmp_path / "content").mkdir()
    monkeypatch.chdir(tmp_path / "content")
    return tmp_path / "content"


@pytest.fixture
def pip(monkeypatch):
    """Record what pip is asked for. What it 'installs' is there afterwards."""
    calls, versions = [], {}
    known = metadata.version

    def version(name):
        if name in versions:
            if versions[name] is None:
                raise metadata.PackageNotFoundError(name)
            return versions[name]
        return known(name)

    def install(*words):
        constraints = [Path(words[n + 1]).read_text() for n, w in enumerate(words) if w == "--constraint"]
        calls.append((words, *constraints))

    monkeypatch.setattr(platforms.metadata, "version", version)
    monkeypatch.setattr(platforms, "_pip", install)
    install.calls, install.versions = calls, versions
    return install


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A little course in a git repository that stands in for the one on GitHub."""
    source = tmp_path / "source"
    (source / "data" / "scenes").mkdir(parents=True)
    (source / "data" / "scenes" / "x.json").write_text("{}")
    (source / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=1", "nosuchthing>=2"]\n')
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "course"]):
        subprocess.run(["git", *words], cwd=source, check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{source.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", platforms.REPOSITORY)
    return source


class TestWhere:
    def test_own_machine(self):
        assert platforms.hosted() is None

    def test_colab_and_kaggle_whose_image_is_colabs(self, monkeypatch):
        monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
        assert platforms.hosted() == "Colab"
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
        assert platforms.hosted() == "Kaggle"

    def test_the_report_says_so(self, colab, pip, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(platforms, "course_root", lambda: ROOT)
        visdial_lab.setup("scenes", tmp_path / "run")
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3 and " · Colab · Python" in lines[0]


class TestOwnMachine:
    def test_nothing_is_done_when_all_is_there(self, pip):
        platforms.prepare()
        assert pip.calls == []

    def test_a_missing_library_is_named_and_nothing_installed(self, pip, tmp_path):
        pip.versions |= {"torch": None, "trl": None}
        with pytest.raises(UserError, match=r"lacks torch, trl.*kernel of the course's \.venv") as error:
            visdial_lab.setup("scenes", tmp_path)
        assert sys.executable in str(error.value) and pip.calls == []

    def test_another_version_is_the_users_own_affair(self, pip):
        pip.versions["torch"] = "99.0"
        platforms.prepare()

    def test_the_wrong_kernel_is_told_on_import(self):
        """A Python without any of the libraries, as VS Code may have chosen it."""
        code = "import sys; sys.path.append('')\nfrom visdial_lab import setup"
        words = [sys.executable, "-I", "-S", "-c", code]
        run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        last = run.stderr.strip().splitlines()[-1]
        assert last.startswith("visdial_lab.errors.UserError: the Python of this kernel") and "lacks" in last


class TestFindCourse:
    def test_around(self, tmp_path):
        assert platforms.find_course(tmp_path) == ROOT

    def test_fetched_once(self, colab, repository, monkeypatch):
        root = platforms.find_course(colab)
        assert root == colab / "visdial-lab" and (root / "data" / "scenes" / "x.json").is_file()
        assert not list(colab.glob(".*"))
        assert platforms.os.environ["VISDIAL_LAB_ROOT"] == str(root)
        monkeypatch.setattr(platforms, "_run", lambda *words: pytest.fail("fetched again"))
        assert platforms.find_course(colab) == root

    def test_without_a_network_nothing_is_left(self, colab, repository, monkeypatch):
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", "url.file:///nowhere/.insteadOf")
        with pytest.raises(WorkFailed, match=r"git clone .* failed: .*Settings → Internet"):
            platforms.find_course(colab)
        assert list(colab.iterdir()) == []

    def test_without_git(self, colab, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(WorkFailed, match="cannot run git"):
            platforms.find_course(colab)

    def test_somebody_elses_folder_of_that_name_is_kept(self, colab, repository):
        (colab / "visdial-lab").mkdir()
        (colab / "visdial-lab" / "thesis.txt").write_text("mine")
        with pytest.raises(UserError, match="will not replace"):
            platforms.find_course(colab)
        assert (colab / "visdial-lab" / "thesis.txt").read_text() == "mine"


class TestPrepare:
    def test_installs_what_is_missing_and_holds_what_is_there(
        self, colab, repository, pip, monkeypatch, capsys
    ):
        pip.versions |= {"visdial-lab": None}
        monkeypatch.setattr(platforms.metadata, "requires", missing)
        platforms.prepare()
        (words, constraints), (editable,) = pip.calls
        assert words[2:] == ("nosuchthing>=2",)
        held = constraints.splitlines()
        for name in ("torch", "numpy", "ipywidgets", "ipykernel", "ipython"):
            assert f"{name}=={metadata.version(name)}" in held
        assert editable == ("--no-deps", "--editable", str(colab / "visdial-lab"))
        assert "Colab: installing nosuchthing>=2" in capsys.readouterr().out

    def test_quiet_when_nothing_is_missing(self, colab, pip, monkeypatch, capsys):
        monkeypatch.setattr(platforms, "course_root", lambda: ROOT)
        platforms.prepare()
        assert pip.calls == [] and capsys.readouterr().out == ""

    def test_what_is_held_is_never_asked_for(self, pip):
        pip.versions |= {"torch": "1.0", "numpy": "1.0", "datasets": "4.0.0", "trl": None}
        wanted = ["torch>=2.8,<2.15", "numpy>=2.0", "datasets>=4.8.5,<5", "trl>=1.14.2,<1.15", "rich>=13"]
        assert platforms.unmet(wanted) == ["datasets>=4.8.5,<5", "trl>=1.14.2,<1.15"]

    def test_what_was_loaded_and_replaced_asks_for_a_new_session(self, colab, pip, monkeypatch):
        monkeypatch.setattr(platforms, "course_root", lambda: ROOT)
        monkeypatch.setattr(platforms, "unmet", lambda lines: ["numpy>=9"])
        states = iter([{"numpy": "1", "rich": "1"}, {"numpy": "9", "rich": "1"}])
        monkeypatch.setattr(platforms, "_versions", lambda: next(states))
        with pytest.raises(UserError, match="numpy was loaded and is now another version: restart"):
            platforms.prepare()

    def test_pip_s_last_words(self, monkeypatch):
        said = subprocess.CompletedProcess([], 1, "", "ERROR: one\nERROR: No matching distribution\n")
        monkeypatch.setattr(platforms.subprocess, "run", lambda *words, **options: said)
        with pytest.raises(WorkFailed, match=r"pip install … failed: ERROR: No matching distribution$"):
            platforms.install(["nosuchthing"])


def missing(name):
    raise metadata.PackageNotFoundError(name)


def test_requirements_without_installation(tmp_path, monkeypatch):
    monkeypatch.setattr(platforms.metadata, "requires", missing)
    assert any(line.startswith("torch") for line in platforms.requirements())
    assert platforms.requirements(tmp_path) == []


def test_requirements_leave_extras_out(monkeypatch):
    monkeypatch.setattr(platforms.metadata, "requires", lambda name: ["a>=1", 'b>=1; extra == "gpu"'])
    assert platforms.requirements() == ["a>=1"]


def test_the_notebooks_fetch_the_course_from_the_same_place():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"!git clone -q --depth 1 {platforms.REPOSITORY}\\n" in path.read_text(), path.name


@pytest.mark.slow
@pytest.mark.parametrize("start", ["notebooks", ".", "notebooks/images", "elsewhere"])
def test_the_setup_cell_from_anywhere(start, tmp_path, monkeypatch):
    """In the notebook's folder (as Jupyter and VS Code do), in the course folder, deeper, and outside."""
    monkeypatch.delenv("VISDIAL_LAB_ROOT", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # installed, that is
    cwd = tmp_path if start == "elsewhere" else ROOT / start
    said = text(run_notebook("01_data_exploration", Path("scenes"), tmp_path / "run", cwd, last=2))
    assert len(said.strip().splitlines()) == 3 and "dialogs from data/scenes" in said
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]  # nothing was fetched
