"""Answering questions: many at once, a picture and its dialog read once, up to the end of the turn; and the
job behind `visdial-lab infer --batch-file`."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visdial_lab import chat, journal
from visdial_lab.errors import UserError, naming, shown
from visdial_lab.files import read_json, resolve, write_json
from visdial_lab.models import evaluating, load_model, sees
from visdial_lab.visdial import Dialog

if TYPE_CHECKING:
    from PIL.Image import Image

OnBad = Callable[[int, UserError], None]

_NEW_TOKENS = 32  # the longest answer, unless told otherwise


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
    for key, needed in (("conversation", True), ("image", False), ("caption", False)):
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
    progress: Callable[[int, int], None] = lambda done, total: None,
    **decoding: Any,
) -> tuple[int, list[str]]:
    """Write the batch file's list with an "answer" in every entry. A job that was stopped goes on there.

    skip_bad: leave entries that cannot be answered out of the result, instead of raising UserError.
    decoding: as for `answer`. progress(done, total) is called after each entry.
    Returns how many entries there are, and why some were skipped. Raises UserError, with `resume`, for
    unfinished work that was made from something else.
    """
    skipped: dict[int, str] = {}

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
    done = [entry | {"answer": answers[keys[n]]} for n, entry in enumerate(entries) if n not in skipped]
    if skipped and not done:
        raise UserError(f"none of the {len(entries)} entries can be answered: {next(iter(skipped.values()))}")
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
    conversation: str | Sequence[tuple[str, str | None]],
    caption: str | None = None,
    **decoding: Any,
) -> str:
    """The model's answer to the last question of a conversation about one picture.

    conversation: "Q: …\\nA: …\\nQ: …" or the pairs that `parse_conversation` makes of it.
    decoding: max_new_tokens (32), temperature (0 = always the likeliest token), top_p, seed, and stream=True
    to print the answer while it is made.
    Raises UserError for a conversation that is malformed or longer than the model can read.
    """
    turns = parse_conversation(conversation) if isinstance(conversation, str) else conversation
    example = _encode(model, processor, chat.chat_messages(turns, caption), image, **decoding)
    return _answer(model, processor, [example], **decoding)[0][0]


def answer_entries(
    model: Any,
    processor: Any,
    entries: dict[int, dict],
    batch_size: int = 16,
    seed: int = 0,
    on_bad: OnBad | None = None,
    **decoding: Any,
) -> Iterator[tuple[int, str]]:
    """(place, answer) for the entries of a batch file, {place in it: entry}; so many are answered at once.

    seed and decoding: as for `answer`. Raises UserError naming the place of what cannot be answered, when the
    others of its batch are done; with `on_bad` that is called instead.
    """

    def encoded(place: int) -> dict[str, Any]:
        entry = {"image": None, "caption": None, "image_id": place, "source": "batch"} | entries[place]
        with naming(f"[{place}]"):
            messages = chat.chat_messages(parse_conversation(entry["conversation"]), entry["caption"])
            return _encode(model, processor, messages, chat.record_image(entry), **decoding)

    places = list(entries)
    for start in range(0, len(places), batch_size):
        good, bad = {}, {}
        for place in places[start : start + batch_size]:
            try:
                good[place] = encoded(place)
            except UserError as error:
                bad[place] = error
        texts = good and _answer(model, processor, [*good.values()], seed=seed + start, **decoding)
        yield from ((place, text) for place, [text] in zip(good, texts, strict=True))
        for place, error in bad.items():
            _report(place, error, on_bad)


def answer_dialogs(
    model: Any,
    processor: Any,
    dialogs: Sequence[Dialog],
    max_new_tokens: int = 16,
    blank_image: bool = False,
    batch_size: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **decoding: Any,
) -> list[list[str]]:
    """For each dialog, the model's answer to each round, given the rounds before it as the people had them.

    blank_image: answer from a gray picture, to see what guessing without looking gives.
    batch_size: dialogs answered at once. progress(done, total) is called after each batch, in dialogs.
    seed and decoding (temperature, top_p): as for `answer`.
    """
    answers: list[list[str]] = []
    for start in range(0, len(dialogs), batch_size):
        examples = []
        for dialog in dialogs[start : start + batch_size]:
            messages = chat.dialog_messages(dialog, upto=len(dialog.rounds))
            picture = chat.input_image(processor, dialog, blank_image)
            with naming(f"dialog {dialog.image_id}"):
                examples.append(_encode(model, processor, messages, picture, max_new_tokens))
        answers += _answer(model, processor, examples, True, max_new_tokens, seed=seed + start, **decoding)
        progress(len(answers), len(dialogs))
    return answers


def _encode(
    model: Any, processor: Any, messages: list, image: Any, max_new_tokens: int = _NEW_TOKENS, **_: Any
) -> dict:
    """The conversation as the model reads it. Raises UserError when no room is left for the answer."""
    example = chat.encode(processor, messages, image, add_generation_prompt=True)
    limit = model.config.get_text_config().max_position_embeddings
    if (length := len(example["input_ids"])) + max_new_tokens > limit:
        wanted = f"with {max_new_tokens} new ones the model reads {limit}"
        raise UserError(f"the conversation has {length} tokens; {wanted}")
    return example


def _answer(
    model: Any,
    processor: Any,
    examples: list[dict],
    every_round: bool = False,
    max_new_tokens: int = _NEW_TOKENS,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stream: bool = False,
) -> list[list[str]]:
    """Answers to the last question of each encoded conversation, or to all.

    Picture and conversation are read once [B, T]: what a question may see is the beginning of what the next
    one sees. Keys and values are copied for each question [Q, W], aligned on the right for `generate`.
    """
    import torch
    from transformers import DynamicCache, TextStreamer

    if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        given = f"max_new_tokens {max_new_tokens}, temperature {temperature}, top_p {top_p}"
        raise UserError(f"{given}: expected at least 1, at least 0, and above 0 up to 1")
    tokenizer = chat.tokenizer_of(processor)
    prompts, counts = [], []
    for row, example in enumerate(examples):
        ends = chat.answer_starts(tokenizer, example["input_ids"].tolist())[0 if every_round else -1 :]
        prompts += [(row, end) for end in ends]
        counts.append(len(ends))
    batch = chat.pad(processor, examples)
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    rows, ends = torch.tensor(prompts, device=model.device).T[:, :, None]
    columns = torch.arange(int(ends.max()), device=model.device) + ends - ends.max()  # [Q, W]
    seen, columns = columns >= 0, columns.clamp(min=0)

    def own(states: torch.Tensor) -> torch.Tensor:  # [B, H, T, D] → [Q, H, W - 1, D]
        return states[rows, :, columns[:, :-1]].transpose(1, 2)  # `generate` reads the last token itself

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside a PEFT wrapper
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
    torch.manual_seed(seed)
    with evaluating(model), torch.inference_mode():
        read = DynamicCache()  # without a config it keeps whole sequences, also for sliding-window layers
        causal.base_model(**batch, past_key_values=read, use_cache=True)
        output = model.generate(
            input_ids=batch["input_ids"][rows, columns],
            attention_mask=seen.long(),
            past_key_values=DynamicCache([(own(layer.keys), own(layer.values)) for layer in read.layers]),
            max_new_tokens=max_new_tokens,
            do_sample=temperature > 0,
            eos_token_id=[tokenizer.convert_tokens_to_ids(chat.END)],
            pad_token_id=tokenizer.pad_token_id,
            streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None,
            **sampling,
        )
    said = iter(tokenizer.batch_decode(output[:, columns.shape[1] :], skip_special_tokens=True))
    return [[next(said).strip() for _ in range(count)] for count in counts]
