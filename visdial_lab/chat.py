"""The only place that turns a dialog into Gemma's chat turns, token ids and the mask of supervised tokens.

A turn is "<start_of_turn>user\\n … <end_of_turn>\\n"; the model's own turns say `model` instead of `user`.
What the model learns to write is the answer and its <end_of_turn>, nothing else.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from visdial_lab.errors import UserError, naming
from visdial_lab.files import resolve
from visdial_lab.visdial import Dialog

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

START, END = "<start_of_turn>", "<end_of_turn>"
ANSWER_HEADER = f"{START}model\n"  # what stands before every answer
IGNORED = -100  # the label of a token that is not learnt

# Strings that Gemma's tokenizer reads as one control token wherever they stand.
_CONTROL = re.compile(
    r"<(?=(?:pad|eos|bos|unk|mask|start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token"
    r"|unused\d+)>)"
)

OPEN, CLOSE = "<reminder>", "</reminder>"  # around what a model in reminder style recalls before it answers


def plain_text(text: str, what: str = "text") -> str:
    """Trim what a person typed and disarm control tokens in it: "<end_of_turn>" becomes "< end_of_turn>".

    Raises UserError naming `what` when nothing is left or the text holds half a character.
    """
    if not isinstance(text, str):
        raise UserError(f"{what}: expected text, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} holds a broken character: {text!a}") from None
    text = _CONTROL.sub("< ", text.strip())
    if not text:
        raise UserError(f"{what} is empty; every turn needs some text")
    return text


def join_reminder(reminder: str, answer: str) -> str:
    """What a model in reminder style learns to say: "<reminder>it = the dog</reminder> brown".

    Raises UserError when either is empty, the reminder holds "<" or ">", or the answer a reminder's tag.
    """
    said = f"{OPEN}{' '.join(reminder.split())}{CLOSE} {answer.strip()}"
    split_reminder(said)  # raises if this could not be read back
    return said


def split_reminder(text: str) -> tuple[str | None, str]:
    """ "<reminder>it = the dog</reminder> brown" → ("it = the dog", "brown"); without any tag (None, text).

    Raises UserError, saying what is wrong, unless there is one reminder, at the start, closed, not empty and
    without angle brackets, and an answer behind it.
    """
    text = text.strip()
    if OPEN not in text and CLOSE not in text:
        return None, text
    opened, closed = text.count(OPEN), text.count(CLOSE)
    if opened != 1 or closed > 1:
        raise UserError(f"expected one {OPEN}, found {opened} of it and {closed} of {CLOSE}")
    if not text.startswith(OPEN):
        raise UserError(f"the reminder should stand before the answer, found {text[:40]!r}")
    if not closed:
        raise UserError(f"the reminder is not closed with {CLOSE}")
    reminder, answer = (part.strip() for part in text.removeprefix(OPEN).split(CLOSE))
    if not reminder or not answer:
        raise UserError("nothing in the reminder" if not reminder else "no answer behind the reminder")
    if "<" in reminder or ">" in reminder:
        raise UserError(f"the reminder holds an angle bracket: {reminder!r}")
    return reminder, answer


def said_fields(text: str) -> dict[str, str]:
    """What a model said → {"answer"}, with its "reminder" if it gave a whole one.

    Of a reminder that `split_reminder` refuses (one that never ends, say) nothing is left in the answer.
    """
    try:
        reminder, answer = split_reminder(text)
    except UserError:
        reminder, answer = None, text.rpartition(CLOSE)[2] if CLOSE in text else text.partition(OPEN)[0]
    return {"answer": answer.strip()} | ({} if reminder is None else {"reminder": reminder})


def question_text(question: str, what: str = "question") -> str:
    """A question as it stands in a prompt: VisDial's have no "?". Raises UserError when it is empty."""
    return plain_text(question.rstrip(" ?"), what) + "?"


