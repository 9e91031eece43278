"""The lists of dependencies agree with each other, and importing the library stays cheap."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import module_map
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RANGES = {canonicalize_name(r.name): r.specifier for r in map(Requirement, PROJECT["dependencies"])}
EXTRAS = {name: list(map(Requirement, lines)) for name, lines in PROJECT["optional-dependencies"].items()}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_constraints_lie_in_the_ranges():
    exact = constraints()
    for name, specifier in RANGES.items():
        assert name in exact, f"{name} is not in constraints.txt"
        assert specifier.contains(exact[name]), f"{name}=={exact[name]} is outside {specifier}"
    for requirement in EXTRAS["test"] + EXTRAS["instructor"]:
        assert requirement.specifier.contains(exact[canonicalize_name(requirement.name)])


def test_torch_is_pinned_where_make_installs_it():
    assert f"torch=={constraints()['torch']}" in (ROOT / "Makefile").read_text()


def test_the_colab_list_is_part_of_the_dependencies():
    for requirement in EXTRAS["colab"]:
        assert RANGES[canonicalize_name(requirement.name)] == requirement.specifier


def test_environment_yml_agrees():
    text = (ROOT / "environment.yml").read_text()
    assert "--editable .[test]" in text
    names = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
    test_extra = {canonicalize_name(r.name): r.specifier for r in EXTRAS["test"]}
    for line in re.findall(r"^  - ([a-z0-9-]+[>=<][^ #]*)", text, flags=re.MULTILINE):
        requirement = Requirement(line.replace("=3.", "==3.") if line.startswith("python=") else line)
        name = canonicalize_name(names.get(requirement.name, requirement.name))
        if name != "python":
            assert (RANGES | test_extra)[name] == requirement.specifier, name
    assert all(
        "#" in line for line in text.splitlines() if re.match(r"^  - [a-z]", line) and "pip:" not in line
    )


def test_versions_of_python():
    assert PROJECT["requires-python"] == ">=3.11,<3.14"


@pytest.mark.parametrize("command", [("-c", "import visdial_lab"), ("-m", "visdial_lab", "--help")])
def test_starting_imports_nothing_heavy(command):
    code = "import sys, runpy; sys.argv = ['visdial-lab', '--help']\n"
    code += (
        "import visdial_lab\n"
        if command[0] == "-c"
        else ("try: runpy.run_module('visdial_lab', run_name='__main__')\nexcept SystemExit: pass\n")
    )
    heavy = ("torch", "transformers", "pandas", "matplotlib", "datasets", "openai")
    code += f"print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip().endswith("[]")


def test_modules_import_one_way():
    """A module imports only from those before it; the README's map is what the imports say."""
    assert sorted(module_map.ORDER) == sorted(module_map.modules()), "each module has its place in STATIONS"
    assert module_map.backwards() == []
    for name in ("README.md", "README.ko.md"):
        drawn = module_map.BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))
        assert drawn == [module_map.draw()], f"{name}: run `python tests/module_map.py`"


def test_no_file_is_too_long():
    for path in (ROOT / "visdial_lab").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name


def test_no_path_of_one_machine():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("visdial_lab/**/*.*"), *ROOT.glob("notebooks/*.ipynb")]:
        if path.suffix in (".py", ".md", ".yaml", ".css", ".html", ".ipynb"):
            assert not re.search(r"/(home|root|Users|work)/\w", path.read_text(encoding="utf-8")), path.name
