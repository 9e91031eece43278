"""The Korean course is in step with the English one, and the tool that keeps it so sees what is not."""

import json
import re
from pathlib import Path

import pytest
import translate_notebooks as tool
from translation_rules import broken_rules, numbers, shunned_words

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = [document for document in tool.documents(ROOT) if document.is_notebook]
BADGE = "https://colab.research.google.com/github/lab/lab/blob/main/notebooks/"


def names(documents) -> list[str]:
    return [document.source.stem for document in documents]


def test_english_catalogue_and_korean_agree(capsys):
    """What CI is for: change an English cell, and this names it."""
    assert tool.main(["--check"]) == 0, capsys.readouterr().err


def test_all_notebooks_have_a_korean_twin():
    english = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert sorted(path.name for path in (ROOT / "notebooks" / "ko").glob("*.ipynb")) == english


@pytest.mark.parametrize("document", NOTEBOOKS, ids=names(NOTEBOOKS))
def test_only_the_prose_differs(document):
    english, korean = (
        json.loads(path.read_text(encoding="utf-8")) for path in (document.source, document.target)
    )
    korean["metadata"].pop("generated")
    for notebook in (english, korean):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = []
    assert json.dumps(korean) == json.dumps(english)  # and in the same order: nothing but prose in a diff
    assert document.target.stat().st_size <= 600 * 1024


@pytest.mark.parametrize("document", tool.documents(ROOT), ids=names(tool.documents(ROOT)))
def test_links_of_the_korean_files_lead_somewhere(document):
    text = document.target.read_text(encoding="utf-8")
    links = [target for _, target in tool.LINK.findall(text) if re.search(r"\.(ipynb|md|png|svg)$", target)]
    assert links
    for link in links:
        if "/blob/main/notebooks/" in link:  # Colab, Kaggle
            assert (ROOT / link.partition("/blob/main/")[2]) == document.target
        elif not link.startswith("https:"):
            assert (document.target.parent / link).resolve().is_file(), link


@pytest.mark.parametrize("document", tool.documents(ROOT), ids=names(tool.documents(ROOT)))
def test_the_english_leads_to_the_korean_and_back(document):
    there, back = ("ko/", "../") if document.is_notebook else ("", "")
    assert f"[한국어]({there}{document.target.name})" in document.source.read_text(encoding="utf-8")
    assert f"[English]({back}{document.source.name})" in document.target.read_text(encoding="utf-8")


def test_notebooks_find_the_course_from_the_korean_folder(monkeypatch):
    from visdial_lab.files import course_root

    monkeypatch.delenv("VISDIAL_LAB_ROOT", raising=False)
    monkeypatch.chdir(ROOT / "notebooks" / "ko")
    assert course_root() == ROOT


# --- the tool, on a made-up course -------------------------------------------------------------------------


def cell(key: str, text: str, kind: str = "markdown") -> dict:
    extra = {"execution_count": 1, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "id": key, "metadata": {}, "source": text.splitlines(keepends=True)} | extra


def write_notebook(root: Path, *cells: dict) -> None:
    path = root / "notebooks" / "01_one.ipynb"
    path.parent.mkdir(exist_ok=True)
    content = {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content), encoding="utf-8")


OPENING = cell(
    "a", f"# 1 · One\n\n[![badge](b.svg)]({BADGE}01_one.ipynb)\n\nSee `x` and [two](02_two.ipynb)."
)
CODE = cell("b", "x = 1  # a comment stays", "code")
LAST = cell("c", "## The end\n\nTake 3 tokens.")
KOREAN = {
    "top": "# 과정",
    "first": "## 처음\n\n[01](notebooks/01_one.ipynb)을 읽습니다.",
    "a": f"# 1 · 하나\n\n[![badge](b.svg)]({BADGE}01_one.ipynb)\n\n`x`와 [둘](02_two.ipynb)을 봅니다.",
    "c": "## 끝\n\ntoken 3개를 씁니다.",
}


@pytest.fixture
def little(tmp_path) -> Path:
    """A course of a README and a notebook, its catalogue updated and not yet translated."""
    (tmp_path / "README.md").write_text("# Course\n\n## First\n\nRead [01](notebooks/01_one.ipynb).\n")
    write_notebook(tmp_path, OPENING, CODE, LAST)
    tool.main(["--update"], tmp_path)
    return tmp_path


@pytest.fixture
def done(little) -> Path:
    """The same, translated and made."""
    for document in tool.documents(little):
        fill(document, KOREAN)
    assert tool.main([], little) == 0
    return little


