"""Records checked before the training starts: the one that would fail in an hour is found now."""

from collections.abc import Iterator
from typing import Any

from visdial_lab.chat import OPEN, message_text, takes_images, token_count
from visdial_lab.config import Training
from visdial_lab.errors import UserError
from visdial_lab.files import resolve
from visdial_lab.progress import say


def fitting(
    processor: Any, records: list[dict], training: Training, name: str
) -> tuple[list[dict], list[int]]:
    """The records that are trained on, and the length of each in tokens, picture included.

    A record above `training.max_seq_length` is refused, loses its last rounds, or is left out, as
    `training.on_too_long` says; how many is said. name: what the records are called in messages.
    Raises UserError naming records without a picture, pictures that are missing, and what is too long.
    """
    if takes_images(processor):
        _check_pictures(records, name)
    kept, lengths, cut, first = [], [], 0, ""
    limit = training.max_seq_length
    for record in records:
        length = token_count(processor, record["messages"])
        if length > limit:
            cut, first = cut + 1, first or f"{record['id']} has {length} tokens"
            if training.on_too_long == "drop_rounds":
                record, length = _cut(processor, record, limit)
        if length <= limit:
            kept.append(record)
            lengths.append(length)
    if cut and training.on_too_long == "refuse":
        raise UserError(
            f"{name}: {first}, training.max_seq_length is {limit} "
            f"({cut} of {len(records)} records are longer)\n"
            "raise it, use fewer rounds, or set training.on_too_long to drop_rounds or skip"
        )
    if cut:
        gone = len(records) - len(kept)
        say(f"{name}: {cut} of {len(records)} were above {limit} tokens: {cut - gone} cut, {gone} left out")
    if not kept:
        raise UserError(f"{name}: nothing is left to train on: {first}, training.max_seq_length is {limit}")
    return kept, lengths


def check_style(records: list[dict], style: str) -> None:
    """Raise UserError when the records are in another style than the adapter will say of itself."""
    for record in records:
        answers = map(message_text, record["messages"][1::2])
        if style == "plain" and any(answer.startswith(OPEN) for answer in answers):
            raise UserError(
                f"{record['id']} holds reminders: train with generation.style reminder (--style reminder), "
                "so that the adapter is asked to write them"
            )


def _cut(processor: Any, record: dict, limit: int) -> tuple[dict, int]:
    """The record without so many last rounds that it fits, and its length; even one round may be too long."""
    messages = record["messages"]
    while len(messages) > 2 and token_count(processor, messages) > limit:
        messages = messages[:-2]
    return record | {"messages": messages}, token_count(processor, messages)


def _check_pictures(records: list[dict], name: str) -> None:
    problems = []
    for record in records:
        if record["image"] is None:
            problems.append(f"{record['id']} has no image, but this model is trained on pictures")
        elif not resolve(record["image"]).is_file():
            problems.append(f"{record['id']}: image not found: {record['image']}")
    if problems:
        count = f"{len(problems)} of {len(records)} records"
        more = f"\n({count}; the next is {problems[1]})" if problems[1:] else ""
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
