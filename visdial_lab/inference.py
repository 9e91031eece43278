"""Answering questions: batched generation that stops at the end of the turn."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visdial_lab.chat import END, chat_messages, dialog_messages, encode, input_image, pad, tokenizer_of
from visdial_lab.errors import UserError, shown
from visdial_lab.files import read_json
from visdial_lab.visdial import Dialog

if TYPE_CHECKING:
    from PIL.Image import Image

_LINE = re.compile(r"(?P<who>[QA])\s*:(?P<text>.*)", re.IGNORECASE | re.DOTALL)


def parse_conversation(text: str) -> list[tuple[str, str | None]]:
    """ "Q: …\\nA: …\\nQ: …" → [(question, answer), …, (question, None)]: the last question is the one to
    answer.

    A shell passes "\\n" on as two characters; both forms are read. Raises UserError naming the line at fault.
    """
    lines = [line.strip() for line in text.replace("\\n", "\n").splitlines() if line.strip()]
    turns: list[tuple[str, str | None]] = []
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if not match:
            raise UserError(f'conversation, line {number}: should begin with "Q:" or "A:", is {line!r}')
        who, said = match["who"].upper(), match["text"].strip()
        expected = "A" if turns and turns[-1][1] is None else "Q"
        if who != expected:
            raise UserError(f'conversation, line {number}: expected a line "{expected}: …", got {line!r}')
        if not said:
            raise UserError(f'conversation, line {number}: nothing after "{who}:"')
        if who == "Q":
            turns.append((said, None))
        else:
            turns[-1] = (turns[-1][0], said)
    if not turns or turns[-1][1] is not None:
        raise UserError('conversation: the last line should be the question to answer, "Q: …"')
    return turns


def read_batch(path: Path) -> list[dict]:
    """Read [{"image": path or null, "conversation": "Q: …", "caption": text or null}], every entry checked.

    Raises UserError naming file and entry.
    """
    entries = read_json(path, "batch file")
    if not isinstance(entries, list):
        raise UserError(f"batch file {path}: expected a list of objects, got {shown(entries)}")
    for number, entry in enumerate(entries):
        place = f"batch file {path}: [{number}]"
        if not isinstance(entry, dict):
            raise UserError(f"{place} should be an object with image and conversation, is {shown(entry)}")
        for key, needed in (("conversation", True), ("image", False), ("caption", False)):
            value = entry.get(key)
            if not isinstance(value, str) and (needed or value is not None):
                raise UserError(f"{place}.{key} should be text, is {shown(value)}")
        try:
            parse_conversation(entry["conversation"])
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
    return entries


def answer(
    model: Any,
    processor: Any,
    image: "Image | None",
    conversation: str | Sequence[tuple[str, str | None]],
    caption: str | None = None,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    on_text: Callable[[str], None] | None = None,
) -> str:
    """The model's answer to the last question of a conversation about one picture.

    conversation: "Q: …\\nA: …\\nQ: …" or the pairs that `parse_conversation` makes of it.
    on_text(piece) is called with each piece of the answer as soon as it is there.
    Raises UserError for a conversation that is malformed or longer than the model can read.
    """
    turns = parse_conversation(conversation) if isinstance(conversation, str) else conversation
    example = encode(processor, chat_messages(turns, caption), image, add_generation_prompt=True)
    return _generate(model, processor, [example], max_new_tokens, temperature, top_p, seed, on_text)[0]


def answer_dialogs(
    model: Any,
    processor: Any,
    dialogs: Sequence[Dialog],
    max_new_tokens: int = 16,
    temperature: float = 0.0,
    top_p: float = 1.0,
    blank_image: bool = False,
    batch_size: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[str]]:
    """For each dialog, the model's answer to each round, given the rounds before it as the people had them.

    temperature 0 takes the likeliest token (the same answers every time); above 0 samples, with `seed`.
    blank_image: answer from a gray picture, to see what guessing without looking gives.
    batch_size: questions answered at once. progress(done, total) is called after each batch, in questions.
    """
    examples, owners = [], []
    for number, dialog in enumerate(dialogs):
        picture = input_image(processor, dialog, blank_image)
        for round_id in range(1, len(dialog.rounds) + 1):
            examples.append((dialog, round_id, picture))
            owners.append(number)
    answers: list[list[str]] = [[] for _ in dialogs]
    for start in range(0, len(examples), batch_size):
        batch = [
            encode(processor, dialog_messages(dialog, upto=round_id), picture, add_generation_prompt=True)
            for dialog, round_id, picture in examples[start : start + batch_size]
        ]
        texts = _generate(model, processor, batch, max_new_tokens, temperature, top_p, seed + start)
        for owner, text in zip(owners[start : start + batch_size], texts, strict=True):
            answers[owner].append(text)
        if progress is not None:
            progress(min(start + batch_size, len(examples)), len(examples))
    return answers


def _generate(
    model: Any,
    processor: Any,
    examples: list[dict],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    on_text: Callable[[str], None] | None = None,
) -> list[str]:
    """Continue each encoded prompt until <end_of_turn> or max_new_tokens; returns the texts."""
    import torch

    if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise UserError(
            f"max_new_tokens {max_new_tokens}, temperature {temperature}, top_p {top_p}: "
            "expected at least 1, at least 0, and above 0 up to 1"
        )
    tokenizer = tokenizer_of(processor)
    batch = {name: tensor.to(model.device) for name, tensor in pad(processor, examples, side="left").items()}
    length = batch["input_ids"].shape[1]
    limit = model.config.get_text_config().max_position_embeddings
    if length + max_new_tokens > limit:
        raise UserError(
            f"the conversation has {length} tokens; with {max_new_tokens} new ones the model reads {limit}"
        )
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
    torch.manual_seed(seed)
    with torch.inference_mode():
        output = model.generate(
            **batch,
            max_new_tokens=max_new_tokens,
            do_sample=temperature > 0,
            eos_token_id=[tokenizer.convert_tokens_to_ids(END)],
            pad_token_id=tokenizer.pad_token_id,
            streamer=_streamer(tokenizer, on_text) if on_text is not None else None,
            **sampling,
        )
    texts = tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
    return [text.strip() for text in texts]


def _streamer(tokenizer: Any, on_text: Callable[[str], None]) -> Any:
    """What `generate` tells about each new token, passed on as text (for one conversation at a time)."""
    from transformers import TextStreamer

    class Streamer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            on_text(text)

    return Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
