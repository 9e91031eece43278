"""Diagrams: pictures that explain, drawn by code from what they are about. Plain data in, a Figure out."""

from typing import TYPE_CHECKING, Any

from visdial_lab.plots import ACCENT, FAINT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _sheet(width: float, height: float) -> tuple["Figure", Any]:
    """An empty white sheet whose coordinates are inches from its lower left corner."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


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