def chat_messages(turns: Sequence[tuple[str, str | None]], caption: str | None = None) -> list[dict]:
    """(question, answer) pairs → messages as TRL reads them, with a picture before the first question.

    An answer of None (the last one only) leaves the question open: the model is to answer it.
    Raises UserError for empty text, an answer missing in the middle, or no turns at all.
    """
    if not turns:
        raise UserError("there is no question to answer")
    messages: list[dict] = []
    for number, (question, answer) in enumerate(turns, 1):
        text = question_text(question, f"question {number}")
        if number == 1 and caption is not None:
            text = plain_text(caption, "caption") + "\n" + text
        picture = [{"type": "image"}] if number == 1 else []
        messages.append({"role": "user", "content": [*picture, {"type": "text", "text": text}]})
        if answer is not None:
            answered = plain_text(answer, f"answer {number}")
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answered}]})
        elif number < len(turns):
            raise UserError(f"question {number} has no answer, but more questions follow")
    return messages


def dialog_messages(
    dialog: Dialog, upto: int | None = None, reminders: Sequence[str | None] = ()
) -> list[dict]:
    """The dialog as messages; with `upto` = r (from 1) only rounds 1 … r, the answer to round r left open.

    The first question follows picture and caption. reminders: what stands before the answers of the first
    rounds (None: nothing). Raises UserError for empty texts and for an `upto` out of range.
    """
    with naming(f"dialog {dialog.image_id}"):
        if upto is not None and not 1 <= upto <= len(dialog.rounds):
            raise UserError(f"round {upto} asked for, it has rounds 1 to {len(dialog.rounds)}")
        turns = with_reminders([(turn.question, turn.answer) for turn in dialog.rounds[:upto]], reminders)
        if upto is not None:
            turns[-1] = (turns[-1][0], None)
        return chat_messages(turns, dialog.caption)


def with_reminders(
    turns: Sequence[tuple[str, str | None]], reminders: Sequence[str | None]
) -> list[tuple[str, str | None]]:
    """(question, answer) pairs, the first answers with these reminders before them (None: without)."""
    return [
        (question, answer if answer is None or reminder is None else join_reminder(reminder, answer))
        for (question, answer), reminder in itertools.zip_longest(turns, reminders[: len(turns)])
    ]


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer inside a processor; a text-only model has nothing but a tokenizer."""
    return getattr(processor, "tokenizer", processor)


def takes_images(processor: Any) -> bool:
    """Whether this model sees: text-only Gemma-3 has no image processor."""
    return hasattr(processor, "image_processor")


def parts(message: dict) -> list[dict]:
    """A message's content as a list of parts; plain text is one part."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def message_text(message: dict) -> str:
    """What is written in a message of either form: its content is text, or a list of parts."""
    return "".join(part.get("text", "") for part in parts(message))


def render(processor: Any, messages: list[dict], add_generation_prompt: bool = False) -> str:
    """The chat template's text, with control tokens disarmed and the picture's place filled with its tokens.

    A text-only model's text has no picture in it. Raises UserError for an empty turn.
    """
    sees, safe = takes_images(processor), []
    for number, message in enumerate(messages, 1):
        text = plain_text(message_text(message), f"message {number}")
        picture = [{"type": "image"} for part in parts(message) if sees and part["type"] == "image"]
        safe.append({"role": message["role"], "content": [*picture, {"type": "text", "text": text}]})
    text = processor.apply_chat_template(safe, tokenize=False, add_generation_prompt=add_generation_prompt)
    # the only <start_of_image> left are ours
    return text.replace(processor.boi_token, processor.full_image_sequence) if sees else text


