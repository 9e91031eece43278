"""Rewrite constraints.txt from the list of packages that Colab publishes.

`python tests/colab/refresh.py [FILE OR ADDRESS]`, with a network; then `pytest tests/test_colab.py`. It says
what has changed, what the course has to install there, and which versions lie outside of the tested ranges.
"""

import re
import sys
import tomllib
import urllib.request
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from visdial_lab.platforms import HELD

FILE = Path(__file__).with_name("constraints.txt")
PUBLISHED = "https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.txt"
# What IPython 7, ipykernel 6 and ipywidgets 7 need beside what later ones need: the tests install it.
STACK = (
    *("backcall", "debugpy", "decorator", "ipython-genutils", "jupyterlab-widgets", "matplotlib-inline"),
    *("nest-asyncio", "pexpect", "pickleshare", "prompt-toolkit", "widgetsnbextension"),
)
LIBRARIES = ("torch", "transformers", "peft", "datasets", "numpy")


def read_list(text: str) -> dict[str, str]:
    """The lines of `pip freeze` or of a constraints file: {package: version}.

    Local versions (+cu128) are cut off; of a package from an address, the version stands in the file's name.
    """
    found = {}
    for line in text.splitlines():
        match = re.match(r"([\w.-]+)==([^\s+#]+)", line)
        match = match or re.match(r"([\w.-]+) @ .*/[\w.]+?-(\d[\w.]*?)(\+[\w.]+)?(-|\.tar)", unquote(line))
        if match:
            found[canonicalize_name(match[1])] = match[2]
    return found


def needs() -> list[Requirement]:
    """What the course depends on, by pyproject.toml."""
    project = tomllib.loads((FILE.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in project["dependencies"]]


def constraints(found: dict[str, str], python: str) -> str:
    """The text of constraints.txt for a list of packages."""
    absent = sorted(need.name for need in needs() if canonicalize_name(need.name) not in found)
    kept = sorted(name for name in {*HELD, *STACK, *LIBRARIES} if name in found)
    return "\n".join(
        [
            f"# What Colab brings, as far as it matters here. Python {python}.",
            "# Written by tests/colab/refresh.py from the list that Colab publishes.",
            f"# not there: {' '.join(absent)}",
            *(f"{name}=={found[name]}" for name in kept),
            "",
        ]
    )


def report(old: dict[str, str], found: dict[str, str]) -> list[str]:
    """What has changed for the packages that constraints.txt names, and what is outside of our ranges."""
    lines = [
        f"{name}: {old[name]} → {found.get(name, 'gone')}" for name in old if found.get(name) != old[name]
    ]
    for need in needs():
        version = found.get(canonicalize_name(need.name))
        if version is None:
            lines.append(f"{need.name}: not there, setup() installs it")
        elif not need.specifier.contains(version, prereleases=True):
            stays = "stays as it is: try it" if need.name in HELD else "setup() replaces it"
            lines.append(f"{need.name} {version}: outside of {need.specifier}, {stays}")
    return lines


def main(source: str = PUBLISHED, python: str | None = None) -> None:
    if source.startswith("https://"):
        with urllib.request.urlopen(source, timeout=60) as response:
            text = response.read().decode()
    else:
        text = Path(source).read_text(encoding="utf-8")
    before = FILE.read_text(encoding="utf-8")
    python = python or re.search(r"Python (3\.\d+)", before)[1]
    found = read_list(text)
    FILE.write_text(constraints(found, python), encoding="utf-8")
    print("\n".join(report(read_list(before), found)))
    print(f"If Colab's Python is no longer {python}, give the new one: refresh.py {PUBLISHED} 3.14")


if __name__ == "__main__":
    main(*sys.argv[1:])
