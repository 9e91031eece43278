"""Diagrams of ranking: candidates as trees behind one trunk, and what NDCG rewards. As in `diagrams`: plain
data in, here the very data that ranking works with, a Figure out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from visdial_lab.forest import Forest, lay_out, visible
from visdial_lab.plots import ACCENT, GREEN, GRID, INK, ORANGE, OTHER_RUN, RUNS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# --- candidates as trees behind one trunk


def ranking_tree(forest: Forest, texts: Sequence[str]) -> "Figure":
    """A trunk with the trees of a few candidates, and beside it which token may attend to which.

    texts: the token of each node, as the tokenizer has it. The mask is the one that ranking works with: rows
    are the tokens that the model reads behind the trunk, columns what they may see. For some ten of them.
    """
    texts = [text.replace("▁", "").replace("<end_of_turn>", "■") for text in texts]
    titles = "the trunk is read once; candidates are branches", "who may look at what: row looks at column"
    figure, (left, right) = new_figure(10, 5, *titles, width_ratios=(1.2, 1))
    left.axis("off")
    right.axis("off")
    parts = _trunk_parts(forest)
    _draw_trees(left, forest, texts, parts)
    _draw_mask(right, forest, texts, parts)
    return figure


def _trunk_parts(forest: Forest) -> list[tuple[str, int, int]]:
    """(name, first token, behind its last) of the trunk: its picture, and what each root adds to that."""
    kinds = np.asarray(forest.trunk["token_type_ids"])
    edge = int(kinds.nonzero()[0].max()) + 1 if kinds.any() else 0
    parts = [("picture", 0, edge)] if edge else []
    before = 0
    for place, root in zip(forest.places, forest.roots, strict=True):
        opening = f"A{before} … " if before else "caption … " if place else "caption, "
        parts.append((f"{opening}Q{place + 1}", edge, int(root) + 1))
        before, edge = place + 1, int(root) + 1
    return parts


def _draw_trees(axes: Any, forest: Forest, texts: Sequence[str], parts: list) -> None:
    trees, parent = len(forest.places), forest.parent
    children = [[n for n in range(trees, len(parent)) if parent[n] == node] for node in range(len(parent))]
    across = np.zeros(len(parent))
    columns = iter(range(len(parent)))

    def settle(node: int) -> None:
        """Leaves stand side by side, a parent in the middle above its children."""
        for child in children[node]:
            settle(child)
        across[node] = (
            np.mean([across[child] for child in children[node]]) if children[node] else next(columns)
        )

    for root in range(trees):
        settle(root)
    wide = max(across) + 1
    ends = dict(zip([end for _, _, end in parts], np.linspace(0, wide, len(parts) + 1)[1:], strict=True))
    start = 0.0
    for (name, first, end), color in zip(parts, _shades(len(parts)), strict=True):
        width = ends[end] - start
        _box(axes, start - 0.5, -0.34, width - 0.06, 0.68, color)
        label = f"{name}\n{end - first} tokens"
        axes.text(start - 0.5 + width / 2, 0, label, ha="center", va="center", fontsize=8.5, color=INK)
        start = ends[end]
    depth = forest.depth.astype(float) + 0.35
    for root in range(trees):  # where the round's question ends
        across[root], depth[root] = ends[int(forest.roots[root]) + 1] - 0.62, 0.34
    for node in range(trees, len(parent)):
        above = parent[node]
        color = _tree_color(int(forest.tree[node]))
        axes.plot(across[[above, node]], depth[[above, node]], color=color, lw=1.4, zorder=0)
        leaf = not children[node]
        ground = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": color, "lw": 1.3}
        style = {"color": color, "fontsize": 11} if leaf else {"color": INK, "fontsize": 9, "bbox": ground}
        axes.text(across[node], depth[node], texts[node], ha="center", va="center", **style)
    axes.set(xlim=(-0.9, wide - 0.3), ylim=(max(depth) + 0.45, -0.6))


def _draw_mask(axes: Any, forest: Forest, texts: Sequence[str], parts: list) -> None:
    length = len(forest.trunk["input_ids"])
    rows = lay_out([forest], length, len(forest.inner))
    count = len(forest.inner)
    allowed = visible(rows, length)[0, :count]  # behind it only padding
    order = forest.inner[np.argsort(_columns(forest), kind="stable")]
    for y, node in enumerate(order):
        color = _tree_color(int(forest.tree[node]))
        for x, (_, first, end) in enumerate(parts):
            _cell(axes, x, y, allowed[y, first:end].mean(), color)
        for x in range(count):
            _cell(axes, len(parts) + x, y, float(allowed[y, length + x]), color)
    names = [name for name, _, _ in parts] + [texts[node] for node in order]
    for x, name in enumerate(names):
        axes.text(x, -0.7, name, rotation=60, ha="left", va="bottom", fontsize=8, color=INK)
    for y, node in enumerate(order):
        axes.text(-0.7, y, texts[node], ha="right", va="center", fontsize=8.5, color=INK)
    axes.plot([len(parts) - 0.5] * 2, [-0.5, count - 0.5], color=INK, lw=1)
    axes.set(xlim=(-3, len(names) + 1), ylim=(count, -4), aspect="equal")


def _columns(forest: Forest) -> np.ndarray:
    """Where `lay_out` puts each inner node in its one row: the longest branch first."""
    starts = np.zeros(len(forest.branches), dtype=int)
    order = np.argsort(-forest.branches, kind="stable")
    starts[order] = np.cumsum(forest.branches[order]) - forest.branches[order]
    within = np.concatenate([np.arange(size) for size in forest.branches])
    return np.repeat(starts, forest.branches) + within


def _tree_color(tree: int) -> str:
    return (ACCENT, ORANGE, GREEN)[tree % 3]


def _shades(count: int) -> list[str]:
    return [GRID if n % 2 == 0 else "#d3d8e0" for n in range(count)]


def _box(axes: Any, x: float, y: float, width: float, height: float, color: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=color, edgecolor="none"))


def _cell(axes: Any, x: int, y: int, share: float, color: str) -> None:
    """A cell of the mask, filled if it may be seen (a part of the trunk: as far as it may)."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, facecolor="#f3f5f8", edgecolor=GRID, lw=0.6))
    if share > 0:
        axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92 * share, 0.92, facecolor=color, edgecolor="none"))


