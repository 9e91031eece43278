"""Training records written by a big model behind an OpenAI-compatible server: a round asked is a record made.

What is finished, a record or a sample set aside with its reason, is on the disk before its worker asks for
the next; the same command, given again, goes on. Files beside OUT.jsonl, the records: OUT.rejected.jsonl,
OUT.manifest.json (from what, how far, at which cost) and, while it works, the journal OUT.jsonl.part-0.
"""

import asyncio
import dataclasses
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visdial_lab import __version__, journal
from visdial_lab.api_client import Server, ServerTrouble, connect
from visdial_lab.api_prompt import TEMPLATES, ask_again, instructions, parse_reply, prompt_messages
from visdial_lab.chat import join_reminder
from visdial_lab.errors import UserError, WorkFailed, differences, shown
from visdial_lab.files import (
    fingerprint,
    only_one,
    read_json,
    read_jsonl,
    sha256,
    write_json,
    write_jsonl,
)
from visdial_lab.generation import record
from visdial_lab.progress import Progress, quiet
from visdial_lab.text_metrics import exact_match, token_f1
from visdial_lab.visdial import Dialog, VisDial

if TYPE_CHECKING:
    Sample = tuple[int, int]  # place of the dialog, round_id
    Entry = dict[str, Any]  # {"tokens": {…}} and either "record" or "rejected"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that the records depend on beside the dialogs; one output holds the records of one recipe."""

    model: str
    style: str = "reminder"  # or "plain": the answer alone
    rounds: str = "random"  # of each dialog: one at "random", the "last", or "all" of them
    seed: int = 0  # of the order of the dialogs, of the random rounds, and sent to the server
    temperature: float = 0.0
    max_tokens: int = 200  # of a reply
    tries: int = 3  # how often a sample is asked for until its reply can be used
    template: str | None = None  # a file with instructions of your own


def samples(visdial: VisDial, rounds: str = "random", seed: int = 0) -> list["Sample"]:
    """(place of the dialog, round_id) in the order in which they are asked: dialogs in a seeded order.

    A beginning of the list is a sample of the whole, so that a run can be made longer later.
    """
    if rounds not in ("all", "last", "random"):
        raise UserError(f"rounds: expected all, last or random, got {shown(rounds)}")
    answered: dict[int, list[int]] = {}
    for place, round_id, _ in visdial.answered():
        answered.setdefault(place, []).append(round_id)
    rng, order = random.Random(seed), []
    for place in rng.sample(list(answered), len(answered)):
        there = answered[place]
        chosen = there if rounds == "all" else there[-1:] if rounds == "last" else [rng.choice(there)]
        order += [(place, round_id) for round_id in chosen]
    return order


