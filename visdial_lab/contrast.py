"""Learning to choose: for every round the human answer against wrong ones, all in one forward pass.

The usual loss makes the human answer likely; ranking asks that it be likelier than the others. So a second
loss is added: a softmax over the candidates' scores (Σ log p of their tokens, as ranking computes them), and
of that the cross-entropy with the human answer. VisDial's literature calls a model that learns to choose
among candidates discriminative (Das et al. 2017), others call the loss InfoNCE (van den Oord et al. 2018) or
listwise softmax.

As in `ranking` the candidates of a round are a tree behind the dialog (`forest`), in the same sequence here:
T columns of the dialog, then N of nodes, each at the position that it would have in its own dialog.
Memory: a dialog of the 1,851 of real VisDial val has 211 tokens on average (with Gemma's tokenizer, without
a picture); 15 wrong answers to each of its questions add 618 nodes, and so does their sequence grow fourfold.
The two masks take 2 (T + N)² bytes a dialog. Logits are made of the nodes alone, 2**26 numbers at a time
(with their gradients some 1 GB in float32), and made again for the gradient.
"""

import functools
import itertools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from visdial_lab.chat import IGNORED, answer_ids, answer_starts, tokenizer_of
from visdial_lab.forest import lay_out, plant
from visdial_lab.negatives import WrongAnswers

if TYPE_CHECKING:
    import torch

_LOGITS = 2**26  # numbers in one piece of the table of logits: 256 MB in float32


# --- the batch


def add_trees(
    processor: Any, batch: dict[str, Any], candidates: list[dict[int, list[list[int]]]]
) -> dict[str, Any]:
    """A training batch [B, T] of `chat.collator` with the candidates behind its dialogs: [B, T + N].

    candidates: of each dialog {round, from 0: token ids of its candidates}, in all rounds equally many.
    Added are position_ids [B, T + N] and "tree": roots [B, N] (the last column of the dialog that a node
    sees), ancestors [B, N, depth] (columns of the node itself and of those before it, from 0),
    states [M] (place of the hidden state, counted through the batch, that predicts …), words [M] (… this
    token), paths [rounds, candidates, longest] (where in `words` each candidate's tokens are, from 1; 0: no
    token).
    """
    import torch

    count, length = batch["input_ids"].shape
    tokenizer, forests = tokenizer_of(processor), []
    for ids, own in zip(batch["input_ids"].tolist(), candidates, strict=True):
        roots = np.array(answer_starts(tokenizer, ids))[list(own)] - 1
        forests.append(plant(list(own.values()), roots, {}, list(own)))
    rows = lay_out(forests, length, width=sys.maxsize)  # one row for each dialog
    width = rows.ids.shape[1]

    in_tree = rows.states - count * length  # of states in the trees; negative in the dialogs
    states = np.where(
        in_tree < 0,
        rows.states // length * (length + width) + rows.states % length,
        in_tree // width * (length + width) + length + in_tree % width,
    )
    order = np.argsort(states, kind="stable")
    sizes = [len(forest.parent) for forest in forests]
    number = np.zeros(sum(sizes), dtype=int)  # [nodes] place in `words`, from 1; 0 for roots: no tokens
    number[rows.nodes[order]] = np.arange(1, len(order) + 1)
    longest = max(forest.paths.shape[1] for forest in forests)
    paths = [  # padding is node 0: a root
        np.pad(number[forest.paths + before], ((0, 0), (0, longest - forest.paths.shape[1])))
        for forest, before in zip(forests, np.cumsum(sizes) - sizes, strict=True)
    ]
    rounds = sum(len(own) for own in candidates)
    tree = {
        "roots": rows.roots,
        "ancestors": rows.ancestors,
        "states": states[order],
        "words": np.concatenate([forest.token for forest in forests])[rows.nodes[order]],
        "paths": np.concatenate(paths).reshape(rounds, -1, longest),
    }
    added = {"input_ids": torch.from_numpy(rows.ids)}
    added |= {name: torch.zeros_like(added["input_ids"]) for name in batch.keys() & {"token_type_ids"}}
    added["labels"] = torch.full_like(added["input_ids"], IGNORED)
    added["attention_mask"] = (added["input_ids"] != 0).long()  # only counted: see `masks`
    wider = {name: torch.cat([batch[name], columns], dim=1) for name, columns in added.items()}
    dialog = torch.arange(length).expand(count, -1)
    wider["position_ids"] = torch.cat([dialog, torch.from_numpy(rows.positions)], dim=1)
    return batch | wider | {"tree": {name: torch.from_numpy(values) for name, values in tree.items()}}


class Candidates:
    """Adds the candidates of the learnt rounds to a batch; remembers token ids of answers met before."""

    def __init__(self, processor: Any, wrong: WrongAnswers) -> None:
        self._processor, self._wrong = processor, wrong
        self._known: dict[str, list[int]] = {}  # in VisDial the same answers come again and again

    def __call__(self, batch: dict[str, Any], numbers: list[int]) -> dict[str, Any]:
        """numbers: which records the rows of the batch are."""
        drawn = [self._wrong.candidates(number) for number in numbers]
        texts = {text for own in drawn for candidates in own.values() for text in candidates}
        new = sorted(texts - self._known.keys())
        if new:
            self._known.update(zip(new, answer_ids(self._processor, new), strict=True))
        ids = [
            {place: [self._known[text] for text in candidates] for place, candidates in own.items()}
            for own in drawn
        ]
        return add_trees(self._processor, batch, ids)


