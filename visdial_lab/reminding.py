"""Ranking with a model in reminder style: it first says what it recalls, and judges by that."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from visdial_lab.errors import UserError
from visdial_lab.inference import answer_dialogs
from visdial_lab.ranking import OnBad, Scores, iter_scores
from visdial_lab.visdial import Dialog

_AT_ONCE = {"cpu": 16, "cuda": 128}  # dialogs answered together; a kill costs the work on as many


def iter_recalled_scores(
    model: Any,
    processor: Any,
    dialogs: Sequence[Dialog],
    *,
    on_bad: OnBad,
    blank_image: bool = False,
    **options: Any,
) -> Iterator[tuple[int, Scores, list[str]]]:
    """Yield (number of a dialog, its scores, what the model said in each round); on_bad and options: as for
    `ranking.iter_scores`."""
    size = _AT_ONCE[model.device.type]
    for start in range(0, len(dialogs), size):
        chosen = dict(enumerate(dialogs[start : start + size], start))
        said = _said(model, processor, chosen, on_bad, blank_image)
        numbers = list(said)

        def skip(place: int, error: UserError, numbers: list[int] = numbers) -> None:
            on_bad(numbers[place], error)

        options |= {"blank_image": blank_image, "on_bad": skip, "said": list(said.values())}
        for place, scores in iter_scores(model, processor, [chosen[n] for n in numbers], **options):
            yield numbers[place], scores, said[numbers[place]]


def _said(
    model: Any, processor: Any, dialogs: Mapping[int, Dialog], on_bad: OnBad, blank_image: bool
) -> dict[int, list[str]]:
    """{number: what the model says in each round}; together, or one by one when there is a bad one."""
    options = {"blank_image": blank_image, "style": "reminder", "batch_size": len(dialogs)}
    try:
        texts = answer_dialogs(model, processor, list(dialogs.values()), **options)
        return dict(zip(dialogs, texts, strict=True))
    except UserError as error:
        if len(dialogs) == 1:
            on_bad(next(iter(dialogs)), error)
            return {}
    found = (_said(model, processor, {n: dialog}, on_bad, blank_image) for n, dialog in dialogs.items())
    return {number: texts for one in found for number, texts in one.items()}
