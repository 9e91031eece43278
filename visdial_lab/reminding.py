"""Ranking with a model in reminder style: it first says what it recalls, and judges by that."""

from collections.abc import Iterator, Sequence
from typing import Any

from visdial_lab.errors import OnBad, UserError
from visdial_lab.inference import answer_dialogs, together
from visdial_lab.ranking import DialogScores, iter_scores
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
) -> Iterator[tuple[int, DialogScores, list[str]]]:
    """Yield (number of a dialog, its scores, what the model said in each round); on_bad and options: as for
    `ranking.iter_scores`."""

    def answered(numbers: list[int]) -> dict[int, list[str]]:
        own = {"blank_image": blank_image, "style": "reminder", "batch_size": len(numbers)}
        texts = answer_dialogs(model, processor, [dialogs[n] for n in numbers], **own)
        return dict(zip(numbers, texts, strict=True))

    size = _AT_ONCE[model.device.type]
    for start in range(0, len(dialogs), size):
        said = together([*range(len(dialogs))[start : start + size]], answered, on_bad)
        numbers = list(said)

        def skip(place: int, error: UserError, numbers: list[int] = numbers) -> None:
            on_bad(numbers[place], error)

        options |= {"blank_image": blank_image, "on_bad": skip, "said": list(said.values())}
        for place, scores in iter_scores(model, processor, [dialogs[n] for n in numbers], **options):
            yield numbers[place], scores, said[numbers[place]]
