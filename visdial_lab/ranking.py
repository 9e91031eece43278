"""Scoring 100 candidate answers for each of ten rounds with one reading of the dialog.

The score of a candidate is Σ log p(token) with its <end_of_turn>, given picture, caption and the rounds
before it. Scoring each candidate in its own forward pass reads the same dialog a thousand times. Here the
dialog (the trunk) is read once, and its keys and values are kept. Candidates are branches that grow out of
it: those of one round form a tree in which equal first tokens are one node (a trie), and a node attends to
the trunk up to its round's question, to its own ancestors and to itself, at the position it would have had
in its own dialog.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from visdial_lab.chat import pad
from visdial_lab.decoder import KeysValues, check_config, pieces, run_layers
from visdial_lab.errors import OnBad, UserError
from visdial_lab.forest import Forest, Known, Rows, grow, lay_out
from visdial_lab.models import evaluating, without_wrapper
from visdial_lab.progress import Progress, quiet
from visdial_lab.visdial import Dialog

if TYPE_CHECKING:
    import torch

DialogScores = list[np.ndarray | None]  # float64 [options] for each round, None without options

_LOGITS = 2**26  # numbers in one piece of the table of logits: 256 MB in float32
_ENOUGH = {"cpu": 512, "cuda": 2**15}  # tokens in a forward pass beyond which it only costs more memory
_ROW = {"cpu": 96, "cuda": 256}  # tokens in a row of branches: long rows waste attention, short repeat trunks
_WORTH_COMPILING = 100  # dialogs: fewer are ranked before the kernels would be ready
_READERS = 4  # dialogs read side by side on the CPU: each takes a piece of _LOGITS
_WORKERS = 4  # processes that read pictures and build trees while a GPU computes


def score_dialogs(
    model: Any,
    processor: Any,
    dialogs: Sequence[Dialog],
    *,
    progress: Progress = quiet,
    **options: Any,
) -> list[DialogScores]:
    """All dialogs' scores in order, with the options of `iter_scores`; [] for a dialog that was skipped.

    progress(done, total) is called after each dialog.
    """
    scores: list[DialogScores] = [[] for _ in range(len(dialogs))]
    for done, (number, found) in enumerate(iter_scores(model, processor, dialogs, **options), 1):
        scores[number] = found
        progress(done, len(dialogs))
    return scores


def iter_scores(
    model: Any,
    processor: Any,
    dialogs: Sequence[Dialog],
    *,
    blank_image: bool = False,
    history: bool = True,
    length_normalised: bool = False,
    memory_gb: float | None = None,
    on_bad: OnBad | None = None,
    said: Sequence[Sequence[str]] | None = None,
) -> Iterator[tuple[int, DialogScores]]:
    """Yield (number of a dialog, its scores) for one after the other, as soon as they are there.

    said: of a model in reminder style, what it says in each round (`inference.answer_dialogs`). A candidate
    is then scored behind the model's own reminder of that round; the history holds its own reminders too.
    blank_image: score with a gray picture. history: False scores every round as if it were the dialog's
    first (`visdial.without_history`), still with one reading.
    length_normalised: mean instead of sum over the tokens.
    memory_gb: GiB to use on the GPU beside the weights (None = all that are free). It decides how much is
    computed at once; if it runs out all the same, half as much is tried.
    A model in training mode is put into evaluation mode (no dropout) meanwhile.
    Raises UserError for a missing or damaged picture, an empty candidate, a dialog longer than the model can
    read, and scores that are not numbers. With `on_bad` that is called instead, and the dialog skipped.
    Dialogs that the model has read already are yielded first.
    On the CPU some dialogs are read side by side, each by cores of its own, which then wait less for others.
    """
    check_config(model.config.get_text_config())
    room = _Room(model, memory_gb)
    fast = model.device.type == "cuda" and len(dialogs) >= _WORTH_COMPILING
    running: list[_Running] = []
    bad: list[tuple[int, UserError]] = []

    def finish(leave: int = 0) -> Iterator[tuple[int, DialogScores]]:
        while len(running) > leave:
            batch, collect = running.pop(0)
            for (number, forest), nodes in zip(batch, collect(), strict=True):
                try:
                    scores = _scores(dialogs[number], forest, nodes, length_normalised)
                except UserError as error:
                    bad.append((number, error))
                else:
                    yield number, scores

    def report() -> None:
        while bad:
            number, error = bad.pop(0)
            if on_bad is None:
                raise error
            on_bad(number, error)

    ready = _ready(model, processor, dialogs, said, blank_image=blank_image, history=history)
    with evaluating(model), _threads(model, len(dialogs)) as (pool, count):
        for batch in _batches(ready, room, bad):
            if pool is None:
                running += (started := _start(model, processor, batch, room, fast))
                yield from finish(leave=len(started))  # the GPU has these to work on meanwhile
            else:
                running.append((batch, pool.submit(_read_alone, model, processor, batch, room).result))
                yield from finish(leave=count)  # so many are read, and one waits
            if bad:  # that may end the run: nothing that is under way may be lost
                yield from finish()
                report()
        yield from finish()
        report()


def _batches(
    ready: Iterator[tuple[int, Forest | UserError]], room: "_Room", bad: list[tuple[int, UserError]]
) -> Iterator[list[tuple[int, Forest]]]:
    """As many dialogs at a time as there is room for, at least one; those at fault go to `bad`."""
    batch: list[tuple[int, Forest]] = []
    for number, forest in ready:
        if isinstance(forest, UserError):
            bad.append((number, forest))
            continue
        if batch and sum(other.size for _, other in batch) + forest.size > room.tokens:
            yield batch
            batch = []
        batch.append((number, forest))
    if batch:
        yield batch


def _scores(dialog: Dialog, forest: Forest, nodes: np.ndarray, length_normalised: bool) -> DialogScores:
    """Node log-probabilities summed along each candidate's path, by round."""
    summed = nodes[forest.paths].sum(axis=1)
    if length_normalised:
        summed /= forest.lengths
    scores: DialogScores = [None] * len(dialog.rounds)
    start = 0
    for place in forest.places:
        row = summed[start : (start := start + len(dialog.rounds[place].options))]
        if not np.isfinite(row).all():
            option = int(np.flatnonzero(~np.isfinite(row))[0])
            raise UserError(
                f"dialog {dialog.image_id}, round {place + 1}, option {option}: the score is {row[option]}; "
                "the weights are damaged, or the precision is too low (try bf16 or float32)"
            )
        scores[place] = row
    return scores


