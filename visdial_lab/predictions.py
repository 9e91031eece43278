"""From scores to ranks, and the job behind `visdial-lab rank`: it survives a kill, several GPUs share it."""

import datetime
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visdial_lab import journal
from visdial_lab.chat import said_fields
from visdial_lab.errors import OnBad, UserError, WorkFailed, counted
from visdial_lab.files import write_json
from visdial_lab.metrics import ranks_from_scores
from visdial_lab.models import sees
from visdial_lab.progress import Progress, quiet
from visdial_lab.visdial import Dialog


def predictions(
    dialogs: Sequence[Dialog], scores: list[list[np.ndarray | None]], answers: list[list[str]] | None = None
) -> list[dict]:
    """Scores → the EvalAI list [{"image_id", "round_id" (from 1), "ranks"}], with "answer" if given, and the
    "reminder" that stood before it.

    Ties are shuffled with image and round as seed: a round's ranks do not depend on what else is ranked.
    """
    entries = []
    for number, (dialog, by_round) in enumerate(zip(dialogs, scores, strict=True)):
        for place, (turn, row) in enumerate(zip(dialog.rounds, by_round, strict=True)):
            if row is None:
                continue
            ranks = ranks_from_scores(row, seed=(dialog.image_id, turn.round_id))
            entry = {"image_id": dialog.image_id, "round_id": turn.round_id, "ranks": ranks.tolist()}
            if answers is not None:
                entry |= said_fields(answers[number][place])
            entries.append(entry)
    return entries


def join_processes() -> tuple[int, int, str | None]:
    """(number of this process, how many share the job, its own GPU), as torchrun or `accelerate launch` began
    them; (0, 1, None) for one that is alone.

    They wait for each other and share a list; scores never travel. For that gloo will do, on any machine.
    Raises UserError when a machine has more processes than GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1 or "LOCAL_RANK" not in os.environ:
        return 0, 1, None
    import torch

    own, device = int(os.environ["LOCAL_RANK"]), None
    if torch.cuda.is_available():
        device = f"cuda:{own}"
        if own >= torch.cuda.device_count():
            raise UserError(f"no GPU for process {own}: there are {torch.cuda.device_count()}; start fewer")
        torch.cuda.set_device(own)
    torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(hours=1))
    return torch.distributed.get_rank(), count, device


def _meet(count: int, value: Any) -> list:
    """Wait for all processes; returns what each has brought. A dead one is noticed at once."""
    if count == 1:
        return [value]
    import torch

    values: list = [None] * count
    try:
        torch.distributed.all_gather_object(values, value)
    except RuntimeError as error:
        raise WorkFailed(
            "another process has failed, or was an hour late; what is finished is kept, and the same command "
            f"goes on there ({str(error)[:80]} …)"
        ) from error
    return values


def check_pictures(
    model_path: str | Path, dialogs: Sequence[Dialog], image_dir: Path | None, blank_image: bool = False
) -> None:
    """Find out before the model is loaded when it and the pictures cannot come together. Raises UserError."""
    if not sees(model_path):
        if image_dir is not None:
            raise UserError("this model reads text only and ranks without pictures; leave --image-dir out")
    elif image_dir is not None and not image_dir.is_dir():
        raise UserError(f"--image-dir {image_dir} is not a folder")
    elif not blank_image and dialogs and all(dialog.image_path is None for dialog in dialogs):
        where = image_dir or "the folder of the dialogs file"
        raise UserError(
            f"no pictures in {where} for {counted(len(dialogs), 'dialog')}; --image-dir says where, "
            "--blank-image ranks without them"
        )


def rank_dialogs(
    dialogs: Sequence[Dialog],
    output: Path,
    made_from: dict[str, Any],
    score: Callable[[list[Dialog], OnBad], Iterable[tuple]],
    number: int = 0,
    count: int = 1,
    resume: bool = True,
    skip_bad: bool = False,
    unreadable: Sequence[str] = (),
    progress: Progress = quiet,
) -> list[str]:
    """Score what no journal holds yet; process 0 of `count` then writes the EvalAI list, in dialog order.

    score(dialogs, on_bad) → (index, scores of each round) in any order, as `ranking.iter_scores`, or these
    and what the model said, as `reminding.iter_recalled_scores`; called when something is left to do.
    unreadable: why further dialogs of the file are not among these.
    Returns the reasons why dialogs were skipped. Raises UserError for journals made from something else and,
    without skip_bad, for the first bad dialog.
    """
    if not dialogs and unreadable:
        raise UserError(f"0 of {counted(len(unreadable), 'dialog')} can be read: {unreadable[0]}")
    if not any(turn.options is not None for dialog in dialogs for turn in dialog.rounds):
        raise UserError("no round of these dialogs has answer options: there is nothing to rank")
    keys = {_key(dialog): dialog for dialog in dialogs}
    done: set[str] = set()
    if number == 0:
        done = set(journal.read(output, made_from, keys, resume))
    [done, *_] = _meet(count, done)  # nobody writes before the first has read
    left = [dialog for key, dialog in keys.items() if key not in done][number::count]
    finished, total = len(done), len(done) + len(left)
    skipped: dict[int, str] = {}

    def on_bad(index: int, error: UserError) -> None:
        if not skip_bad:
            raise UserError(
                f"{error}\n{finished} of {total} dialogs are finished and kept: mend this and give the same "
                "command again, or leave such dialogs out with --skip-bad"
            ) from None
        skipped[left[index].image_id] = str(error)

    progress(finished, total)
    with journal.writing(output, made_from, number) as write:
        for index, rows, *said in score(left, on_bad) if left else ():
            scores = [None if row is None else row.tolist() for row in rows]
            write(_key(left[index]), [scores, *said])
            finished += 1
            progress(finished, total - len(skipped))
    for others in _meet(count, skipped):
        skipped |= others
    if number > 0:
        return []
    _merge(dialogs, output, made_from, skipped)
    reasons = [*unreadable, *(skipped[dialog.image_id] for dialog in dialogs if dialog.image_id in skipped)]
    if not reasons:  # else what is done is kept until the rest is mended
        journal.remove(output)
    return reasons


def _key(dialog: Dialog) -> str:
    """Of its scores in a journal."""
    said = [(turn.question, turn.answer, turn.options) for turn in dialog.rounds]
    return journal.key(dialog.image_id, (dialog.caption, said))


def _merge(
    dialogs: Sequence[Dialog], output: Path, made_from: dict[str, Any], skipped: dict[int, str]
) -> None:
    """All journals → the EvalAI list."""
    keys = {dialog.image_id: _key(dialog) for dialog in dialogs}
    found = journal.read(output, made_from, keys.values())
    ranked = [dialog for dialog in dialogs if dialog.image_id not in skipped]
    if not ranked:
        count = counted(len(dialogs), "dialog")
        raise UserError(f"0 of {count} could be scored: {next(iter(skipped.values()))}")
    lost = [dialog.image_id for dialog in ranked if keys[dialog.image_id] not in found]
    if lost:
        raise UserError(
            f"{counted(len(lost), 'dialog')} (first {lost[0]}) in no journal beside {output}: processes on "
            "several machines need an output folder that all of them see. The same command goes on"
        )
    values = [found[keys[dialog.image_id]] for dialog in ranked]
    scores = [[row and np.array(row) for row in rows] for rows, *_ in values]
    answers = [said for _, *texts in values for said in texts]  # none in plain style
    write_json(output, predictions(ranked, scores, answers or None), indent=None)
