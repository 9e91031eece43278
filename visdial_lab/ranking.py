"""Scoring 100 candidate answers for each of ten rounds with one reading of the dialog.

The score of a candidate is Σ log p(token) with its <end_of_turn>, given picture, caption and the rounds
before it. Scoring each candidate in its own forward pass reads the same dialog a thousand times. Here the
dialog (the trunk) is read once, and its keys and values are kept. Candidates are branches that grow out of
it: those of one round form a trie (a tree in which candidates with the same first tokens share them), and a
token of the trie attends to the trunk up to its round's question, to its own ancestors and to itself, at the
position it would have had in its own dialog.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from visdial_lab.chat import (
    answer_ids,
    answer_starts,
    dialog_messages,
    encode,
    input_image,
    pad,
    tokenizer_of,
)
from visdial_lab.errors import UserError
from visdial_lab.visdial import Dialog

if TYPE_CHECKING:
    import torch

_LOGITS_AT_ONCE = 2**26  # numbers in one piece of the table of logits: 256 MB in float32


@dataclasses.dataclass
class Branches:
    """All candidates of one round as a trie. Node 0 is the end of the prompt, the others are tokens."""

    dialog: int  # place in the batch
    root: int  # index in the trunk of the last prompt token, from which first tokens are predicted
    tokens: list[int]  # token of each node (node 0 holds none: 0)
    parents: list[int]  # node before it; a parent always has a smaller number
    depths: list[int]  # distance from the root
    paths: list[list[int]]  # for each candidate, its nodes from first token to <end_of_turn>


def score_dialogs(
    model: Any,
    processor: Any,
    dialogs: Sequence[Dialog],
    blank_image: bool = False,
    batch_size: int = 1,
    length_normalised: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[np.ndarray | None]]:
    """For each dialog, for each round: the score of each option (float64 [options]), None without options.

    blank_image: score with a gray picture. batch_size: dialogs read at once. length_normalised: mean instead
    of sum over the tokens. progress(done, total) is called after each batch, in dialogs.
    Raises UserError for an empty candidate, a dialog longer than the model can read, and scores that are not
    numbers.
    """
    import torch

    scores: list[list[np.ndarray | None]] = []
    with torch.inference_mode():
        for start in range(0, len(dialogs), batch_size):
            batch = [dialogs[i] for i in range(start, min(start + batch_size, len(dialogs)))]
            scores += _score_batch(model, processor, batch, blank_image, length_normalised)
            if progress is not None:
                progress(len(scores), len(dialogs))
    return scores


def _score_batch(
    model: Any, processor: Any, dialogs: list[Dialog], blank_image: bool, length_normalised: bool
) -> list[list[np.ndarray | None]]:
    examples = [
        encode(
            processor,
            dialog_messages(dialog, upto=len(dialog.rounds)),
            input_image(processor, dialog, blank_image),
            add_generation_prompt=True,
        )
        for dialog in dialogs
    ]
    branches = list(_grow(model, processor, dialogs, examples))
    scores: list[list[np.ndarray | None]] = [[None] * len(dialog.rounds) for dialog in dialogs]
    if branches:
        logprobs = _node_logprobs(model, pad(processor, examples), [branch for _, branch in branches])
        for (place, branch), nodes in zip(branches, logprobs, strict=True):
            summed = np.array([nodes[path].sum() for path in branch.paths])
            if length_normalised:
                summed /= [len(path) for path in branch.paths]
            if not np.isfinite(summed).all():
                option = int(np.flatnonzero(~np.isfinite(summed))[0])
                where = f"dialog {dialogs[branch.dialog].image_id}, round {place + 1}, option {option}"
                raise UserError(
                    f"{where}: the score is {summed[option]}; the weights are damaged, or the precision is "
                    "too low (try bf16 or float32)"
                )
            scores[branch.dialog][place] = summed
    return scores


def _grow(
    model: Any, processor: Any, dialogs: list[Dialog], examples: list[dict]
) -> Iterator[tuple[int, Branches]]:
    """(place of the round in its dialog, its trie) for every round that has options."""
    limit = model.config.get_text_config().max_position_embeddings
    for number, (dialog, example) in enumerate(zip(dialogs, examples, strict=True)):
        starts = answer_starts(tokenizer_of(processor), example["input_ids"].tolist())
        for place, turn in enumerate(dialog.rounds):
            if turn.options is None:
                continue
            where = f"dialog {dialog.image_id}, round {turn.round_id}"
            for option, text in enumerate(turn.options):
                if not text.strip():
                    raise UserError(f"{where}: option {option} is empty; every candidate needs some text")
            branch = _trie(answer_ids(processor, turn.options), number, starts[place] - 1)
            if branch.root + max(branch.depths) >= limit:
                raise UserError(
                    f"{where}: {branch.root + max(branch.depths) + 1} tokens, the model reads {limit}"
                )
            yield place, branch


def _trie(candidates: list[list[int]], dialog: int, root: int) -> Branches:
    """Candidates as token ids → the tree in which equal beginnings are one path."""
    branch = Branches(dialog, root, tokens=[0], parents=[0], depths=[0], paths=[])
    known: dict[tuple[int, int], int] = {}
    for candidate in candidates:
        node, path = 0, []
        for depth, token in enumerate(candidate, 1):
            child = known.setdefault((node, token), len(branch.tokens))
            if child == len(branch.tokens):
                branch.tokens.append(token)
                branch.parents.append(node)
                branch.depths.append(depth)
            path.append(child)
            node = child
        branch.paths.append(path)
    return branch


def _node_logprobs(model: Any, batch: dict, branches: list[Branches]) -> list[np.ndarray]:
    """log p(token of each node | everything before it), float64 [nodes] for each trie (0 for the root).

    Two passes over the same layers: the trunks [B, T], whose keys and values are kept, then one row a round
    [R, N] that reads its dialog's. Only inner nodes are fed in; an <end_of_turn> is predicted, never read.
    """
    import torch
    from transformers import DynamicCache

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside a PEFT wrapper
    text_model, head = causal.get_decoder(), causal.get_output_embeddings()
    device = head.weight.device
    cache = DynamicCache()  # without a config it keeps whole sequences, also for sliding-window layers
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    trunk = causal.base_model(**batch, past_key_values=cache, use_cache=True).last_hidden_state  # [B, T, D]
    rows = torch.tensor([branch.dialog for branch in branches], device=device)
    cache.batch_select_indices(rows)

    inner = [sorted(set(branch.parents)) for branch in branches]  # root first, then the nodes with children
    ids, positions, sees = _rows(branches, inner, trunk.shape[1])
    positions = positions.to(device)
    trunk_positions = torch.arange(trunk.shape[1], device=device).expand(len(branches), -1)
    distance = positions[:, :, None] - torch.cat([trunk_positions, positions], 1)[:, None, :]  # [R, N, T + N]
    sees = sees.to(device)
    window = causal.config.get_text_config().sliding_window
    hidden = text_model(
        input_ids=ids.to(device),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        attention_mask={
            "full_attention": _additive(sees, trunk.dtype),
            "sliding_attention": _additive(sees & (distance < window), trunk.dtype),
        },
    ).last_hidden_state  # [R, N, D]
    roots = torch.tensor([branch.root for branch in branches], device=device)
    hidden = torch.cat([trunk[rows, roots][:, None], hidden], 1)  # [R, 1 + N, D], column = place in `inner`
    return _predict(hidden, head, branches, inner)


def _rows(branches: list[Branches], inner: list[list[int]], trunk_length: int) -> tuple:
    """Token ids and positions [R, N] of the inner nodes, and what each may see [R, N, T + N], padded."""
    import torch

    width = max(1, max(len(nodes) for nodes in inner) - 1)
    ids, positions = np.zeros((2, len(branches), width), dtype=np.int64)
    sees = np.zeros((len(branches), width, trunk_length + width), dtype=bool)
    sees[:, :, trunk_length:] = np.eye(width, dtype=bool)  # itself; padding sees nothing else
    for row, (branch, nodes) in enumerate(zip(branches, inner, strict=True)):
        column = {node: place for place, node in enumerate(nodes[1:])}
        ids[row, : len(column)] = [branch.tokens[node] for node in column]
        positions[row, : len(column)] = [branch.root + branch.depths[node] for node in column]
        sees[row, : len(column), : branch.root + 1] = True
        for node, place in column.items():
            if branch.parents[node]:  # a parent comes first: what it sees is known already
                sees[row, place, trunk_length:] |= sees[row, column[branch.parents[node]], trunk_length:]
    return torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(sees)


def _additive(sees: "torch.Tensor", dtype: Any) -> "torch.Tensor":
    """What may be seen [R, N, K] → 0 or a huge negative number [R, 1, N, K], which every kind of attention
    adds to its logits."""
    import torch

    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(
        ~sees, torch.finfo(dtype).min
    )[:, None]


def _predict(
    hidden: "torch.Tensor", head: Any, branches: list[Branches], inner: list[list[int]]
) -> list[np.ndarray]:
    """log p of every node from the hidden state of its parent; logits only where a node is predicted."""
    import torch

    rows, columns, tokens = [], [], []
    for row, (branch, nodes) in enumerate(zip(branches, inner, strict=True)):
        column = {node: place for place, node in enumerate(nodes)}
        rows += [row] * (len(branch.tokens) - 1)
        columns += [column[parent] for parent in branch.parents[1:]]
        tokens += branch.tokens[1:]
    places = torch.tensor([rows, columns], device=hidden.device)
    # Siblings are predicted by the same hidden state: compute its logits once.
    states, which = torch.unique(places, dim=1, return_inverse=True)
    targets = torch.tensor(tokens, device=hidden.device)
    found = torch.empty(len(tokens), dtype=torch.float64)
    step = max(1, _LOGITS_AT_ONCE // head.weight.shape[0])
    for start in range(0, states.shape[1], step):
        part = states[:, start : start + step]
        logits = head(hidden[part[0], part[1]]).float()  # [step, V]
        norms = logits.logsumexp(-1)
        here = ((which >= start) & (which < start + step)).nonzero().squeeze(1)
        local = which[here] - start
        found[here.cpu()] = (logits[local, targets[here]] - norms[local]).double().cpu()
    pieces = np.split(found.numpy(), np.cumsum([len(branch.tokens) - 1 for branch in branches])[:-1])
    return [np.concatenate([[0.0], piece]) for piece in pieces]


def iter_scores(
    model: Any,
    processor: Any,
    dialogs: Sequence[Dialog],
    *,
    blank_image: bool = False,
    length_normalised: bool = False,
    memory: int | None = None,
    on_bad: Callable[[int, UserError], None] | None = None,
) -> Iterator[tuple[int, list[np.ndarray | None]]]:
    """(index, scores of each round) of each dialog when it is done; bad ones go to `on_bad` if given."""
    import torch

    for index, dialog in enumerate(dialogs):
        try:
            with torch.inference_mode():
                [scores] = _score_batch(model, processor, [dialog], blank_image, length_normalised)
        except UserError as error:
            if on_bad is None:
                raise
            on_bad(index, error)
            continue
        yield index, scores