# --- on the CPU: pictures, tokens and trees


def _ready(
    model: Any, processor: Any, dialogs: Sequence[Dialog], said: Sequence | None, **options: bool
) -> Iterator[tuple[int, Forest | UserError]]:
    """Each dialog's number with its forest, or with what is wrong; for a GPU, processes work ahead."""
    import torch
    from torch.utils.data import DataLoader

    limit = model.config.get_text_config().max_position_embeddings
    workers = _WORKERS if model.device.type == "cuda" and len(dialogs) > 4 * _WORKERS else 0
    yield from DataLoader(
        _Preparation(processor, dialogs, said, limit, model.dtype, options),
        batch_size=None,
        num_workers=workers,
        generator=torch.Generator(),  # its own: whoever ranks while training keeps the numbers drawn there
    )


@dataclasses.dataclass
class _Preparation:
    """The forests of the dialogs, made when asked for: what PyTorch calls a map-style dataset."""

    processor: Any
    dialogs: Sequence[Dialog]
    said: Sequence[Sequence[str]] | None
    limit: int
    dtype: Any
    options: dict[str, bool]  # of `forest.grow`
    known: Known = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.dialogs)

    def __getitem__(self, number: int) -> tuple[int, Forest | UserError]:
        dialog = self.dialogs[number]
        said = [""] * len(dialog.rounds) if self.said is None else self.said[number]
        try:
            forest = grow(self.processor, dialog, said, self.limit, self.known, **self.options)
        except UserError as error:
            return number, error
        if forest.trunk["pixel_values"] is not None:
            forest.trunk["pixel_values"] = forest.trunk["pixel_values"].to(self.dtype)  # half to send
        return number, forest


# --- on the model's device