def encode(
    processor: Any, messages: list[dict], image: "Image | None" = None, add_generation_prompt: bool = False
) -> dict[str, Any]:
    """Messages (and picture) → what the model reads, and which of it is learnt.

    Returns input_ids [L] int64, token_type_ids [L] int64 (1 = picture, attended to both ways), supervised [L]
    bool (answers and their <end_of_turn>), pixel_values [3, H, W] float or None. Text-only models ignore
    `image`.
    """
    import torch

    encoded = _encode_text(processor, messages, add_generation_prompt)
    pictures = sum(part["type"] == "image" for message in messages for part in parts(message))
    pixels = None
    if takes_images(processor) and pictures:
        if image is None or pictures > 1:
            raise UserError(f"the messages hold {pictures} picture(s); give exactly one image")
        pixels = processor.image_processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    return {name: torch.tensor(values) for name, values in encoded.items()} | {"pixel_values": pixels}


def token_count(processor: Any, messages: list[dict]) -> int:
    """Length of the encoded messages in tokens, picture included, without opening the picture."""
    return len(_encode_text(processor, messages)["input_ids"])


def prompt_ids(processor: Any, messages: list[dict]) -> list[int]:
    """Token ids of messages that end with an open question, up to where the answer begins."""
    return _encode_text(processor, messages, add_generation_prompt=True)["input_ids"]


def supervised_tokens(processor: Any, messages: list[dict]) -> list[tuple[str, bool]]:
    """(token, is it learnt?) for each token of the messages, to look at; "▁" is shown as a space."""
    encoded = _encode_text(processor, messages)
    tokens = tokenizer_of(processor).convert_ids_to_tokens(encoded["input_ids"])
    return list(zip((token.replace("▁", " ") for token in tokens), encoded["supervised"], strict=True))


def control_tokens(processor: Any, text: str) -> list[tuple[str, bool]]:
    """(token, is it a control token?) for each token of bare text, as it stands: nothing is disarmed here."""
    tokens = (token.replace("▁", " ") for token in tokenizer_of(processor).tokenize(text))
    return [(token, _CONTROL.match(token) is not None) for token in tokens]


def _encode_text(
    processor: Any, messages: list[dict], add_generation_prompt: bool = False
) -> dict[str, list]:
    tokenizer = tokenizer_of(processor)
    text = render(processor, messages, add_generation_prompt)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # the template has <bos> already
    starts = answer_starts(tokenizer, ids)
    expected = sum(message["role"] == "assistant" for message in messages) + add_generation_prompt
    if len(starts) != expected:
        raise UserError(
            "this model's tokenizer or chat template does not mark turns as Gemma's does "
            f"({len(starts)} of {expected} answers found); use a Gemma-3 instruction model"
        )
    end, supervised = tokenizer.convert_tokens_to_ids(END), [False] * len(ids)
    answers = [message for message in messages if message["role"] == "assistant"]
    for start, answer in zip(starts, answers, strict=False):  # a generation prompt is a start without answer
        if answer.get("weight") != 0:  # 0: read but not learnt, as in OpenAI's fine-tuning format
            stop = ids.index(end, start) + 1
            supervised[start:stop] = [True] * (stop - start)
    picture = tokenizer.image_token_id if takes_images(processor) else None
    token_types = [int(token == picture) for token in ids]
    return {"input_ids": ids, "token_type_ids": token_types, "supervised": supervised}