def fill(document: tool.Document, korean: dict[str, str]) -> None:
    """What a translator does: write the Korean, take the list of changes out."""
    sections = tool.read_catalogue(document.catalogue).values()
    new = [tool.Section(one.key, one.english, korean.get(one.key, one.korean)) for one in sections]
    document.catalogue.write_text(tool.catalogue_text(document, new), encoding="utf-8")


def complaints(root: Path, capsys) -> list[str]:
    capsys.readouterr()
    code = tool.main(["--check"], root)
    lines = capsys.readouterr().err.splitlines()
    assert code == bool(lines)
    return lines


def test_a_new_catalogue_lacks_everything_and_makes_nothing(little, capsys):
    lines = complaints(little, capsys)
    assert [line.partition(":")[0] for line in lines] == [
        *("00_readme.md, top", "00_readme.md, first", "01_one.md, a", "01_one.md, c")
    ]
    assert tool.main([], little) == 1
    assert not (little / "README.ko.md").exists() and not list(little.glob("notebooks/ko/*.ipynb"))


def test_what_is_made(done, capsys):
    assert complaints(done, capsys) == []
    made = json.loads((done / "notebooks" / "ko" / "01_one.ipynb").read_text(encoding="utf-8"))
    opening = "".join(made["cells"][0]["source"])
    assert opening.startswith("# 1 · 하나\n\n[English](../01_one.ipynb)\n\n")
    assert f"[![badge](../b.svg)]({BADGE}ko/01_one.ipynb)" in opening
    assert "[둘](02_two.ipynb)" in opening  # a neighbour in the same folder
    assert made["cells"][1] == CODE
    page = (done / "README.ko.md").read_text(encoding="utf-8")
    assert "# 과정\n\n[English](README.md)\n\n## 처음" in page and "(notebooks/ko/01_one.ipynb)" in page


def test_a_changed_cell_is_stale_until_the_translator_has_seen_it(done, capsys):
    write_notebook(done, OPENING, CODE, cell("c", "## The end\n\nTake 3 tokens. Or none."))
    assert complaints(done, capsys) == ["01_one.md, c: stale, the English has changed"]
    tool.main(["--update"], done)
    assert complaints(done, capsys) == ["01_one.md, c: stale, the English has changed"]
    catalogue = tool.documents(done)[1].catalogue
    one = tool.read_catalogue(catalogue)["c"]
    assert one.english.endswith("Or none.") and one.korean == KOREAN["c"] and one.changes == "+ Or none."
    tool.main(["--update"], done)  # again: nothing is lost, nothing comes twice
    assert tool.read_catalogue(catalogue)["c"] == one
    fill(tool.documents(done)[1], {"c": KOREAN["c"] + " 안 써도 됩니다."})
    assert tool.main([], done) == 0 and complaints(done, capsys) == []


def test_two_changes_in_a_row_are_both_shown():
    old = {"c": tool.Section("c", "One. Two.", "하나. 둘.")}
    once = tool.updated({"c": "One. Three."}, old)
    [twice] = tool.updated({"c": "One. Four."}, {"c": once[0]})
    assert twice.changes.splitlines() == ["- Two.", "+ Three.", "- Three.", "+ Four."]


def test_new_gone_and_renamed_cells(done, capsys):
    write_notebook(done, OPENING, cell("new", "New text."), CODE, LAST | {"id": "renamed"})
    assert complaints(done, capsys) == [
        "01_one.md, new: missing, not translated yet",
        "01_one.md, renamed: missing, not translated yet",
        "01_one.md, c: surplus, no such English",
    ]
    tool.main(["--update"], done)
    assert complaints(done, capsys) == [
        "01_one.md, new: missing, not translated yet"
    ]  # the renamed one was found
    write_notebook(done, OPENING, CODE)
    tool.main(["--update"], done)
    assert complaints(done, capsys) == ["01_one.md, renamed: surplus, no such English"]  # kept for its Korean


def test_an_edited_product_and_a_file_without_english_are_named(done, capsys):
    with (done / "README.ko.md").open("a", encoding="utf-8") as page:
        page.write("덧붙임\n")
    (done / "notebooks" / "ko" / "09_old.ipynb").write_text("{}")
    assert complaints(done, capsys) == [
        "README.ko.md: not what the tool makes; run it",
        "notebooks/ko/09_old.ipynb: has no English",
    ]


def test_new_outputs_need_no_translator(done, capsys):
    write_notebook(done, OPENING, CODE | {"execution_count": 2}, LAST)
    assert complaints(done, capsys) == ["notebooks/ko/01_one.ipynb: not what the tool makes; run it"]
    assert tool.main([], done) == 0 and complaints(done, capsys) == []