# --- the model


def masks(
    config: Any, positions: "torch.Tensor", tree: dict, pictured: "torch.Tensor | None"
) -> dict[str, "torch.Tensor"]:
    """{kind of layer: which columns each one attends to, bool [B, 1, T + N, T + N]}, as Gemma-3 wants it.

    In the dialog that is every column before, and within the picture both ways (`pictured` [B, T + N]); a
    node sees the dialog up to its root, its ancestors and itself. The window of sliding layers is one of
    positions. Padding is seen by nothing but padding.
    """
    import torch

    roots, ancestors = tree["roots"], tree["ancestors"]
    count, width = roots.shape
    length = positions.shape[1] - width
    places = torch.arange(length, device=positions.device)
    sees = torch.zeros(count, *[length + width] * 2, dtype=torch.bool, device=positions.device)
    sees[:, :length, :length] = places[:, None] >= places
    if pictured is not None:
        sees |= pictured[:, :, None] & pictured[:, None]
    sees[:, length:, :length] = places <= roots[..., None]
    sees[:, length:, length:].scatter_(2, ancestors, True)
    near = sees & (positions[:, :, None] - positions[:, None] < config.sliding_window)
    return {"full_attention": sees[:, None], "sliding_attention": near[:, None]}


def candidate_scores(head: Any, hidden: "torch.Tensor", tree: dict) -> "torch.Tensor":
    """Σ log p of the tokens of each candidate, float32 [rounds, candidates]; hidden [B, T + N, D]."""
    import torch
    from torch.utils.checkpoint import checkpoint

    def predict(hidden: "torch.Tensor", which: "torch.Tensor", words: "torch.Tensor") -> "torch.Tensor":
        logits = head(hidden.to(head.weight.dtype)).float()  # [states, V]
        return logits[which, words] - logits.logsumexp(-1)[which]

    states, which = tree["states"].unique_consecutive(return_inverse=True)
    hidden = hidden.flatten(0, 1)[states]
    step = max(1, _LOGITS // len(head.weight))
    starts = torch.arange(0, len(states), step, device=which.device)
    bounds = [*torch.searchsorted(which, starts).tolist(), len(which)]
    found = [hidden.new_zeros(1, dtype=torch.float32)]  # what is no token adds nothing
    for piece, (low, high) in enumerate(itertools.pairwise(bounds)):
        part = hidden[piece * step : (piece + 1) * step]
        given = part, which[low:high] - piece * step, tree["words"][low:high]
        found.append(checkpoint(predict, *given, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(found)[tree["paths"]].sum(-1)


def read_trees(model: Any) -> None:
    """Teach a Gemma-3's forward to take what `add_trees` adds; its output then has "candidate_scores" too,
    [rounds, candidates]. Inside of forward, it works within what wraps the model (PEFT, DDP, autocast).
    """
    usual, backbone, head = model.forward, model.base_model, model.get_output_embeddings()

    @functools.wraps(usual)
    def forward(*arguments: Any, tree: dict | None = None, **inputs: Any) -> Any:
        if tree is None:
            return usual(*arguments, **inputs)
        types = inputs.get("token_type_ids")
        pictured = None if types is None else types == 1
        config = model.config.get_text_config()
        inputs["attention_mask"] = masks(config, inputs["position_ids"], tree, pictured)
        kept = []
        hook = backbone.register_forward_hook(lambda *given: kept.append(given[-1].last_hidden_state))
        try:
            output = usual(*arguments, **inputs)
        finally:
            hook.remove()
        output["candidate_scores"] = candidate_scores(head, kept[0], tree)
        return output

    model.forward = forward


# --- the trainer


def add_contrast(trainer: Any, wrong: WrongAnswers, weight: float) -> None:
    """Have TRL's trainer add weight × mean over rounds of −log softmax(scores)[human answer] to its loss.

    Every batch of a step (accumulated or another process's) weighs the same. The new part is logged as
    "contrastive_loss", the usual one as "answer_loss"; "loss" is the weighted sum. Each epoch gets wrong
    answers of its own.
    """
    from transformers import TrainerCallback

    class NewOnes(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            wrong.epoch = int(state.epoch or 0)  # before the workers of this epoch start

    usual = trainer.compute_loss

    def compute_loss(
        model: Any, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, outputs = usual(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if "candidate_scores" in outputs:
            batches = trainer.current_gradient_accumulation_steps  # `loss` is divided by their tokens already
            contrast = -outputs["candidate_scores"].log_softmax(-1)[:, 0].mean()
            for name, part in (("answer_loss", loss * batches), ("contrastive_loss", contrast)):
                everywhere = trainer.accelerator.gather_for_metrics(part.detach()).mean().item()
                trainer._metrics["train"][name].append(everywhere)  # TRL logs the mean
            loss = loss + weight * contrast / batches
        return (loss, outputs) if return_outputs else loss

    trainer.compute_loss = compute_loss
    trainer.add_callback(NewOnes())
    read_trees(trainer.model.get_base_model())