def answer_starts(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Where each answer begins: the index after every "<start_of_turn>model\\n", found on the token ids."""
    header = tokenizer(ANSWER_HEADER, add_special_tokens=False)["input_ids"]
    ids, size = list(ids), len(header)
    return [place + size for place in range(len(ids)) if ids[place : place + size] == header]


def answer_ids(processor: Any, answers: Sequence[str], recalled: bool = False) -> list[list[int]]:
    """Token ids of each answer as it stands in a chat, with its <end_of_turn>: what ranking scores.

    recalled: as it stands behind a reminder (whose own tokens are not among them).
    """
    tokenizer = tokenizer_of(processor)
    before = ANSWER_HEADER + (f"{OPEN}{CLOSE} " if recalled else "")
    texts = [before + plain_text(answer, "answer") + END for answer in answers]
    header = len(tokenizer(before.rstrip(" "), add_special_tokens=False)["input_ids"])
    return [ids[header:] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def pass_reminders(processor: Any, prompt: dict[str, Any], reminders: Sequence[str | None]) -> list[int]:
    """Where the answer of each round starts in an encoded dialog whose last question is open: behind the
    round's reminder, if there is one. The last round's is added to the prompt.
    """
    import torch

    tokenizer, ids = tokenizer_of(processor), []
    header = len(tokenizer(ANSWER_HEADER, add_special_tokens=False)["input_ids"])
    for reminder in reminders:
        text = ANSWER_HEADER + (
            "" if reminder is None else f"{OPEN}{plain_text(reminder, 'reminder')}{CLOSE}"
        )
        ids.append(tokenizer(text, add_special_tokens=False)["input_ids"][header:])
    for name, added in (("input_ids", ids[-1]), ("token_type_ids", [0] * len(ids[-1]))):
        prompt[name] = torch.cat([prompt[name], torch.tensor(added, dtype=torch.long)])
    starts = answer_starts(tokenizer, prompt["input_ids"].tolist())
    for start, own in zip(starts, ids, strict=True):
        if prompt["input_ids"][start : start + len(own)].tolist() != own:
            raise UserError("this tokenizer joins the end of a reminder with the answer behind it")
    return [start + len(own) for start, own in zip(starts, ids, strict=True)]


def blank(image: "Image") -> "Image":
    """A mid-gray picture of the same size: what a model scores without seeing is its blind baseline."""
    from PIL import Image

    return Image.new("RGB", image.size, (128, 128, 128))


def input_image(processor: Any, dialog: Dialog, blank_image: bool = False) -> "Image | None":
    """The picture of a dialog for this model: None for a text-only one, a gray one if asked."""
    if not takes_images(processor):
        return None
    if (
        blank_image and dialog.image_path is None
    ):  # gray needs no photo, and the processor makes any size its own
        from PIL import Image

        return blank(Image.new("RGB", (640, 480)))
    return blank(dialog.image()) if blank_image else dialog.image()


def pad(processor: Any, examples: list[dict[str, Any]], side: str = "right") -> dict[str, "torch.Tensor"]:
    """Encoded examples → a batch: input_ids, attention_mask, token_type_ids, labels [B, L], pixel_values
    [B, 3, H, W].

    Training pads on the right, generation on the left (the next token comes after the last column).
    Text-only models get neither token_type_ids nor pixel_values.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def rows(name: str, fill: int) -> "torch.Tensor":
        values = [example[name] for example in examples]
        return pad_sequence(values, batch_first=True, padding_value=fill, padding_side=side)

    examples = [example | {"ones": torch.ones_like(example["input_ids"])} for example in examples]
    padding = tokenizer_of(processor).pad_token_id
    batch = {"input_ids": rows("input_ids", padding), "attention_mask": rows("ones", 0)}
    if takes_images(processor):
        batch["token_type_ids"] = rows("token_type_ids", 0)
        pixels = [example["pixel_values"] for example in examples if example["pixel_values"] is not None]
        if pixels:
            batch["pixel_values"] = torch.stack(pixels)
    if "labels" in examples[0]:
        batch["labels"] = rows("labels", IGNORED)
    return batch


def record_image(record: dict) -> "Image | None":
    """Open a record's picture. Raises UserError naming image id and file when it is missing or damaged."""
    if record["image"] is None:
        return None
    return Dialog(record["image_id"], "", (), resolve(record["image"]), record["source"]).image()


def collator(processor: Any) -> Callable[[list[dict]], dict[str, "torch.Tensor"]]:
    """A function from records to a padded batch whose labels are IGNORED except on supervised tokens."""

    def collate(records: list[dict]) -> dict[str, "torch.Tensor"]:
        examples = []
        for record in records:
            image = record_image(record) if takes_images(processor) else None
            example = encode(processor, record["messages"], image)
            example["labels"] = example["input_ids"].masked_fill(~example["supervised"], IGNORED)
            examples.append(example)
        return pad(processor, examples)

    return collate
