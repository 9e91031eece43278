"""Diagrams: pictures that explain, drawn by code from what they are about. Plain data in, a Figure out."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from visdial_lab.chat import START
from visdial_lab.plots import ACCENT, FAINT, GREEN, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


def _sheet(width: float, height: float) -> tuple["Figure", Any]:
    """An empty white sheet whose coordinates are inches from its lower left corner."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


NOTEBOOKS = {1: "explore", 2: "generate", 3: "fine-tune", 4: "ask, rank", 5: "measure"}
BOX = 0.46, 0.28  # inches: half the width and half the height of a box in the flow of data


def data_flow(highlight: int | None = None) -> "Figure":
    """The course at a glance: boxes are data, arrows are the notebooks that turn one into the next.

    highlight: the number of a notebook (1 to 5), whose arrow stands out.
    """
    if highlight is not None and highlight not in NOTEBOOKS:
        raise ValueError(
            f"there is no notebook {highlight!r}; the course has notebooks 1 to {len(NOTEBOOKS)}"
        )
    figure, axes = _sheet(8.3, 2.7)
    top, middle, bottom = 2.0, 1.0, 0.22
    source, train, output = "VisDial JSON\n+ pictures", "dialogs\nof train", "answers,\nranks"
    places = [0.57 + 1.432 * column for column in range(6)]
    for x, text in zip(places, (source, train, "records\n.jsonl", "adapter", output, "metrics"), strict=True):
        _box(axes, x, top, text)
    _box(axes, places[1], middle, "dialogs of val\n(our story)")
    _box(axes, places[2], middle, "Gemma-3,\nbase model")

    def color(number: int) -> str:
        return ACCENT if number == highlight else FAINT

    edge, high = BOX
    for number, (left, right) in enumerate(itertools.pairwise(places), 1):
        _arrow(axes, [(left + edge, top), (right - edge, top)], color(number))
    _arrow(axes, [(places[0], top - high), (places[0], middle), (places[1] - edge, middle)], color(1))
    between = (places[2] + places[3]) / 2
    _arrow(axes, [(places[2] + edge, middle), (between, middle), (between, top - 0.17)], color(3))
    seen = places[4] - 0.2
    _arrow(axes, [(between, middle), (seen, middle), (seen, top - high)], color(4))
    asked = [(places[1], middle - high), (places[1], bottom), (places[4] + 0.15, bottom)]
    _arrow(axes, [*asked, (places[4] + 0.15, top - high)], color(4))
    _arrow(axes, [asked[-1], (places[5], bottom), (places[5], top - high)], color(5))
    for x, y, text in (
        ((between + seen) / 2, middle, "before fine-tuning"),
        (between, bottom, "val: asked, never trained on"),
        (places[5] - 0.64, bottom, "human answers"),
    ):
        axes.text(x, y + 0.06, text, ha="center", va="bottom", fontsize=7.5, color=INK, style="italic")
    for number, verb in NOTEBOOKS.items():
        x = (places[number - 1] + places[number]) / 2
        disc = {"boxstyle": "circle,pad=0.28", "fc": color(number), "ec": "white", "lw": 1.5}
        bold = {"ha": "center", "va": "center", "weight": "bold", "fontsize": 9}
        axes.text(x, top, f"{number}", color="white", bbox=disc, **bold)
        ink = {"color": ACCENT} if number == highlight else {"color": INK, "weight": "normal"}
        axes.text(x, top + 0.41, verb, **bold | ink)
    return figure