def generate(
    visdial: VisDial,
    output: str | Path,
    recipe: Recipe,
    server: Server,
    max_samples: int | None = None,
    concurrency: int = 8,
    token_budget: int | None = None,
    time_budget: float | None = None,
    prices: tuple[float, float] | None = None,
    skip_bad: bool = False,
    retry_rejected: bool = False,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Ask for so many samples (None = every one), `concurrency` at a time; go on where a run was stopped.

    token_budget: for the whole output, earlier runs included. time_budget: seconds, for this run. Once one is
    used up nothing more is asked, and what was asked is finished.
    prices: dollars for a million prompt tokens and for a million completion tokens, for the running cost.
    skip_bad: set dialogs without a picture aside instead of refusing. retry_rejected: ask once more for what
    was set aside. Returns the manifest. Raises UserError: server down, unknown model, refused key, missing
    pictures, an output that cannot be written or holds another recipe's records; WorkFailed: the server fails
    again and again (what is finished is kept).
    """
    output = Path(output)
    if output.suffix != ".jsonl":
        raise UserError(f"{output}: the name of a records file ends in .jsonl")
    wanted = samples(visdial, recipe.rounds, recipe.seed)[:max_samples]
    ids = visdial.image_ids
    if not skip_bad:
        _check_pictures(visdial, {ids[place] for place, _ in wanted})
    system = instructions(recipe.style, recipe.template)
    made_from = dataclasses.asdict(recipe) | {
        "template": f"{Path(recipe.template or TEMPLATES[recipe.style]).name} {fingerprint(system)}",
        "dialogs": sha256(visdial.path),
        "split": visdial.split,
        "dialogs_used": len(visdial),
    }
    manifest = {"recipe": made_from, "recipe_sha256": fingerprint(made_from), "state": "unfinished"}
    manifest |= {"visdial_lab": __version__, "base_url": server.base_url, "wanted": len(wanted)}
    with only_one(output.with_name(f".{output.name}.lock"), f"another run is writing {output}"):
        todo = {f"{visdial.split}-{ids[place]}-r{round_id}": (place, round_id) for place, round_id in wanted}
        order = list(todo)
        earlier = _earlier(output, made_from, retry_rejected)
        ledger = _Ledger(earlier, len(todo), token_budget, time_budget, prices, progress)
        todo = {name: sample for name, sample in todo.items() if name not in ledger.entries}
        write_json(manifest_path(output), manifest)  # from now on the output is known as ours
        stopped = None
        if todo:
            with journal.writing(output, made_from, sync_seconds=0) as ledger.write:
                stopped = _run(_work(visdial, todo, recipe, system, server, concurrency, ledger))
        manifest["state"] = f"stopped: {stopped}" if stopped else "complete"
        manifest |= _write_results(output, ledger, order)
        write_json(manifest_path(output), manifest)
        journal.remove(output)
    return manifest


def _write_results(output: Path, ledger: "_Ledger", order: list[str]) -> dict[str, Any]:
    """Records and rejects, in the order in which they were to be asked; → what the manifest says of them."""
    place = {name: number for number, name in enumerate(order)}
    names = sorted(ledger.entries, key=lambda name: (place.get(name, len(place)), name))
    entries = [ledger.entries[name] for name in names]
    written = {
        "records": write_jsonl(output, (one["record"] for one in entries if "record" in one)),
        "rejected": write_jsonl(
            rejected_path(output), (one["rejected"] for one in entries if "rejected" in one)
        ),
    }
    return written | {"tokens": ledger.tokens, "cost": ledger.cost()}


def manifest_path(output: Path) -> Path:
    return output.with_suffix(".manifest.json")


def rejected_path(output: Path) -> Path:
    return output.with_suffix(".rejected.jsonl")


def _check_pictures(visdial: VisDial, image_ids: set[int]) -> None:
    """Better said before the first dollar is spent."""
    missing = sorted(image_id for image_id in image_ids if visdial.find_image(image_id) is None)
    if missing:
        raise UserError(
            f"no picture for {len(missing)} of {len(image_ids)} dialogs, first image {missing[0]}; "
            "is it the right folder (--image-dir)? --skip-bad sets these dialogs aside"
        )


def _earlier(output: Path, made_from: dict, retry_rejected: bool) -> dict[str, "Entry"]:
    """What earlier runs with the same recipe have finished. Raises UserError for an output made otherwise."""
    notes, entries = manifest_path(output), {}
    if output.exists() and not notes.exists():
        raise UserError(f"{output} was not made by this command ({notes.name} is missing); name another file")
    if notes.exists():
        there = read_json(notes, "manifest")
        there = there.get("recipe") if isinstance(there, dict) else None
        if not isinstance(there, dict):
            raise UserError(f"{notes} is in the way: it is no manifest of this command; move it away")
        if changes := differences(there, made_from):
            raise UserError(
                f"{output} holds records of another configuration: {changes}.\n"
                "They are never mixed: give the options it was begun with, or name another output file"
            )
    for path, kind in ((output, "record"), (rejected_path(output), "rejected")):
        for row in read_jsonl(path) if path.exists() else ():
            entries[row["id"]] = {kind: row}
    entries |= journal.read(output, made_from)
    return {name: entry for name, entry in entries.items() if "record" in entry or not retry_rejected}


def _run(job: Any) -> Any:
    """Run a coroutine to its end, also inside Jupyter, where this thread has an event loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(job)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, job).result()


async def _work(
    visdial: VisDial,
    todo: dict[str, "Sample"],
    recipe: Recipe,
    system: str,
    server: Server,
    concurrency: int,
    ledger: "_Ledger",
) -> str | None:
    """Ask for everything in `todo`; return which budget stopped it, or None.

    A sample that the server failed on is set aside only once the server is known to be well, that is, once it
    has answered another one: a server that dies must not cost the samples that are left.
    """
    queue, doubtful, stopped, asked = iter(todo.items()), {}, None, 0

    async def worker(ask: Callable) -> None:
        nonlocal stopped, asked
        for name, (place, round_id) in queue:
            if stopped := stopped or ledger.spent(asked):
                return
            asked, dialog = asked + 1, visdial.without_options(place)
            try:
                entry = await _sample(name, dialog, round_id, recipe, system, ask)
            except ServerTrouble as trouble:
                doubtful[name] = _rejected(name, dialog, round_id, trouble.reason, [], trouble.tokens)
                if len(doubtful) >= max(8, concurrency):
                    raise WorkFailed(
                        f"{server.base_url} failed {len(doubtful)} samples in a row, the last one so: "
                        f"{trouble.reason}.\n{len(ledger.entries)} are finished and kept; the same command "
                        "goes on"
                    ) from None
            else:
                await ledger.add(name, entry)
                while doubtful and ("record" in entry or entry["rejected"]["replies"]):  # it did answer
                    await ledger.add(*doubtful.popitem())
            asked -= 1

    async with connect(server, recipe) as ask:
        ledger.began = time.monotonic()  # the time budget does not pay for the server's loading the model
        ledger.tell()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(todo))):
                    group.create_task(worker(ask))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
    for name, entry in doubtful.items():
        if not ledger.entries:
            raise WorkFailed(f"{server.base_url} failed every sample: {entry['rejected']['reason']}")
        await ledger.add(name, entry)
    return stopped


