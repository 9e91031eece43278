"""What a Korean text must share with its English: structure, code, links, numbers; and how it has to sound.

Both are parsed as Markdown, so that a `**` that does not close (easily done before a particle) is seen.
"""

import re
from collections import Counter
from collections.abc import Iterator

from markdown_it import MarkdownIt

MARKDOWN = MarkdownIt("commonmark").enable("table")
NUMBER = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
BIG = {"M": 1e6, "million": 1e6, "billion": 1e9, "만": 1e4, "억": 1e8}
ENDING = re.compile(r"\S*[다요죠](?=[.!?](?!\w))")
GOOD_ENDING = re.compile(r"니다$|세요$|(?<!니)까요$|필요$")
NUMBER_WORD = re.compile(
    r"\b(zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|fifty|eighty"
    r"|ninety|hundred|thousand|million|dozen|half|halves|quarter|third|fourth|fifth|tenth|first|second|once|twice"
    r"|both|pairs?)\b"
)


def broken_rules(english: str, korean: str) -> Iterator[str]:
    """A line for each way in which the Korean is not built as the English, or not in the course's tone."""
    ours, theirs = features(english), features(korean)
    for name, wanted in ours.items():
        if theirs[name] != wanted:
            yield f"{name} differ: {_what_differs(wanted, theirs[name])}"
    missing = numbers(english) - numbers(korean)
    surplus = numbers(korean) - numbers(english)
    said_in_words = len(NUMBER_WORD.findall(prose(english).lower()))
    if missing:
        yield f"numbers are missing: {_listed(missing)}"
    if surplus.total() > said_in_words:
        yield f"numbers that the English does not have: {_listed(surplus)}"
    if prose(korean).count("*") > prose(english).count("*"):
        yield "a * is left over: emphasis does not close before a Korean particle behind punctuation"
    if any(paragraph.count("~") > 1 for paragraph in prose(korean).split("\n")):
        yield "two ~ in one paragraph: GitHub strikes out what is between them"
    if re.search("[a-z]{4}", prose(english)) and not re.search("[가-힣]", korean):
        yield "no Korean in it"
    for word in ENDING.findall(prose(korean)):
        if not GOOD_ENDING.search(word):
            yield f"“{word}” is not 합니다-style"


def features(text: str) -> dict[str, Counter]:
    """What can be counted in a Markdown text and is the same in every language."""
    found = {
        name: Counter()
        for name in ("headings", "code spans", "code blocks", "links", "HTML tags", "bold, lists and tables")
    }
    for token in _tokens(text):
        if token.type == "heading_open":
            found["headings"][token.tag] += 1
        elif token.type == "code_inline":
            found["code spans"][token.content] += 1
        elif token.type in ("fence", "code_block"):
            found["code blocks"][_without_comments(token.content)] += 1
        elif token.type in ("link_open", "image"):
            found["links"][token.attrGet("href") or token.attrGet("src")] += 1
        elif token.type in ("html_block", "html_inline"):
            found["HTML tags"].update(re.findall(r"</?\w+", token.content))
        elif token.type in (
            "strong_open",
            "list_item_open",
            "ordered_list_open",
            "tr_open",
            "td_open",
            "th_open",
        ):
            found["bold, lists and tables"][token.type.removesuffix("_open")] += 1
    found["formulas"] = Counter(re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", text))
    found["difficulties"] = Counter(re.findall("[●○]{3}", text))
    return found


def numbers(text: str) -> Counter:
    """The numbers in the prose; “123 million” and “1억 2,300만” are the same one."""
    plain = prose(text)
    found: Counter = Counter()

    def big(match: re.Match) -> str:
        parts = re.findall(r"([\d,.]+)\s?(million|billion|M|만|억)", match.group())
        found[sum(float(number.replace(",", "")) * BIG[unit] for number, unit in parts)] += 1
        return " "

    plain = re.sub(r"\d[\d,.]*\s?(?:million|billion|M)\b|\d[\d,.]*억(?: \d[\d,]*만)?|\d[\d,.]*만", big, plain)
    found.update(float(number.replace(",", "")) for number in NUMBER.findall(plain))
    return found


def prose(text: str) -> str:
    """The text without code, link targets and HTML tags; each paragraph or table cell is a line."""
    parts = []
    for token in _tokens(text):
        if token.type == "inline":
            parts.append("\n")
        elif token.type == "text":
            parts.append(token.content)
        elif token.type in ("html_block", "html_inline"):
            parts.append(re.sub(r"<[^>]*>", " ", token.content))
        else:
            parts.append(" ")
    return "".join(parts)


def shunned_words(glossary: str) -> list[str]:
    """The third column of the glossary's tables: how a term is not to be written (several: with commas)."""
    rows = [line.split("|") for line in glossary.splitlines() if line.startswith("|")]
    cells = [row[3].strip() for row in rows if len(row) > 4 and not set(row[3].strip()) <= set("-:")]
    words = [word.strip() for cell in cells for word in cell.split(",") if cell != cells[0]]
    return [word for word in words if word]


def _tokens(text: str) -> Iterator:
    for token in MARKDOWN.parse(text):
        yield token
        yield from token.children or ()


def _without_comments(code: str) -> str:
    return "\n".join(re.sub(r"(^|\s+)#.*", "", line).rstrip() for line in code.splitlines())


def _what_differs(wanted: Counter, got: Counter) -> str:
    parts = [("missing ", wanted - got), ("surplus ", got - wanted)]
    return "; ".join(word + _listed(some) for word, some in parts if some)


def _listed(some: Counter) -> str:
    return ", ".join(
        f"{one:g}" if isinstance(one, float) else str(one).strip()[:60] for one in some.elements()
    )