def _box(axes: Any, x: float, y: float, text: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    shape, (edge, high) = "round,pad=0,rounding_size=0.08", BOX
    axes.add_patch(
        FancyBboxPatch(
            (x - edge, y - high), 2 * edge, 2 * high, shape, fc="#f5f7fa", ec=FAINT, lw=1, zorder=2
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=8.5, color=INK, zorder=3)


def _arrow(axes: Any, points: Sequence[tuple[float, float]], color: str) -> None:
    """A line through the points with a head at its end; a coloured one lies over the faint ones."""
    order = 1 if color == FAINT else 1.5
    axes.plot(*zip(*points[:-1], strict=True), color=color, lw=1.6, zorder=order, solid_joinstyle="round")
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", points[-1], points[-2], arrowprops=style, zorder=order)


def token_layout(pairs: Sequence[tuple[str, bool]], picture: "Image | None" = None) -> "Figure":
    """A dialog as the model reads it: a line a round, each token a box, blue where it carries loss.

    pairs: (token, does it carry loss?) as `chat.supervised_tokens` gives them. The numbers on the left are
    the position of each line's first token. picture: shown in as many pieces as it has tokens.
    """
    lines = list(_token_lines(pairs))
    pieces = sum(token == PICTURE_TOKEN for token, _ in pairs)
    learnt = sum(is_learnt for _, is_learnt in pairs)
    share = f"{learnt / max(1, len(pairs)):.0%} of all {len(pairs)}"
    legend = {
        "picture": ("#d7eee1", GREEN, f"{pieces} tokens: the picture, piece by piece, row by row"),
        "read": ("#f3f5f8", "#d5dae2", f"{len(pairs) - pieces - learnt} tokens are read only"),
        "loss": ("#cfdff9", ACCENT, f"{learnt} tokens carry loss, {share}"),
    }
    shown = [kind for kind in legend if pieces or kind != "picture"]
    left, row, head = 0.96, 0.235, 1.5 if picture is not None and pieces else 0.15 + 0.3 * len(shown)
    height = head + 0.12 + row * len(lines)
    figure, axes = _sheet(8.3, height)
    beside = left
    if picture is not None and pieces:
        _pieces(axes, picture, pieces, (left, height - head + 0.1, head - 0.2))
        beside += head
    for place, kind in enumerate(shown):
        fill, rim, text = legend[kind]
        y = height - 0.25 - 0.3 * place
        _token(axes, beside, y, 0.26, fill, rim, "")
        axes.text(beside + 0.36, y, text, va="center", fontsize=9, color=INK)
    axes.text(left - 0.1, height - head + 0.08, "position", ha="right", fontsize=7.5, color="#6b7482")
    for place, (name, position, boxes) in enumerate(lines):
        y = height - head - 0.02 - row * (place + 0.5)
        axes.text(0.08, y, name, va="center", fontsize=8, color=INK)
        axes.text(left - 0.1, y, f"{position}", va="center", ha="right", fontsize=7.5, color="#6b7482")
        for x, width, text, kind in boxes:
            _token(axes, left + x, y, width, *legend[kind][:2], text)
    return figure


PICTURE_TOKEN = "<image_soft_token>"  # Gemma's name for one piece of the picture
LETTER, LONGEST = 0.0588, 7.26  # inches: a letter of the font that tokens are written in, the longest line


def _token_lines(pairs: Sequence[tuple[str, bool]]) -> Iterator[tuple[str, int, list]]:
    """(name, position of its first token, boxes) for each line; "" is the name of one that goes on.

    A box is (x, width, text, kind); all the tokens of a picture are one box.
    """
    for name, start, stop in _sections([token for token, _ in pairs]):
        boxes: list[tuple[float, float, str, str]] = []
        position, x = start, 0.0
        for place, token, times, is_learnt in folded(pairs[start:stop]):
            text = token.strip(" ").replace("\n", "↵") or "·"
            shown = f"{times} × {text}" if times > 1 else text
            width = LETTER * len(shown) + 0.04
            if boxes and x + width > LONGEST:
                yield name, position, boxes
                name, position, x, boxes = "", start + place, 0.0, []
            kind = "picture" if token == PICTURE_TOKEN else "loss" if is_learnt else "read"
            boxes.append((x, width, shown, kind))
            x += width + 0.015
        yield name, position, boxes


def folded(pairs: Iterable[tuple[str, bool]]) -> Iterator[tuple[int, str, int, bool]]:
    """(position, token, times, does it carry loss?): one entry for the many tokens of a picture, as for any
    token that comes more than three times running."""
    place = 0
    for (token, is_learnt), own in itertools.groupby(pairs):
        times = len(list(own))
        for offset in range(1 if times > 3 else times):
            yield place + offset, token, times if times > 3 else 1, is_learnt
        place += times


def _sections(tokens: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(name, start, stop): the picture and the caption, if there is a picture, then round by round."""
    starts = [0, *[place for place, token in enumerate(tokens) if token == START][2::2], len(tokens)]
    if PICTURE_TOKEN in tokens:  # with the end of the picture and the line breaks behind it
        caption = len(tokens) - tokens[::-1].index(PICTURE_TOKEN) + 1
        while caption < len(tokens) and not tokens[caption].strip():
            caption += 1
        starts[0] = caption + 1 + tokens[caption:].index("\n") if "\n" in tokens[caption:] else caption
        yield "picture", 0, caption
        yield "caption", caption, starts[0]
    for number, (start, stop) in enumerate(itertools.pairwise(starts), 1):
        yield f"round {number}", start, stop


def _token(axes: Any, x: float, y: float, width: float, fill: str, rim: str, text: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y - 0.09), width, 0.18, fc=fill, ec=rim, lw=0.7))
    words = {"family": "monospace", "fontsize": 7, "color": INK, "parse_math": False}  # "$" is a dollar
    axes.text(x + width / 2, y, text, ha="center", va="center", **words)


def _pieces(axes: Any, picture: "Image", pieces: int, place: tuple[float, float, float]) -> None:
    """The picture, cut as the vision tower's tokens cut it. place: x, y of its corner and its size."""
    x, y, size = place
    axes.imshow(picture.resize((256, 256)), extent=(x, x + size, y, y + size), zorder=1)
    side = round(pieces**0.5)
    if side**2 == pieces:
        cuts = [size * cut / side for cut in range(side + 1)]
        axes.vlines([x + cut for cut in cuts], y, y + size, color=INK, lw=0.5, alpha=0.4)
        axes.hlines([y + cut for cut in cuts], x, x + size, color=INK, lw=0.5, alpha=0.4)
    axes.set(xlim=(0, axes.figure.get_figwidth()), ylim=(0, axes.figure.get_figheight()), aspect="auto")


def lora_update(rows: int, columns: int, r: int) -> "Figure":
    """LoRA's update of one matrix as blocks to scale: W stays frozen, B times A is learned beside it.

    rows, columns: the shape of W; r: the rank. Numbers are counted below each block.
    Raises ValueError for a size or rank below 1.
    """
    from matplotlib.patches import Rectangle

    if min(rows, columns, r) < 1:
        raise ValueError(f"rows, columns and r should be 1 or more, are {rows}, {columns}, {r}")
    scale = min(1.7 / max(rows, r), 2.6 / max(columns, r))  # inches a number
    wide, high = columns * scale, rows * scale
    thin = max(r * scale, 0.03)  # a rank of 16 in thousands would be finer than a pixel
    frozen, learned = ("#e3e7ee", FAINT), ("#b9cdf3", ACCENT)
    blocks = (  # after which sign, name, shape, inches, look
        ("", "W", (rows, columns), (wide, high), frozen),
        (r"$+\ \frac{\alpha}{r}$", "B", (rows, r), (thin, high), learned),
        ("·", "A", (r, columns), (wide, thin), learned),
    )
    room = [max(width, 1.2) for *_, (width, _), _ in blocks]  # what is written below must fit
    figure, axes = _sheet(0.2 + sum(room) + 2 * 0.5 + 0.2, max(high, thin) + 1.15)
    left, middle = 0.2, 0.78 + max(high, thin) / 2
    for space, (sign, name, (m, n), (width, height), (fill, edge)) in zip(room, blocks, strict=True):
        if sign:
            axes.text(left + 0.25, middle, sign, ha="center", va="center", fontsize=14, color=INK)
            left += 0.5
        x, top = left + space / 2, middle + height / 2
        axes.add_patch(Rectangle((x - width / 2, top - height), width, height, fc=fill, ec=edge, lw=1.2))
        y = middle if min(width, height) > 0.3 else top + 0.14
        axes.text(x, y, name, ha="center", va="center", fontsize=13, color=INK, style="italic")
        words = f"{m:,} by {n:,}\n{m * n:,} numbers"
        axes.text(x, 0.52, words, ha="center", va="center", fontsize=8.5, color=INK)
        left += space
    share = r * (rows + columns) / (rows * columns)
    words = f"gray: frozen   blue: trained, {share:.1%} as many numbers as W"
    axes.text(figure.get_figwidth() / 2, 0.16, words, ha="center", va="center", fontsize=8.5, color=INK)
    return figure