async def _sample(
    name: str, dialog: Dialog, round_id: int, recipe: Recipe, system: str, ask: Callable
) -> "Entry":
    """Ask for one round until the reply can be used, at most `tries` times."""
    turn, replies, reason = dialog.rounds[round_id - 1], [], ""
    tokens = {"prompt": 0, "completion": 0}
    try:
        first = await asyncio.to_thread(prompt_messages, system, dialog, round_id)
    except UserError as error:  # no picture, or a damaged one
        return _rejected(name, dialog, round_id, f"no prompt: {error}", replies, tokens)
    messages = first
    for attempt in range(1, recipe.tries + 1):
        try:
            reply, used = await ask(messages)
        except ServerTrouble as trouble:
            trouble.tokens = tokens
            if trouble.again and attempt < recipe.tries:
                continue
            raise
        tokens = {kind: tokens[kind] + used[kind] for kind in tokens}
        replies.append(reply)
        try:
            reminder, answer = parse_reply(reply, recipe.style, turn.question)
        except UserError as error:
            reason, messages = str(error), ask_again(first, reply, str(error))
            continue
        said = answer if reminder is None else join_reminder(reminder, answer)
        turns = [(past.question, past.answer) for past in dialog.rounds[: round_id - 1]]
        turns.append((turn.question, said))
        notes = {
            "round_id": round_id,
            "human_answer": turn.answer,
            "agreement": {
                "exact_match": exact_match(answer, turn.answer),
                "token_f1": round(token_f1(answer, turn.answer), 4),
            },
            "attempts": attempt,
            "tokens": tokens,
        }
        return {"record": record(dialog, name, f"api-{recipe.model}", turns, last_only=True) | notes}
    return _rejected(name, dialog, round_id, reason, replies, tokens)


def _rejected(
    name: str, dialog: Dialog, round_id: int, reason: str, replies: list[str], tokens: dict[str, int]
) -> "Entry":
    place = {"id": name, "image_id": dialog.image_id, "round_id": round_id}
    question = dialog.rounds[round_id - 1].question
    replies = [reply[:500] for reply in replies]
    return {
        "rejected": place | {"question": question, "reason": reason, "replies": replies, "tokens": tokens}
    }


class _Ledger:
    """What is finished, on the disk and in memory, with running totals of what it cost."""

    def __init__(
        self,
        entries: dict[str, "Entry"],
        total: int,
        token_budget: int | None,
        time_budget: float | None,
        prices: tuple[float, float] | None,
        progress: Progress,
    ):
        self.entries: dict[str, Entry] = {}
        self.write: Callable[[str, Any], None] = quiet  # to the journal, once it is open
        self.token_budget, self.time_budget = token_budget, time_budget
        self.tokens, self.aside, self.total, self.prices = {"prompt": 0, "completion": 0}, 0, total, prices
        self.progress, self.began, self.noted, self.note = progress, time.monotonic(), 0.0, ""
        for name, entry in entries.items():
            self._count(name, entry)

    async def add(self, name: str, entry: "Entry") -> None:
        """Put an entry on the disk; only then it counts. The other workers need not wait for the disk."""
        await asyncio.to_thread(self.write, name, entry)
        self._count(name, entry)
        self.tell()

    def _count(self, name: str, entry: "Entry") -> None:
        self.entries[name] = entry
        used = entry["record" if "record" in entry else "rejected"]["tokens"]
        self.tokens = {kind: self.tokens[kind] + used[kind] for kind in self.tokens}
        self.aside += "rejected" in entry

    def spent(self, asked: int) -> str | None:
        """Which budget is used up, if `asked` samples under way will cost as much as those before."""
        if self.time_budget is not None and time.monotonic() - self.began > self.time_budget:
            return "time budget"
        used = sum(self.tokens.values())
        if (
            self.token_budget is not None
            and used * (1 + asked / max(1, len(self.entries))) >= self.token_budget
        ):
            return "token budget"
        return None

    def cost(self) -> float | None:
        """Dollars so far, if prices were given."""
        if self.prices is None:
            return None
        return (self.tokens["prompt"] * self.prices[0] + self.tokens["completion"] * self.prices[1]) / 1e6

    def tell(self) -> None:
        """How many are done and, renewed every ten seconds, what they cost and how many were set aside."""
        done, now = len(self.entries), time.monotonic()
        if now - self.noted > 10 or done >= self.total or not self.note:
            self.noted, self.note = now, f"{sum(self.tokens.values()) / 1000:,.1f}k tokens"
            if (cost := self.cost()) is not None and done:
                self.note += f", ${cost:.2f} of about ${cost / done * self.total:.2f}"
            if self.aside:
                self.note += f", {self.aside} set aside"
        self.progress(done, max(done, self.total), self.note)
