"""Records checked before the training starts: the one that would fail in an hour is found now."""

from collections.abc import Iterator
from typing import Any

from visdial_lab.chat import OPEN, takes_images, token_count
from visdial_lab.config import Training
from visdial_lab.errors import UserError
from visdial_lab.files import resolve
from visdial_lab.progress import say


def fitting(processor: Any, rows: list[dict], training: Training, name: str) -> tuple[list[dict], list[int]]:
    """The records that are trained on, and the length of each in tokens, picture included.

    A record above `training.max_seq_length` is refused, loses its last rounds, or is left out, as
    `training.on_too_long` says; how many is said. name: what the records are called in messages.
    Raises UserError naming records without a picture, pictures that are missing, and what is too long.
    """
    if takes_images(processor):
        _check_pictures(rows, name)
    kept, lengths, cut, first = [], [], 0, ""
    limit = training.max_seq_length
    for row in rows:
        length = token_count(processor, row["messages"])
        if length > limit:
            cut, first = cut + 1, first or f"{row['id']} has {length} tokens"
            row, length = (
                _cut(processor, row, limit) if training.on_too_long == "drop_rounds" else (row, length)
            )
        if length <= limit:
            kept.append(row)
            lengths.append(length)
    if cut and training.on_too_long == "refuse":
        raise UserError(
            f"{name}: {first}, training.max_seq_length is {limit} ({cut} of {len(rows)} records are longer)\n"
            "raise it, use fewer rounds, or set training.on_too_long to drop_rounds or skip"
        )
    if cut:
        gone = len(rows) - len(kept)
        say(f"{name}: {cut} of {len(rows)} were above {limit} tokens: {cut - gone} cut, {gone} left out")
    if not kept:
        raise UserError(f"{name}: nothing is left to train on: {first}, training.max_seq_length is {limit}")
    return kept, lengths


def check_style(rows: list[dict], style: str) -> None:
    """Raise UserError when the records are in another style than the adapter will say of itself."""
    for row in rows:
        answers = (message["content"] for message in row["messages"][1::2])
        texts = (answer if isinstance(answer, str) else answer[-1]["text"] for answer in answers)
        if style == "plain" and any(text.startswith(OPEN) for text in texts):
            raise UserError(
                f"{row['id']} holds reminders: train with generation.style reminder (--style reminder), "
                "so that the adapter is asked to write them"
            )


def _cut(processor: Any, row: dict, limit: int) -> tuple[dict, int]:
    """The record without so many last rounds that it fits, and its length; even one round may be too long."""
    messages = row["messages"]
    while len(messages) > 2 and token_count(processor, messages) > limit:
        messages = messages[:-2]
    return row | {"messages": messages}, token_count(processor, messages)


def _check_pictures(rows: list[dict], name: str) -> None:
    problems = []
    for row in rows:
        if row["image"] is None:
            problems.append(f"{row['id']} has no image, but this model is trained on pictures")
        elif not resolve(row["image"]).is_file():
            problems.append(f"{row['id']}: image not found: {row['image']}")
    if problems:
        more = (
            f"\n({len(problems)} of {len(rows)} records; the next is {problems[1]})" if problems[1:] else ""
        )
        advice = "\nPut the pictures in place and generate the records again, or train a text-only base model"
        raise UserError(f"{name}: {problems[0]}{more}{advice} (profile gemma3-270m-blind)")


def by_length(lengths: list[int], batch_size: int, seed: int) -> Any:
    """A sampler of record numbers in which each `batch_size` in a row are of similar length: less padding.

    Every epoch has an order of its own that depends on `seed` and epoch alone, so that a resumed training
    meets the same batches (transformers' own draws from the generator that dropout uses too, and sorts).
    """
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    class ByLength(torch.utils.data.Sampler):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return len(lengths)

        def __iter__(self) -> Iterator[int]:
            generator = torch.Generator().manual_seed(seed + self.epoch)
            order = get_length_grouped_indices(lengths, batch_size, generator=generator)
            batches = [order[place : place + batch_size] for place in range(0, len(order), batch_size)]
            # the longest stays first, so that a lack of memory shows at once; the last may be a short one
            middle = 1 + torch.randperm(max(0, len(batches) - 2), generator=generator)
            places = [0, *middle.tolist(), len(batches) - 1] if len(batches) > 1 else [0]
            yield from (number for place in places for number in batches[place])

    return ByLength()
