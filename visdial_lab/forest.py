"""Candidates as trees: the 100 answers of a round share the first tokens that are equal (a trie).

A dialog's forest has one tree a round. Its nodes are laid out in rows of equal length, so that a model reads
many trees at once; each node knows which columns of its row hold its ancestors, and so what it may attend to.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from visdial_lab.chat import (
    answer_ids,
    dialog_messages,
    encode,
    input_image,
    pass_reminders,
    prompt_ids,
    said_fields,
)
from visdial_lab.errors import UserError
from visdial_lab.visdial import Dialog, without_history

Known = dict[tuple[str, bool], list[int]]  # (an option, does it stand behind a reminder?) → token ids


@dataclasses.dataclass
class Forest:
    """A dialog made ready for ranking: its trunk, and for each round with options the tree of its candidates.

    Nodes 0 … trees-1 are the roots (each the end of a round's prompt); every other node is a token of one or
    more candidates. A parent's number is smaller than its children's.
    """

    trunk: dict[str, Any]  # what `encode` gives for the whole dialog
    places: list[int]  # [trees] the round that each tree belongs to, from 0
    roots: np.ndarray  # [trees] index in the trunk of the last prompt token
    tree: np.ndarray  # [nodes] the tree that a node is part of
    token: np.ndarray  # [nodes] 0 for a root
    parent: np.ndarray  # [nodes] a root is its own
    depth: np.ndarray  # [nodes] 0 for a root
    inner: np.ndarray  # nodes with children, without roots, branch by branch: those that a model reads
    branches: np.ndarray  # how many inner nodes each branch has: all that follow one first token of a round
    paths: np.ndarray  # [candidates, longest] the nodes of each, first token to <end_of_turn>; else zeros
    lengths: np.ndarray  # [candidates] tokens of each

    @property
    def size(self) -> int:
        """How many tokens a model reads for it."""
        return len(self.trunk["input_ids"]) + len(self.inner)


def grow(
    processor: Any,
    dialog: Dialog,
    said: Sequence[str],
    limit: int,
    known: Known,
    blank_image: bool = False,
    history: bool = True,
) -> Forest:
    """The forest of a dialog. Raises UserError naming dialog, round and option of what is wrong.

    said: what the model says in each round, for its reminders. limit: how many tokens it reads.
    known: token ids of options met before; in VisDial the same answers come again and again.
    history: False makes a trunk of picture and caption alone, and each round's question a part of its tree.
    """
    reminders = [said_fields(text).get("reminder") for text in said]
    image = input_image(processor, dialog, blank_image)
    asked: list[list[int]] = [[] for _ in dialog.rounds]  # what stands between trunk and candidates
    if history:
        messages = dialog_messages(dialog, len(dialog.rounds), reminders)
        trunk = encode(processor, messages, image, add_generation_prompt=True)
        starts = pass_reminders(processor, trunk, reminders)
    else:
        trunk, asked = _apart(processor, dialog, image, reminders)
        starts = [len(trunk["input_ids"])] * len(dialog.rounds)
    places = [place for place, turn in enumerate(dialog.rounds) if turn.options is not None]
    options = [dialog.rounds[place].options for place in places]
    for place, texts in zip(places, options, strict=True):
        for option, text in enumerate(texts):
            if not text.strip():
                where = f"dialog {dialog.image_id}, round {place + 1}"
                raise UserError(f"{where}: option {option} is empty; every candidate needs some text")
    recalled = [reminders[place] is not None for place in places]
    needed = {(text, own) for texts, own in zip(options, recalled, strict=True) for text in texts}
    for behind in (False, True):
        new = sorted(text for text, own in needed - known.keys() if own == behind)
        ids = answer_ids(processor, new, behind) if new else []
        known.update(zip(((text, behind) for text in new), ids, strict=True))
    candidates = [
        [asked[place] + known[text, own] for text in texts]
        for place, texts, own in zip(places, options, recalled, strict=True)
    ]
    forest = plant(candidates, np.array(starts, dtype=int)[places] - 1, trunk, places)
    before = np.repeat([len(asked[place]) for place in places], [len(own) for own in candidates])
    forest.paths[np.arange(forest.paths.shape[1]) < before[:, None]] = 0  # a question is read, not scored
    forest.lengths = forest.lengths - before
    last = forest.roots[forest.tree] + forest.depth  # position of each node
    if last.max(initial=0) >= limit:
        place = places[forest.tree[last.argmax()]]
        where = f"dialog {dialog.image_id}, round {place + 1}"
        raise UserError(f"{where}: {last.max() + 1} tokens, the model reads {limit}")
    return forest


def _apart(
    processor: Any, dialog: Dialog, image: Any, reminders: Sequence[str | None]
) -> tuple[dict[str, Any], list[list[int]]]:
    """(what the prompts of all rounds begin with, the rest of each), when no round knows those before it."""
    import torch

    dialog_messages(dialog, len(dialog.rounds))  # it names the round in which something is wrong
    alone, prompts = [dialog_messages(one, 1) for one in without_history(dialog)], []
    for messages, reminder in zip(alone, reminders, strict=True):
        ids = torch.tensor(prompt_ids(processor, messages))
        prompt = {"input_ids": ids, "token_type_ids": torch.zeros_like(ids)}
        pass_reminders(processor, prompt, [reminder])
        prompts.append(prompt["input_ids"].tolist())
    columns = zip(*prompts, strict=False)  # token by token, as long as all prompts have one
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    trunk = encode(processor, alone[0], image, add_generation_prompt=True)
    for name in ("input_ids", "token_type_ids", "supervised"):
        trunk[name] = trunk[name][:shared]
    return trunk, [ids[shared:] for ids in prompts]


def plant(
    candidates: list[list[list[int]]], roots: np.ndarray, trunk: dict[str, Any], places: list[int]
) -> Forest:
    """Token ids of each candidate of each round → the trees in which equal beginnings are one path.

    Level by level: the new nodes are the different pairs (node reached so far, next token).
    """
    reached = np.repeat(np.arange(len(candidates)), [len(own) for own in candidates])
    flat = [candidate for own in candidates for candidate in own]
    lengths = np.array([len(candidate) for candidate in flat], dtype=int)
    tokens = np.zeros((len(flat), lengths.max(initial=0)), dtype=int)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = list(itertools.chain(*flat))
    paths, size = np.zeros_like(tokens), tokens.max(initial=0) + 1
    tree = parent = np.arange(len(candidates))
    token, depth = np.zeros((2, len(candidates)), dtype=int)
    for level in range(tokens.shape[1]):
        alive = lengths > level
        pairs, which = np.unique(reached[alive] * size + tokens[alive, level], return_inverse=True)
        before = pairs // size
        reached[alive] = paths[alive, level] = len(parent) + which
        tree, parent = np.append(tree, tree[before]), np.append(parent, before)
        token, depth = np.append(token, pairs % size), np.append(depth, np.full(len(pairs), level + 1))
    first = np.arange(len(parent))  # [nodes] the first token of the branch that a node is part of
    for _ in range(tokens.shape[1]):
        first = np.where(parent[first] < len(candidates), first, parent[first])
    inner = np.unique(parent[len(candidates) :])
    inner = inner[inner >= len(candidates)]
    inner = inner[np.argsort(first[inner], kind="stable")]
    branches = np.unique(first[inner], return_counts=True)[1]
    return Forest(trunk, places, roots, tree, token, parent, depth, inner, branches, paths, lengths)


@dataclasses.dataclass
class Rows:
    """The inner nodes of some forests, in rows of equal length that hold whole branches of one dialog.

    Hidden states are counted through the trunks [B, T] first, then through the rows [R, N].
    """

    dialogs: np.ndarray  # [R] number of the forest
    ids: np.ndarray  # [R, N] token; 0 in the padding
    positions: np.ndarray  # [R, N] position in the candidate's own dialog
    roots: np.ndarray  # [R, N] last index of the trunk that may be seen
    ancestors: np.ndarray  # [R, N, depth] columns of the node itself and of its ancestors
    nodes: np.ndarray  # [M] every node that is predicted, counted through the forests, in order of …
    states: np.ndarray  # [M] … the hidden state that predicts it: its parent's


def lay_out(forests: Sequence[Forest], length: int, width: int) -> Rows:
    """Put each dialog's branches into as few rows as they fit, the longest first, each where it fits first.

    length: T of the trunks. width: N to aim at; rows get shorter when there is less to put into them, and
    longer for a branch that is. T + N becomes a multiple of 8, as fast attention on a GPU wants it.
    """
    largest = max(forest.branches.max(initial=1) for forest in forests)
    width = max(largest, min(width, max(len(forest.inner) for forest in forests)))
    width += -(length + width) % 8
    deepest = max(forest.depth[forest.inner].max(initial=1) for forest in forests)
    dialogs: list[int] = []  # of each row
    slots = []  # of each forest: row * N + column of its inner nodes
    for number, forest in enumerate(forests):
        filled: list[int] = []  # how full each row of this dialog is
        starts = np.zeros(len(forest.branches), dtype=int)
        for branch in np.argsort(-forest.branches, kind="stable"):
            size = forest.branches[branch]
            row = next((row for row, used in enumerate(filled) if used + size <= width), len(filled))
            filled += [0] * (row == len(filled))
            starts[branch] = (len(dialogs) + row) * width + filled[row]
            filled[row] += size
        dialogs += [number] * len(filled)
        first = np.cumsum(forest.branches) - forest.branches
        slots.append(np.repeat(starts - first, forest.branches) + np.arange(len(forest.inner)))
    ids, positions, roots = np.zeros((3, len(dialogs) * width), dtype=int)
    ancestors = np.tile(np.arange(width), len(dialogs))[:, None].repeat(deepest, axis=1)  # padding: itself
    nodes, states, before = [], [], 0
    for number, (forest, slot) in enumerate(zip(forests, slots, strict=True)):
        inner, trees = forest.inner, len(forest.places)
        ids[slot], roots[slot] = forest.token[inner], forest.roots[forest.tree[inner]]
        positions[slot] = roots[slot] + forest.depth[inner]
        state = number * length + forest.roots[forest.tree]  # [nodes] a root's hidden state is its trunk's
        state[inner] = len(forests) * length + slot
        node = inner
        for level in range(deepest):
            ancestors[slot, level] = (state[node] - len(forests) * length) % width  # a slot's column
            above = forest.parent[node]
            node = np.where(above < trees, node, above)  # roots are in the trunk: stop below them
        nodes.append(before + np.arange(trees, len(forest.parent)))
        states.append(state[forest.parent[trees:]])
        before += len(forest.parent)
    nodes, states = np.concatenate(nodes), np.concatenate(states)
    order = np.argsort(states, kind="stable")
    shape = len(dialogs), width
    return Rows(
        np.array(dialogs, dtype=int),
        ids.reshape(shape),
        positions.reshape(shape),
        roots.reshape(shape),
        ancestors.reshape(*shape, deepest),
        nodes[order],
        states[order],
    )


def visible(rows: Rows, length: int) -> np.ndarray:
    """What each token of the rows may attend to, bool [R, N, length + N]: the trunk up to its root, its
    ancestors and itself. To look at; `ranking` makes the same on the model's device.
    """
    count, width = rows.ids.shape
    branches = np.zeros((count, width, width), dtype=bool)
    np.put_along_axis(branches, rows.ancestors, True, axis=2)
    return np.concatenate([np.arange(length) <= rows.roots[..., None], branches], axis=2)