class _Room:
    """How many tokens go through the model at once: as the memory allows, and less when that was too much."""

    def __init__(self, model: Any, memory_gb: float | None) -> None:
        import torch

        self.tokens = _ENOUGH[model.device.type]
        if model.device.type == "cuda":
            text = model.config.get_text_config()
            kept = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim  # keys and values
            used = 6 * text.intermediate_size + 16 * text.hidden_size  # between two layers, at the peak
            free = torch.cuda.mem_get_info(model.device)[0] if memory_gb is None else memory_gb * 2**30
            self.tokens = min(self.tokens, max(1, int(free) // (2 * (kept + used))))
        self.said = False

    def halve(self) -> None:
        import warnings

        self.tokens //= 2
        if not self.said:
            warnings.warn("the GPU's memory is full: going on with smaller pieces", stacklevel=2)
        self.said = True


@contextlib.contextmanager
def _threads(model: Any, dialogs: int) -> Iterator[tuple[Any, int]]:
    """(threads that read a dialog each, how many): on the CPU some; else (None, 1).

    They share the cores that PyTorch may use.
    """
    import torch

    allowed = torch.get_num_threads()
    count = min(allowed, dialogs, _READERS) if model.device.type == "cpu" else 1
    if count < 2:
        yield None, 1
        return
    share = (allowed // count,)
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=share) as pool:
            yield pool, count
    finally:
        torch.set_num_threads(allowed)  # the matrix library keeps one number for all threads


def _read_alone(model: Any, processor: Any, batch: list[tuple[int, Forest]], room: _Room) -> list[np.ndarray]:
    """What `_read` finds, waited for."""
    import torch

    with torch.inference_mode():  # a setting of the thread
        return _read(model, processor, [forest for _, forest in batch], room.tokens, False)()


_Running = tuple[list[tuple[int, Forest]], Callable[[], list[np.ndarray]]]


def _start(
    model: Any, processor: Any, batch: list[tuple[int, Forest]], room: _Room, fast: bool
) -> list[_Running]:
    """Set the device to work; [(dialogs, a function that waits for their results)], one pair if all fits."""
    import torch

    try:
        with torch.inference_mode():
            return [(batch, _read(model, processor, [forest for _, forest in batch], room.tokens, fast))]
    except torch.OutOfMemoryError:
        one_row = len(batch) == 1 and room.tokens <= _ROW[model.device.type]
        if one_row:  # nothing is left to halve
            raise
    room.halve()
    torch.cuda.empty_cache()
    half = -(-len(batch) // 2)
    parts = [part for part in (batch[:half], batch[half:]) if part]
    return [running for part in parts for running in _start(model, processor, part, room, fast)]


def _read(
    model: Any, processor: Any, forests: list[Forest], at_once: int, fast: bool
) -> Callable[[], list[np.ndarray]]:
    """A function that waits for log p(token of each node | everything before it), float64 [nodes] a forest.

    Two passes over the same layers: the trunks [B, T], whose keys and values are kept, then rows of branches
    [R, N] that read them. Only inner nodes are fed in: an <end_of_turn> is predicted, never read.
    """
    import torch

    causal = without_wrapper(model)
    piece, head = pieces(fast), causal.get_output_embeddings()
    trunk, kept = _read_trunks(causal, pad(processor, [forest.trunk for forest in forests]), piece)
    rows = lay_out(forests, trunk.shape[1], _ROW[causal.device.type])
    count, width = rows.ids.shape
    words = np.concatenate([forest.token for forest in forests])[rows.nodes]

    def predict(hidden: "torch.Tensor", first: int) -> "torch.Tensor":
        """log p of the nodes that the hidden states first, first + 1, … predict."""
        hidden = hidden.flatten(0, 1)
        low, high = np.searchsorted(rows.states, [first, first + len(hidden)])
        return _predict(head, hidden, rows.states[low:high] - first, words[low:high], piece)

    found = [predict(trunk, 0)]
    step = max(1, at_once // width)
    for start in range(0, count, step):
        hidden = _read_rows(causal, kept, rows, slice(start, start + step), piece)
        found.append(predict(hidden, trunk.shape[0] * trunk.shape[1] + start * width))

    def collect() -> list[np.ndarray]:
        sizes = [len(forest.parent) for forest in forests]
        logprobs = np.zeros(sum(sizes))
        logprobs[rows.nodes] = torch.cat(found).cpu().numpy()
        return np.split(logprobs, np.cumsum(sizes)[:-1])

    return collect


def _read_trunks(causal: Any, inputs: dict, piece: Any) -> tuple["torch.Tensor", list[KeysValues]]:
    """Hidden states [B, T, D] of the padded dialogs, and every layer's keys and values."""
    import torch

    inputs = {name: _send(tensor, causal.device) for name, tensor in inputs.items()}
    hidden = causal.get_input_embeddings()(inputs["input_ids"])
    places = torch.arange(hidden.shape[1], device=hidden.device)
    distance = places[:, None] - places  # [T, T]
    sees = (distance >= 0).expand(len(hidden), -1, -1)
    if "pixel_values" in inputs:
        pictured = inputs["token_type_ids"] == 1
        features = causal.get_image_features(inputs["pixel_values"]).pooler_output.to(hidden.dtype)
        hidden = hidden.masked_scatter(pictured[..., None], features)
        sees = sees | (pictured[:, :, None] & pictured[:, None])  # image tokens see each other both ways
    kept: list[KeysValues] = []

    def keep(layer: int, keys: "torch.Tensor", values: "torch.Tensor") -> KeysValues:
        kept.append((keys, values))
        return keys, values

    positions = places.expand(len(hidden), -1)
    return run_layers(causal.get_decoder(), hidden, positions, sees, distance, keep, piece), kept


def _read_rows(causal: Any, kept: list[KeysValues], rows: Rows, part: slice, piece: Any) -> "torch.Tensor":
    """Hidden states [r, N, D] of some of the rows, each behind its dialog's trunk."""
    import torch

    device, length = causal.device, kept[0][0].shape[2]
    fields = (rows.dialogs, rows.ids, rows.positions, rows.roots, rows.ancestors)
    dialogs, ids, positions, roots, ancestors = (_send(torch.from_numpy(f[part]), device) for f in fields)
    places = torch.arange(length, device=device).expand(len(ids), -1)  # [r, T]
    branches = torch.zeros(*ids.shape, ids.shape[1], dtype=torch.bool, device=device)  # [r, N, N]
    branches.scatter_(2, ancestors, True)
    sees = torch.cat([places[:, None] <= roots[..., None], branches], dim=2)  # [r, N, T + N]
    distance = positions[..., None] - torch.cat([places, positions], dim=1)[:, None]

    def behind_trunk(layer: int, keys: "torch.Tensor", values: "torch.Tensor") -> KeysValues:
        trunk_keys, trunk_values = kept[layer]
        return torch.cat([trunk_keys[dialogs], keys], 2), torch.cat([trunk_values[dialogs], values], 2)

    hidden = causal.get_input_embeddings()(ids)
    return run_layers(causal.get_decoder(), hidden, positions, sees, distance, behind_trunk, piece)


def _predict(
    head: Any, hidden: "torch.Tensor", states: np.ndarray, words: np.ndarray, piece: Any
) -> "torch.Tensor":
    """log p(word | hidden state) for pairs [M], sorted by state; hidden [S, D] → float64 [M].

    Logits are computed in pieces, only of hidden states that predict something, and once for all siblings.
    """
    import torch

    needed, which = np.unique(states, return_inverse=True)
    step = max(1, _LOGITS // len(head.weight))
    starts = range(0, len(needed), step)
    bounds = np.searchsorted(which, [*starts, len(needed)])
    needed, which, words = (_send(torch.from_numpy(array), hidden.device) for array in (needed, which, words))
    found = []
    for start, low, high in zip(starts, bounds[:-1], bounds[1:], strict=True):
        states = hidden[needed[start : start + step]].to(head.weight.dtype)  # Unsloth's float16 keeps float32
        logits = head(states)  # [step, V]
        own = which[low:high] - start
        found.append(logits[own, words[low:high]].float() - piece.log_norm(logits)[own])
    return torch.cat(found).double() if found else hidden.new_empty(0, dtype=torch.float64)


def _send(tensor: "torch.Tensor", device: Any) -> "torch.Tensor":
    """To the device, without waiting for it: a GPU fetches from pinned memory when it comes to that."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
