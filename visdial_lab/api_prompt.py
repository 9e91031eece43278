"""What a big model is asked for a training record, and what counts as an answer. No network here.

The instructions and examples are in templates/prompts/STYLE-VERSION.txt; a changed text gets a new version.
"""

from importlib import resources
from pathlib import Path

from visdial_lab.chat import CLOSE, OPEN, plain_text, question_text, split_reminder
from visdial_lab.errors import UserError, naming, shown
from visdial_lab.files import read_text
from visdial_lab.text_metrics import normalise
from visdial_lab.visdial import Dialog, jpeg_url

# style → the current version of its prompt
TEMPLATES = {"reminder": "reminder-1.txt", "plain": "plain-1.txt"}
LONGEST_SIDE = 896  # pixels: what Gemma-3 reads; a larger picture only takes longer to send
MOST_CHARACTERS, MOST_REMINDER_WORDS, MOST_ANSWER_WORDS = 2000, 60, 20


def instructions(style: str, template: str | Path | None = None) -> str:
    """The system prompt of a style, or the text of a file of your own. UserError for an unknown style."""
    if style not in TEMPLATES:
        raise UserError(f"style: expected {' or '.join(TEMPLATES)}, got {shown(style)}")
    if template is not None:
        return plain_text(read_text(template, "prompt template"), f"prompt template {template}")
    folder = resources.files("visdial_lab") / "templates" / "prompts"
    return (folder / TEMPLATES[style]).read_text(encoding="utf-8").strip()


def prompt(
    dialog: Dialog,
    round_id: int,
    style: str = "reminder",
    picture: bool = True,
    template: str | Path | None = None,
) -> list[dict]:
    """The messages that ask for the answer of one round (from 1), in the format of OpenAI's chat API.

    template: a file with instructions of your own. Raises UserError for an unknown style, and as
    `prompt_messages`.
    """
    return prompt_messages(instructions(style, template), dialog, round_id, picture)


def prompt_messages(system: str, dialog: Dialog, round_id: int, picture: bool = True) -> list[dict]:
    """The same behind instructions that were read already: a file may change while a run goes on.

    The model is given the picture (as a data URL), the caption, the human rounds before, and the question;
    nothing of this round's answer, of its options, or of any later round. Raises UserError for a round that
    is not there, empty texts, and a picture that is missing or damaged.
    """
    with naming(f"dialog {dialog.image_id}"):
        if not 1 <= round_id <= len(dialog.rounds):
            raise UserError(f"there is no round {round_id}")
        lines = [f"Caption: {plain_text(dialog.caption, 'caption')}", "Dialog so far:"]
        for turn in dialog.rounds[: round_id - 1]:
            lines += [f"Q: {question_text(turn.question)}", f"A: {plain_text(turn.answer, 'answer')}"]
        if round_id == 1:
            lines[-1] += " nothing yet"
        lines.append(f"Question: {question_text(dialog.rounds[round_id - 1].question)}")
    content = [{"type": "text", "text": "\n".join(lines)}]
    if picture:
        url = jpeg_url(dialog.image(), LONGEST_SIDE, quality=90)
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def ask_again(messages: list[dict], reply: str, reason: str) -> list[dict]:
    """The messages that ask once more, saying what was wrong with the reply before."""
    reply = plain_text(reply[:MOST_CHARACTERS] or "(nothing)")
    complaint = f"This cannot be used: {reason}. Write it again, in exactly the form of the examples."
    return [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": complaint}]


def parse_reply(text: str, style: str = "reminder", question: str = "") -> tuple[str | None, str]:
    """A reply → (reminder, or None in plain style; answer), both checked.

    Raises UserError, whose text is the reason, unless the reply has the form that the style asks for and the
    answer is one short line that does not repeat the question or the reminder.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"the reply is too long: {len(text)} characters, at most {MOST_CHARACTERS}")
    plain_text(text, "the reply")  # not empty, no broken characters
    if style == "plain" and (OPEN in text or CLOSE in text):
        raise UserError("a reminder stands where only the answer belongs")
    reminder, answer = split_reminder(text)
    if style == "reminder" and reminder is None:
        raise UserError(f"there is no {OPEN}…{CLOSE} before the answer")
    if reminder is not None and (words := len(reminder.split())) > MOST_REMINDER_WORDS:
        raise UserError(f"the reminder is too long: {words} words, at most {MOST_REMINDER_WORDS}")
    if len(answer.splitlines()) > 1:
        raise UserError("the answer has more than one line")
    if (words := len(answer.split())) > MOST_ANSWER_WORDS:
        raise UserError(f"the answer is too long: {words} words, at most {MOST_ANSWER_WORDS}")
    if "<" in answer or ">" in answer:
        raise UserError(f"the answer holds an angle bracket: {answer!r}")
    said, asked = (f" {' '.join(normalise(part))} " for part in (answer, question))
    if not said.strip():
        raise UserError(f"the answer has no word in it: {answer!r}")
    if said.startswith((" q ", " question ", " caption ", " you write ")) or (
        asked in said and (said == asked or len(asked.split()) > 2)
    ):
        raise UserError(f"the answer echoes what was asked: {answer!r}")
    if reminder is not None and said.split() == normalise(reminder):
        raise UserError("the answer only repeats the reminder")
    return reminder, answer