@pytest.mark.parametrize("before", ["\n\n", " · ", "&nbsp;"])
def test_a_link_to_the_korean_twin_is_nothing_to_translate(done, capsys, before):
    text = "".join(OPENING["source"])
    changed = text.replace("01_one.ipynb)", f"01_one.ipynb){before}[한국어](ko/01_one.ipynb)", 1)
    write_notebook(done, cell("a", changed), CODE, LAST)
    assert complaints(done, capsys) == []
    assert "한국어" not in tool.translated(tool.documents(done)[1])


def test_a_catalogue_reads_back_as_written(done):
    english = "> quoted\n\n    code\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    sections = [tool.Section("k", english, "> 인용\n\n나머지", "- a\n+ b"), tool.Section("l", "x")]
    document = tool.documents(done)[1]
    document.catalogue.write_text(tool.catalogue_text(document, sections), encoding="utf-8")
    assert list(tool.read_catalogue(document.catalogue).values()) == sections


def test_sections_with_one_key_are_refused(little):
    (little / "README.md").write_text("# A\n\n## Same\n\n## Same\n")
    with pytest.raises(ValueError, match="same key"):
        tool.english_texts(tool.documents(little)[0])


def test_words_that_the_glossary_shuns(done, capsys):
    glossary = (
        "| English | 표기 | 쓰지 않는 표기 | 비고 |\n|---|---|---|---|\n| token | token | 토큰, 낱말 | |\n"
    )
    assert shunned_words(glossary) == ["토큰", "낱말"]
    (done / "notebooks" / "ko" / "catalogue" / "README.md").write_text(glossary, encoding="utf-8")
    fill(tool.documents(done)[1], {"c": "## 끝\n\n토큰 3개를 씁니다."})
    assert "01_one.md, c: “토큰”, which the glossary shuns" in complaints(done, capsys)


# --- the rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("english", "korean"),
    [
        ("## Two **runs** of `x` in 12 rounds.", "## `x`의 **실행** 두 번, 12라운드."),
        (
            "It has 123 million rows, 9 M of them nine times.",
            "1억 2,300만 행이고 그중 900만은 아홉 번입니다.",
        ),
        ("Seven models read it.", "모델 7개가 읽습니다."),
        ("Try it. Does it work?", "해 보세요. 될까요?"),
        ("    make run   # runs", "    make run   # 실행합니다"),
        (
            "<details><summary>Hint</summary>\n\nUse 2.\n</details>",
            "<details><summary>힌트</summary>\n\n2를 씁니다.\n</details>",
        ),
        ("$$ a + b $$\n\nA sum.", "$$ a + b $$\n\n합입니다."),
    ],
)
def test_good_translations_pass(english, korean):
    assert list(broken_rules(english, korean)) == []


@pytest.mark.parametrize(
    ("english", "korean", "complaint"),
    [
        ("## A", "### 가", "headings differ"),
        ("Use `x`.", "`y`를 씁니다.", "code spans differ: missing x; surplus y"),
        ("    make run", "    make test", "code blocks differ"),
        ("[one](a.md)", "[하나](b.md)", "links differ"),
        ("<details>\nx\n</details>", "<details>\n가", "HTML tags differ"),
        ("- one\n- two", "- 하나", "lists and tables differ"),
        ("**“yes”** it is", "**“yes”**라고 합니다", "bold, lists and tables differ"),
        ("*“yes”* it is", "*“yes”*라고 합니다", "a * is left over"),
        ("$a$ is it", "$b$입니다", "formulas differ"),
        ("**Difficulty** ●●○", "**난이도** ●○○", "difficulties differ"),
        ("12 rounds", "라운드 21개", "numbers are missing: 12"),
        ("Some rounds", "라운드 5개", "numbers that the English does not have: 5"),
        ("from 1 to 2 and 3 to 4", "1~2와 3~4", "two ~"),
        ("nothing done", "nothing done", "no Korean"),
        ("It is done.", "끝났다.", "“끝났다” is not 합니다-style"),
        ("It is done.", "끝났어요.", "“끝났어요” is not 합니다-style"),
        ("It is done.", "끝났으니까요.", "“끝났으니까요” is not 합니다-style"),
    ],
)
def test_bad_translations_are_named(english, korean, complaint):
    assert any(complaint in line for line in broken_rules(english, korean))


def test_numbers_are_read_alike_in_both_languages():
    assert numbers("123 million, 1,160 and 0.5") == numbers("0.5, 1,160, 1억 2,300만")
    assert numbers("`3` is code, [4](5.md) has a 4") == numbers("4 4")
