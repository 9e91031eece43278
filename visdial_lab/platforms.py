"""Where the course was started, and what is missing there. Nothing but the standard library is needed.

Colab and Kaggle bring a Python of their own, in which torch, numpy and the notebook's machinery are built and
loaded to fit together. There we add what is not there and leave those as they are. On your own machine
nothing is ever installed behind your back: we say what is missing and how to get it.
"""

import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from visdial_lab.errors import UserError, WorkFailed
from visdial_lab.files import atomic_folder, course_root

REPOSITORY = "https://github.com/visdial-lab/visdial-lab"  # in the notebooks too; a test holds them to it

# What a hosted image has loaded before our first cell, or built to fit its GPU: never another version.
HELD = {
    *("torch", "torchvision", "torchaudio", "triton", "numpy", "ipython", "ipykernel", "ipywidgets"),
    *("traitlets", "jupyter-client", "jupyter-core", "tornado", "pyzmq"),
}


def hosted() -> str | None:
    """Colab or Kaggle, when the notebook runs there; None on a machine of one's own."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:  # asked first: Kaggle's image is made from Colab's
        return "Kaggle"
    return "Colab" if "COLAB_RELEASE_TAG" in os.environ else None


def prepare() -> None:
    """Make sure that the course's files and libraries are there; on Colab and Kaggle, get what is missing.

    Raises UserError when a library is missing on one's own machine, or when the session has to be started
    anew because one that is loaded was replaced; WorkFailed when something could not be fetched.
    """
    place = hosted()
    if place is None:
        if names := absent(requirements()):
            raise lacks(*names)
        return
    root = find_course(Path.cwd())
    if wanted := unmet(requirements(root)):
        print(f"{place}: installing {', '.join(wanted)} (a minute, once a session)", flush=True)
        replaced = install(wanted)
        if loaded := sorted(replaced & set(sys.modules)):
            again = "restart the session (menu Runtime or Run) and run all cells again"
            raise UserError(f"{', '.join(loaded)} was loaded and is now another version: {again}")
    if absent(["visdial-lab"]):  # for the command, and for notebooks that the pipeline starts
        _pip("--no-deps", "--editable", str(root))


def find_course(here: Path) -> Path:
    """The course folder: around `here` or in here/visdial-lab; where there is none, it is fetched to there.

    $VISDIAL_LAB_ROOT is set when it would not be found from here again. Raises WorkFailed without a network.
    """
    try:
        return course_root()
    except UserError:
        root = here / REPOSITORY.rpartition("/")[2]
    if not (root / "data" / "scenes").is_dir():
        with atomic_folder(root, marker="pyproject.toml") as temporary:
            _run("git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(temporary))
    os.environ["VISDIAL_LAB_ROOT"] = str(root)
    return root


def requirements(root: Path | None = None) -> list[str]:
    """What the course needs: as it was installed, or else as its pyproject.toml says."""
    try:
        lines = metadata.requires("visdial-lab") or []
        return [line for line in lines if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        file = (root or Path(__file__).parents[1]) / "pyproject.toml"
    if not file.is_file():  # a copy of the package alone
        return []
    return tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]


def absent(lines: list[str]) -> list[str]:
    """The packages among these requirements that are not installed at all."""
    names = [re.match(r"[\w.-]+", line).group() for line in lines]
    return [name for name in names if _version(name) is None]


def unmet(lines: list[str]) -> list[str]:
    """The requirements that are not met here, without what is HELD: that stays as it is."""
    from packaging.requirements import Requirement

    def is_met(need: Requirement) -> bool:
        found = _version(need.name)
        return found is not None and (need.name in HELD or need.specifier.contains(found, prereleases=True))

    return [line for line in lines if not is_met(Requirement(line))]


def held() -> list[str]:
    """Constraints for pip that keep every HELD package at the version that is here."""
    return [f"{name}=={version}" for name in sorted(HELD) if (version := _version(name))]


def install(wanted: list[str]) -> set[str]:
    """Install with pip, holding what is HELD; returns the modules of packages that had another version.

    Raises WorkFailed with pip's own last words.
    """
    before = _versions()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "constraints.txt").write_text("\n".join(held()) + "\n", encoding="utf-8")
        _pip("--constraint", str(Path(folder) / "constraints.txt"), *wanted)
    importlib.invalidate_caches()
    after = _versions()
    replaced = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    owners = metadata.packages_distributions()  # module → packages
    return {module for module, names in owners.items() if replaced & {_plain(name) for name in names}}


def lacks(*names: str) -> UserError:
    """The error for a Python in which the course was not installed: mostly the wrong kernel was chosen."""
    return UserError(
        f"the Python of this kernel ({sys.executable}) lacks {', '.join(names)}. Choose the kernel of the "
        "course's .venv (`make lab` starts JupyterLab with it), or run in the course folder: pip install -e ."
    )


def _pip(*words: str) -> None:
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words)


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise WorkFailed(f"cannot run {words[0]}: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        hint = "; is the internet on? (Settings → Internet)" if hosted() == "Kaggle" else ""
        raise WorkFailed(f"{' '.join(words[:4])} … failed: {said[-1] if said else 'without a word'}{hint}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> dict[str, str]:
    return {_plain(found.name): found.version for found in metadata.distributions()}


def _plain(name: str) -> str:
    """A package's name as packages are compared by."""
    return re.sub(r"[-_.]+", "-", name).lower()
