"""The Korean course, made from the English one and a catalogue: `python tests/translate_notebooks.py`.

    python tests/translate_notebooks.py             write notebooks/ko/*.ipynb and README.ko.md
    python tests/translate_notebooks.py --update    before that, when English has changed: renew the catalogue
    python tests/translate_notebooks.py --check     exit code 1, and a line for each place out of step

A catalogue has a section for each markdown cell (of the README: for each heading): its key, the English as a
quotation, the Korean. Only the Korean is written by hand; notebooks/ko/catalogue/README.md says how.
Code cells and outputs are taken from the English notebooks as they are.
"""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from translation_rules import broken_rules, shunned_words

from visdial_lab.files import write_text

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"^<!-- ([\w.-]+) -->$", re.M)
LANGUAGE_LINK = re.compile(r"^\[한국어\]\([^)]*\)\n\n|(?:&nbsp;|[ ·])*\[한국어\]\([^)]*\)", re.M)
LINK = re.compile(r"(\]\(|src=\")([^)\"\s]+)")
NOTE = "made by tests/translate_notebooks.py; edit the English file or notebooks/ko/catalogue/{}"


@dataclass(frozen=True)
class Section:
    """One piece of prose in both languages; `changes`: how the English moved on since."""

    key: str
    english: str
    korean: str = ""
    changes: str = ""


@dataclass(frozen=True)
class Document:
    """One English file, and where its catalogue and its Korean twin lie."""

    source: Path
    catalogue: Path
    target: Path

    @property
    def is_notebook(self) -> bool:
        return self.source.suffix == ".ipynb"


def documents(root: Path) -> list[Document]:
    """The README and the numbered notebooks of a course folder."""
    ko = root / "notebooks" / "ko"
    found = [Document(root / "README.md", ko / "catalogue" / "00_readme.md", root / "README.ko.md")]
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        found.append(Document(path, ko / "catalogue" / f"{path.stem}.md", ko / path.name))
    return found


def english_texts(document: Document) -> dict[str, str]:
    """What there is to translate, {key: English}: a notebook's markdown cells, a page's sections.

    The link to the Korean twin is left out: it is not to be translated. ValueError for a key used twice.
    """
    text = document.source.read_text(encoding="utf-8")
    if document.is_notebook:
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        pairs = [(cell["id"], "".join(cell["source"])) for cell in cells]
    else:
        parts = re.split(r"^(?=###? )", text, flags=re.M)
        pairs = [(_slug(part) if part.startswith("##") else "top", part.rstrip("\n")) for part in parts]
    texts = {key: LANGUAGE_LINK.sub("", english) for key, english in pairs}
    if len(texts) < len(pairs):
        raise ValueError(f"{document.source.name}: two sections have the same key")
    return texts


def _slug(section: str) -> str:
    heading = section.partition("\n")[0]
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def read_catalogue(path: Path) -> dict[str, Section]:
    """The sections of a catalogue by key, in order; {} when there is no such file yet."""
    if not path.is_file():
        return {}
    _, *parts = MARKER.split(path.read_text(encoding="utf-8"))
    return {key: _read_section(key, body) for key, body in zip(parts[::2], parts[1::2], strict=True)}


def _read_section(key: str, body: str) -> Section:
    lines = body.strip("\n").splitlines()
    end = next((n for n, line in enumerate(lines) if not line.startswith(">")), len(lines))
    english = "\n".join(line[1:].removeprefix(" ") for line in lines[:end])
    rest, changes = "\n".join(lines[end:]).strip("\n"), ""
    if rest.startswith("```diff\n"):
        changes, _, rest = rest.removeprefix("```diff\n").partition("\n```")
    return Section(key, english, rest.strip("\n"), changes)


def catalogue_text(document: Document, sections: list[Section]) -> str:
    """A catalogue as it is written to its file."""
    parts = [f"# {document.source.name}\n"]
    for one in sections:
        quotation = "\n".join(f"> {line}".rstrip() for line in one.english.splitlines())
        changes = f"```diff\n{one.changes}\n```\n\n" if one.changes else ""
        parts.append(f"<!-- {one.key} -->\n{quotation}\n\n{changes}{one.korean}\n".rstrip("\n") + "\n")
    return "\n".join(parts)


def updated(english: dict[str, str], old: dict[str, Section]) -> list[Section]:
    """A catalogue's sections for the English as it is now: new ones empty, changed ones with what changed.

    A section whose key changed and whose text did not keeps its Korean. What the English no longer has comes
    last, for the translator to use or to delete.
    """
    moved = {one.english: one for key, one in old.items() if key not in english}
    sections, used = [], set()
    for key, text in english.items():
        one = old.get(key) or moved.get(text) or Section(key, text)
        used.add(one.key)
        if one.english != text and one.korean:
            changes = "\n".join(filter(None, (one.changes, difference(one.english, text))))
            one = replace(one, changes=changes)
        sections.append(replace(one, key=key, english=text))
    gone = [one for key, one in old.items() if key not in used and key not in english]
    return sections + [one for one in gone if one.korean]