# --- what NDCG rewards


def ndcg_rewards(
    rankings: Mapping[str, Sequence[int]], relevance: Sequence[float], options: Sequence[str]
) -> "Figure":
    """The first k places of each ranking beside the best order: gray what a place is worth, colour what was
    gained there (relevance × worth). NDCG is the coloured length as a share of the best order's.

    rankings: {run: rank from 1 of each option}; relevance, options: of the same round, at least one relevant.
    """
    relevance, k = np.asarray(relevance, dtype=float), int(np.count_nonzero(relevance))
    worth = 1 / np.log2(np.arange(2, k + 2))
    best = np.argsort(-relevance, kind="stable")[:k]
    possible = float(relevance[best] @ worth)
    panels = {name: np.argsort(ranks, kind="stable")[:k] for name, ranks in rankings.items()}
    panels["the best order"] = best
    gained = {name: float(relevance[order] @ worth) for name, order in panels.items()}
    titles = [f"{name}: {gain:.2f} / {possible:.2f} = {gain / possible:.2f}" for name, gain in gained.items()]
    titles[-1] = f"the best order: {possible:.2f}"
    figure, axes = new_figure(3.3 * len(panels), 0.9 + 0.36 * k, *titles)
    for part, (name, order) in zip(axes, panels.items(), strict=True):
        part.barh(range(1, k + 1), worth, color=GRID, height=0.74)
        part.barh(range(1, k + 1), relevance[order] * worth, color=RUNS.get(name, OTHER_RUN)[0], height=0.74)
        for place, (option, value) in enumerate(zip(order, worth, strict=True), 1):
            label = f"{relevance[option]:g} × {value:.2f}"
            part.text(value + 0.03, place, label, va="center", fontsize=8, color=INK)
        part.set_yticks(range(1, k + 1), [_short(options[option]) for option in order])
        part.set(ylim=(k + 0.6, 0.4), xlim=(0, 1.36), xticks=[])
        part.tick_params(length=0, labelsize=8.5, colors=INK)
        part.spines[:].set_visible(False)
    return figure


def _short(text: str, longest: int = 24) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
