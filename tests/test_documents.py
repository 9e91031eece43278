"""What is written for people: links lead somewhere, files that are named exist, no word is misspelt."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted([*ROOT.glob("notebooks/**/*.ipynb"), *ROOT.glob("solutions/*/*.ipynb")])
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for folder in ("data", "notebooks", "solutions") for path in (ROOT / folder).rglob("*.md")),
        *ROOT.glob("tests/benchmarks/*.md"),
    ]
)
# Links in a catalogue of translations count from the page made of it, which is checked.
PAGES = [path for path in PAGES if path.parent.name != "catalogue" or path.name == "README.md"]
# Outside of this repository we link to these only, so that a mistyped address does not go unnoticed.
HOSTS = {
    *("github.com", "colab.research.google.com", "kaggle.com", "arxiv.org", "huggingface.co", "ollama.com"),
    *("visualdialog.org", "eval.ai", "cocodataset.org", "pytorch.org", "jupyter.org"),
}
# Words of our field that codespell takes for mistakes.
OUR_WORDS = "rouge,mane"


def markdown(path: Path) -> str:
    """What a page or a notebook says, without its code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return text


def without_code(text: str) -> str:
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    text = re.sub(r"^ {4}.*$", "", text, flags=re.M)
    return re.sub(r"`[^`\n]+`", "", text)


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"[`*_]", "", t)).strip().lower().replace(" ", "-") for t in titles
    }


def links(text: str) -> list[tuple[str, str]]:
    """(words, target) of links and pictures; a picture inside a link counts as well."""
    text = without_code(text)
    found = re.findall(r"\[((?:[^\[\]]|\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)", text)
    inner = [pair for words, _ in found for pair in re.findall(r"\[([^\[\]]*)\]\(([^)\s]+)\)", words)]
    return [*found, *inner]


@pytest.fixture(params=[*PAGES, *NOTEBOOKS], ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request) -> Path:
    return request.param


def test_finding_links():
    text = "a [b](c.md#d), ![e](f.png) and [![g](https://h.org/i.svg)](https://j.org) but not `[k](l)`"
    found = links(text)
    assert ("b", "c.md#d") in found and ("e", "f.png") in found
    assert ("g", "https://h.org/i.svg") in found and "https://j.org" in [target for _, target in found]
    assert "l" not in [target for _, target in found]
    assert anchors("## How fast, *really*?\n# 1 · The `data`") == {"how-fast-really", "1--the-data"}


def test_links_lead_somewhere(page):
    for words, target in links(markdown(page)):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https" and parts.hostname in HOSTS, f"{page.name}: {target}"
            continue
        file = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
        assert file.exists() and file.is_relative_to(ROOT), f"{page.name}: [{words}]({target})"
        if parts.fragment:
            assert unquote(parts.fragment).lower() in anchors(markdown(file)), f"{page.name}: {target}"


def test_pictures_are_described(page):
    for alt in re.findall(r"!\[([^\]]*)\]\(", without_code(markdown(page))):
        assert len(alt.split()) >= 2, f"{page.name}: a picture without words for who cannot see it"


def test_files_that_are_named_exist(page):
    """`visdial_lab/forest.py` and the like, in backticks."""
    names = re.findall(
        r"`((?:visdial_lab|tests|data/recipes|notebooks|solutions)/[\w./-]+\.\w+)`", markdown(page)
    )
    for name in names:
        assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_no_path_of_one_machine(page):
    assert not re.search(r"(?<![\w.])/(home|root|Users|work|tmp)/\w", page.read_text(encoding="utf-8")), (
        page.name
    )


def test_spelling(tmp_path):
    """Pages, notebooks (code and all), and every docstring and comment of the library."""
    pytest.importorskip(
        "codespell_lib", reason="SKIPPED: codespell is not installed: pip install -e '.[test]'"
    )
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        name = notebook.relative_to(ROOT).as_posix().replace("/", "-")
        (tmp_path / f"{name}.txt").write_text(
            "\n\n".join("".join(c["source"]) for c in cells), encoding="utf-8"
        )
    code = [
        ROOT / "visdial_lab",
        ROOT / "data" / "recipes",
        *ROOT.glob("solutions/*/*.py"),
        *ROOT.glob("tests/*.md"),
    ]
    words = ["--ignore-words-list", OUR_WORDS, *map(str, [*PAGES, *code, tmp_path])]
    run = subprocess.run([sys.executable, "-m", "codespell_lib", *words], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


# ---- the page for teaching


def test_minute_plans_fill_their_session():
    text = (ROOT / "solutions" / "TEACHING.md").read_text(encoding="utf-8")
    plans = []
    for part in re.split(r"^## |^\*\*One demonstration", text, flags=re.M):
        if spans := re.findall(r"^\| (\d+)–(\d+) \|", part, re.M):
            assert all(one[1] == other[0] for one, other in itertools.pairwise(spans)), part[:40]
            plans.append((int(spans[0][0]), int(spans[-1][1])))
    assert plans == [(0, 90)] * 6


def test_exercises_that_the_teaching_page_names():
    text = (ROOT / "solutions" / "TEACHING.md").read_text(encoding="utf-8")
    named = re.findall(r"(ps\d): ((?:`\w+`(?:, )?)+)", text)
    assert len(named) == 4
    for problem_set, names in named:
        source = (ROOT / "solutions" / problem_set / f"{problem_set}.ipynb").read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert f"### {problem_set}.{name} ·" in source, f"{problem_set}.{name}"