def difference(old: str, new: str) -> str:
    """The sentences that went (-) and came (+)."""
    before, after = (re.split(r"(?<=[.!?|])\s+|\n+", text) for text in (old, new))
    lines = difflib.ndiff(before, after)
    return "\n".join(line.rstrip() for line in lines if line[0] in "+-") or "  only spacing"


def out_of_step(document: Document) -> Iterator[str]:
    """A line for each section that is missing, stale, surplus or not built as its English."""
    english, sections = english_texts(document), read_catalogue(document.catalogue)
    for key, text in english.items():
        one = sections.get(key)
        place = f"{document.catalogue.name}, {key}"
        if one is None or not one.korean:
            yield f"{place}: missing, not translated yet"
        elif one.english != text or one.changes:
            yield f"{place}: stale, the English has changed"
        else:
            yield from (f"{place}: {rule}" for rule in broken_rules(text, one.korean))
    for key in sections:
        if key not in english:
            yield f"{document.catalogue.name}, {key}: surplus, no such English"


def translated(document: Document) -> str:
    """The Korean file as it should be. The catalogue must be complete."""
    sections = read_catalogue(document.catalogue)
    korean = {key: localised(document, sections[key].korean) for key in english_texts(document)}
    first = next(iter(korean))
    title, _, rest = korean[first].partition("\n\n")
    way_up = "" if document.target.parent == document.source.parent else "../"
    link = f"[English]({way_up}{document.source.name})"
    korean[first] = "\n\n".join(filter(None, (title, link, rest)))
    note = NOTE.format(document.catalogue.name)
    if not document.is_notebook:
        return f"<!-- {note} -->\n" + "\n\n".join(korean.values()) + "\n"
    notebook = json.loads(document.source.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = korean[cell["id"]].splitlines(keepends=True)
    notebook["metadata"]["generated"] = note
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def localised(document: Document, text: str) -> str:
    """The text with its links as the Korean twin needs them: it lies deeper, and has Korean neighbours."""

    def mend(match: re.Match) -> str:
        before, target = match.groups()
        target = re.sub(r"\bnotebooks/(?=\d\d_\w+\.ipynb)", "notebooks/ko/", target)  # here and on Colab
        is_relative = not re.match(r"[a-z]+:|[#/]", target)
        if document.is_notebook and is_relative and not re.fullmatch(r"\d\d_\w+\.ipynb(#.*)?", target):
            target = f"../{target}"
        return before + target

    return LINK.sub(mend, text)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--update", action="store_true", help="bring the catalogue up to date with the English"
    )
    choice.add_argument("--check", action="store_true", help="write nothing, say what is out of step")
    options = parser.parse_args(arguments)
    problems = []
    for document in documents(root):
        if options.update:
            sections = updated(english_texts(document), read_catalogue(document.catalogue))
            write_text(document.catalogue, catalogue_text(document, sections))
        found = [*out_of_step(document), *_shunned(document, root)]
        problems += found
        if found or options.update:
            continue
        text = translated(document)
        if not options.check:
            write_text(document.target, text)
        elif not document.target.is_file() or document.target.read_text(encoding="utf-8") != text:
            problems.append(f"{document.target.relative_to(root)}: not what the tool makes; run it")
    if not options.update:
        problems += [f"{path.relative_to(root)}: has no English" for path in _orphans(root)]
    if problems:
        print("\n".join(problems), file=sys.stderr)
    else:
        print("English, catalogue and Korean agree")
    return int(bool(problems))


def _shunned(document: Document, root: Path) -> Iterator[str]:
    glossary = root / "notebooks" / "ko" / "catalogue" / "README.md"
    if glossary.is_file():
        words = shunned_words(glossary.read_text(encoding="utf-8"))
        for key, one in read_catalogue(document.catalogue).items():
            for word in words:
                if word in one.korean:
                    yield f"{document.catalogue.name}, {key}: “{word}”, which the glossary shuns"


def _orphans(root: Path) -> list[Path]:
    known = {path for one in documents(root) for path in (one.target, one.catalogue)}
    ko = root / "notebooks" / "ko"
    files = [*ko.glob("*.ipynb"), *ko.glob("catalogue/[0-9]*.md")]
    return sorted(path for path in files if path not in known)


if __name__ == "__main__":
    sys.exit(main())
