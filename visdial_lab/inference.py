"""Answering questions: many at once, a picture and its dialog read once, up to the end of the turn; and the
job behind `visdial-lab infer --batch-file`."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visdial_lab import chat, journal
from visdial_lab.decoding import check_length, cut, generate, read, read_on
from visdial_lab.errors import OnBad, UserError, counted, listed, naming, nearest, shown
from visdial_lab.files import read_json, resolve, write_json
from visdial_lab.models import answer_style, evaluating, load_model, sees
from visdial_lab.progress import Progress, quiet
from visdial_lab.visdial import Dialog, without_history

if TYPE_CHECKING:
    from PIL.Image import Image

Turns = Sequence[tuple[str, str | None]]  # (question, answer) pairs, the last answer None: to be given
Conversation = tuple[str, Turns, str | None, Any]  # its place (for messages), turns, caption, picture

_NEW_TOKENS = 32  # the longest answer, unless told otherwise
_REMINDER_TOKENS = 96  # room for a reminder beside it


def parse_conversation(text: str) -> list[tuple[str, str | None]]:
    """ "Q: …\\nA: …\\nQ: …" → [(question, answer), …, (question, None)]: the last question is the one to
    answer.

    A shell passes "\\n" on as two characters; both forms are read. Raises UserError naming the line at fault.
    """
    lines = [line.strip() for line in text.replace("\\n", "\n").splitlines() if line.strip()]
    turns: list[tuple[str, str | None]] = []
    for number, line in enumerate(lines, 1):
        place = f"conversation, line {number}:"
        who, _, said = (part.strip() for part in line.partition(":"))
        expected = "A" if turns and turns[-1][1] is None else "Q"
        if who not in ("Q", "A", "q", "a"):
            raise UserError(f'{place} should begin with "Q:" or "A:", is {line!r}')
        if who.upper() != expected:
            raise UserError(f'{place} expected a line "{expected}: …", got {line!r}')
        if not said:
            raise UserError(f'{place} nothing after "{expected}:"')
        if expected == "Q":
            turns.append((said, None))
        else:
            turns[-1] = (turns[-1][0], said)
    if not turns or turns[-1][1] is not None:
        raise UserError('conversation: the last line should be the question to answer, "Q: …"')
    return turns


def read_batch(path: Path, on_bad: OnBad | None = None) -> list[dict]:
    """Read [{"image": path or null, "conversation": "Q: …", "caption": text or null}], every entry checked.

    Raises UserError naming file and entry. With `on_bad` that is called for each bad entry instead.
    """
    entries = read_json(path, "batch file")
    if not isinstance(entries, list):
        raise UserError(f"batch file {path}: expected a list of objects, got {shown(entries)}")
    for place, entry in enumerate(entries):
        try:
            _check_entry(f"[{place}]", entry)
        except UserError as error:
            _report(place, UserError(f"batch file {path}: {error}"), on_bad)
    return entries


def _check_entry(where: str, entry: Any) -> None:
    if not isinstance(entry, dict):
        raise UserError(f"{where} should be an object with image and conversation, is {shown(entry)}")
    fields = {"conversation": True, "image": False, "caption": False}
    lacking = [key for key in fields if key not in entry]
    for key in entry:  # others may be there, but none that is meant for one of these
        if key not in fields and (hint := nearest(key, lacking, cutoff=0.8)):
            raise UserError(f"{where}: unknown key {shown(key)}{hint}")
    if "conversation" in lacking:
        there = listed(map(shown, entry), 5) or "no key"
        raise UserError(f'{where}: "conversation" ("Q: …", the question) is missing, there is {there}')
    for key, needed in fields.items():
        value = entry.get(key)
        if not isinstance(value, str) and (needed or value is not None):
            raise UserError(f"{where}.{key} should be text, is {shown(value)}")
    with naming(where):
        parse_conversation(entry["conversation"])


def _report(place: int, error: UserError, on_bad: OnBad | None) -> None:
    if on_bad is None:
        raise error
    on_bad(place, error)


def answer_file(
    model_path: str | Path,
    batch_file: Path,
    output: Path,
    batch_size: int = 16,
    resume: bool = True,
    skip_bad: bool = False,
    progress: Progress = quiet,
    style: str | None = None,
    **decoding: Any,
) -> tuple[int, list[str]]:
    """Write the batch file's list with an "answer" in every entry, and the "reminder" that a model in
    reminder style gave before it. A job that was stopped goes on there.

    skip_bad: leave entries that cannot be answered out of the result, instead of raising UserError.
    style (None: as the adapter was trained) and decoding: as for `answer`. progress(done, total) is called
    after each entry.
    Returns how many entries there are, and why some were skipped. Raises UserError, with `resume`, for
    unfinished work that was made from something else.
    """
    skipped: dict[int, str] = {}
    decoding["style"] = answer_style(model_path, style)

    def on_bad(place: int, error: UserError) -> None:
        if not skip_bad:
            raise error
        skipped[place] = str(error)

    entries, made_from = read_batch(batch_file, on_bad), journal.sources(model_path, **decoding)
    keys = [journal.key(place, entry) for place, entry in enumerate(entries)]
    answers = journal.read(output, made_from, keys, resume)
    with journal.writing(output, made_from) as write:
        left = {n: entry for n, entry in enumerate(entries) if n not in skipped and keys[n] not in answers}
        sighted = any(entry.get("image") is None for entry in left.values()) and sees(model_path)
        for place in list(left):
            try:
                check_image(left[place].get("image"), sighted)
            except UserError as error:
                on_bad(place, UserError(f"[{place}]: {error}"))
                del left[place]
        progress(len(answers), len(entries) - len(skipped))
        loaded = load_model(model_path) if left else (None, None)
        for place, text in answer_entries(*loaded, left, batch_size, on_bad=on_bad, **decoding):
            write(keys[place], text)
            answers[keys[place]] = text
            progress(len(answers), len(entries) - len(skipped))
    done = [entry | chat.said_fields(answers[keys[n]]) for n, entry in enumerate(entries) if n not in skipped]
    if skipped and not done:
        count = counted(len(entries), "entry", "entries")
        raise UserError(f"0 of {count} can be answered: {next(iter(skipped.values()))}")
    write_json(output, done)
    if not skipped:
        journal.remove(output)
    return len(entries), [skipped[place] for place in sorted(skipped)]


def check_image(image: str | Path | None, sighted: bool) -> None:
    """Raises UserError when a picture is missing, or not given to a model that looks at one."""
    if image is not None and not resolve(image).is_file():
        raise UserError(f"image not found: {image}")
    if sighted and image is None:
        raise UserError("this model looks at pictures: give --image-path (or image in the batch file)")


def answer(
    model: Any,
    processor: Any,
    image: "Image | None",
    conversation: str | Turns,
    caption: str | None = None,
    style: str = "plain",
    **decoding: Any,
) -> str:
    """The model's answer to the last question of a conversation about one picture.

    conversation: "Q: …\\nA: …\\nQ: …" or the pairs that `parse_conversation` makes of it.
    style: "reminder" for a model that was trained so; its reminder then stands before the answer
    (`chat.said_fields` takes them apart).
    decoding: max_new_tokens (32), temperature (0 = always the likeliest token), top_p, seed, and stream=True
    to print the answer while it is made.
    Raises UserError for a conversation that is malformed or longer than the model can read.
    """
    turns = parse_conversation(conversation) if isinstance(conversation, str) else conversation
    return _reply(model, processor, [("", turns, caption, image)], style, **decoding)[0][-1]


def answer_entries(
    model: Any,
    processor: Any,
    entries: dict[int, dict],
    batch_size: int = 16,
    seed: int = 0,
    style: str = "plain",
    on_bad: OnBad | None = None,
    **decoding: Any,
) -> Iterator[tuple[int, str]]:
    """(place, answer) for the entries of a batch file, {place in it: entry}; so many are answered at once.

    seed, style and decoding: as for `answer`. Raises UserError naming the place of what cannot be answered,
    when the others of its batch are done; with `on_bad` that is called instead.
    """

    def conversation(place: int) -> Conversation:
        entry = {"image": None, "caption": None, "image_id": place, "source": "batch"} | entries[place]
        with naming(f"[{place}]"):
            turns, picture = parse_conversation(entry["conversation"]), chat.record_image(entry)
            return f"[{place}]", turns, entry["caption"], picture

    def answered(places: list[int]) -> dict[int, str]:
        conversations = [conversation(place) for place in places]
        texts = _reply(model, processor, conversations, style, seed=seed + start, **decoding)
        return {place: said[-1] for place, said in zip(places, texts, strict=True)}

    places = list(entries)
    for start in range(0, len(places), batch_size):
        bad: dict[int, UserError] = {}
        yield from together(places[start : start + batch_size], answered, bad.__setitem__).items()
        for place, error in bad.items():
            _report(place, error, on_bad)


def together(numbers: list[int], work: Callable[[list[int]], dict], on_bad: OnBad) -> dict:
    """work(numbers), {number: result}; one by one when one of them is at fault, of which on_bad is told."""
    try:
        return work(numbers)
    except UserError as error:
        if len(numbers) == 1:
            on_bad(numbers[0], error)
            return {}
    return {n: found for one in numbers for n, found in together([one], work, on_bad).items()}


def answer_dialogs(
    model: Any,
    processor: Any,
    dialogs: Sequence[Dialog],
    max_new_tokens: int = 16,
    blank_image: bool = False,
    history: bool = True,
    batch_size: int = 2,
    seed: int = 0,
    progress: Progress = quiet,
    style: str = "plain",
    **decoding: Any,
) -> list[list[str]]:
    """For each dialog, the model's answer to each round, given the rounds before it as the people had them.

    blank_image: answer from a gray picture, to see what guessing without looking gives. history: False keeps
    the rounds before from it.
    batch_size: dialogs answered at once. progress(done, total) is called after each batch, in dialogs.
    seed, style and decoding (temperature, top_p): as for `answer`.
    """

    def conversation(dialog: Dialog) -> Conversation:
        turns = [(turn.question, turn.answer) for turn in dialog.rounds]
        turns[-1] = (turns[-1][0], None)
        picture = chat.input_image(processor, dialog, blank_image)
        return f"dialog {dialog.image_id}", turns, dialog.caption, picture

    decoding |= {"every_round": True, "max_new_tokens": max_new_tokens}
    answers: list[list[str]] = []
    for start in range(0, len(dialogs), batch_size):
        batch = dialogs[start : start + batch_size]
        asked = [conversation(one) for d in batch for one in ([d] if history else without_history(d))]
        said = iter(_reply(model, processor, asked, style, seed=seed + start, **decoding))
        answers += [next(said) if history else [next(said)[0] for _ in d.rounds] for d in batch]
        progress(len(answers), len(dialogs))
    return answers


def _reply(
    model: Any,
    processor: Any,
    conversations: Sequence[Conversation],
    style: str,
    every_round: bool = False,
    max_new_tokens: int = _NEW_TOKENS,
    **decoding: Any,
) -> list[list[str]]:
    """What the model says to the last question of each conversation, or to all of them.

    Picture and conversation are read once: what a question may see is the beginning of what the next one
    sees.
    """
    import torch

    if style == "reminder":
        texts = _recall_and_reply(model, processor, conversations, max_new_tokens, **decoding)
        return texts if every_round else [own[-1:] for own in texts]
    tokenizer = chat.tokenizer_of(processor)
    examples, rows, prompts, counts = [], [], [], []
    for row, (place, turns, caption, picture) in enumerate(conversations):
        with naming(place):
            messages = chat.chat_messages(turns, caption)
            examples.append(chat.encode(processor, messages, picture, add_generation_prompt=True))
            ids = examples[-1]["input_ids"].tolist()
            check_length(model, len(ids), max_new_tokens)
        ends = chat.answer_starts(tokenizer, ids)[0 if every_round else -1 :]
        rows += [row] * len(ends)
        prompts += [ids[:end] for end in ends]
        counts.append(len(ends))
    with evaluating(model), torch.inference_mode():
        found = read(model, chat.pad(processor, examples))
        lengths = [len(ids) - 1 for ids in prompts]  # `generate` reads the last token itself
        past = cut(found, rows, lengths, lengths)
        said = iter(generate(model, processor, prompts, past, max_new_tokens, **decoding))
    return [[next(said) for _ in range(count)] for count in counts]


def _recall_and_reply(
    model: Any,
    processor: Any,
    conversations: Sequence[Conversation],
    max_new_tokens: int,
    seed: int = 0,
    stream: bool = False,
    **decoding: Any,
) -> list[list[str]]:
    """What a model in reminder style says in each round of each conversation.

    It has learnt with a reminder before every answer. So in the history too, the answers that were given
    have reminders before them: those that it wrote itself. That takes one round after the other; keys and
    values of what was read are kept.
    """
    import torch

    room = max_new_tokens + _REMINDER_TOKENS
    said: list[list[str]] = [[] for _ in conversations]
    going, lengths, past = list(range(len(conversations))), [0] * len(conversations), []
    last = max(len(turns) for _, turns, _, _ in conversations) - 1
    for number in range(last + 1):
        left = [place for place, row in enumerate(going) if number < len(conversations[row][1])]
        going, lengths = [going[place] for place in left], [lengths[place] for place in left]
        past = [(keys[left], values[left]) for keys, values in past]
        examples, prompts = [], []
        for row in going:
            place, turns, caption, picture = conversations[row]
            own = [chat.said_fields(text).get("reminder") for text in said[row]]
            asked = [*chat.with_reminders(turns[:number], own), (turns[number][0], None)]
            with naming(place):
                messages = chat.chat_messages(asked, caption)
                prompts.append(chat.prompt_ids(processor, messages))
                check_length(model, len(prompts[-1]), room)
                if number == 0:
                    examples.append(chat.encode(processor, messages, picture, add_generation_prompt=True))
        with evaluating(model), torch.inference_mode():
            if number == 0:
                found, known = read(model, chat.pad(processor, examples)), 0
            else:
                known = past[0][0].shape[2]
                chunks = [ids[length:] for ids, length in zip(prompts, lengths, strict=True)]
                found = read_on(model, chunks, past, lengths)
            fresh = [len(ids) - 1 - length for ids, length in zip(prompts, lengths, strict=True)]
            lengths = [len(ids) - 1 for ids in prompts]  # `generate` reads the last token itself
            past = cut(found, range(len(going)), [known + size for size in fresh], lengths)
            options = {"seed": seed + number, "stream": stream and number == last, **decoding}
            texts = generate(model, processor, prompts, past, room, **options)
        for row, text in zip(going, texts, strict=True):
            said[row].append(text)
    return said
