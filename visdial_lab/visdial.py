"""Reading Visual Dialog v1.0: dialogs, rounds, the 100 options, dense annotations, and finding the images."""

import base64
import dataclasses
import html
import io
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visdial_lab.errors import UserError, shown
from visdial_lab.files import read_json, resolve

OPTIONS = 100  # candidates a round, in every file that has candidates at all
IMAGE_PATTERNS = (  # below the image folder, or directly inside it by the last part of the name
    "images/{:012d}.png",  # the embedded scenes
    "images/{:012d}.jpg",
    "train2014/COCO_train2014_{:012d}.jpg",  # VisDial's train split draws on both COCO folders,
    "val2014/COCO_val2014_{:012d}.jpg",  # and its JSON does not say on which
    "VisualDialog_val2018/VisualDialog_val2018_{:012d}.jpg",
    "VisualDialog_test2018/VisualDialog_test2018_{:012d}.jpg",
)

_SPLITS = ("train", "val", "test")
_KINDS = {int: "a whole number", str: "text", list: "a list", dict: "an object"}
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can hold these; no file can be written with them


@dataclasses.dataclass(frozen=True)
class Round:
    """One question with what is known about its answer; what a split does not tell is None."""

    round_id: int  # counts from 1, as in the dense annotations and predictions
    question: str  # lower case, without "?"
    answer: str | None
    options: tuple[str, ...] | None  # 100 candidate answers
    gt_index: int | None  # place of the human answer in options, from 0
    relevance: tuple[float, ...] | None  # 0 to 1 for each option, annotated for one round of a dialog


@dataclasses.dataclass(frozen=True)
class Dialog:
    """An image (by id and, where found, path), its caption, and up to ten rounds about it."""

    image_id: int
    caption: str
    rounds: tuple[Round, ...]
    image_path: Path | None
    split: str

    def __repr__(self) -> str:  # short, and without this machine's paths: notebooks keep what they show
        return f"<Dialog {self.image_id} ({self.split}, {len(self.rounds)} rounds): {self.caption!r}>"

    def image(self):
        """Open the picture as an RGB PIL image. Raises UserError when it is missing or damaged."""
        if self.image_path is None:
            name = f"{self.image_id:012d}.jpg"
            raise UserError(
                f"dialog {self.image_id}: no image …{name} found; is image_root the right folder?"
            )
        from PIL import Image

        try:
            with Image.open(self.image_path) as picture:
                return picture.convert("RGB")
        except Exception as error:  # Pillow raises a dozen different types on damaged files
            raise UserError(f"dialog {self.image_id}: damaged image {self.image_path} ({error})") from None

    def _repr_html_(self) -> str:
        turns = "".join(_turn_html(turn) for turn in self.rounds)
        return (
            f'<div style="{_CARD}">{thumbnail_html(self, 260)}'
            f'<div style="flex:1;min-width:260px;max-width:560px">'
            f'<div style="font-weight:600;margin-bottom:6px">{html.escape(self.caption)}</div>{turns}'
            f'<div style="{_SMALL}">image {self.image_id} · {html.escape(self.split)}</div></div></div>'
        )


class VisDial(Sequence):
    """A split of Visual Dialog as a sequence of Dialog. Strings are looked up when a dialog is asked for,
    so that the 123,287 training dialogs with their 100 options a round fit in memory."""

    def __init__(self, entries, questions, answers, relevance, split, path, image_root):
        self._entries, self._questions, self._answers = entries, questions, answers
        self._relevance, self._image_root = relevance, image_root
        self.split, self.path = split, path
        self._position = {entry["image_id"]: i for i, entry in enumerate(entries)}

    @classmethod
    def load(cls, source="data/scenes", split=None, dense=None, image_root=None) -> "VisDial":
        """Read and check a dialogs file.

        source: a folder with visdial_1.0_{split}.json (and dense annotations, if there), or a dialogs file.
        split: "train", "val" (default) or "test"; for a file, what the file itself says goes first.
        dense: a dense annotations file. image_root: folder of the images (default: the source's folder).
        Raises UserError naming file, entry and field for whatever is missing or wrong.
        """
        source = resolve(source)
        if source.is_dir():
            split = split or "val"
        path, dense = _find_files(source, split, dense)
        image_root = resolve(image_root) if image_root is not None else path.parent
        document = read_json(path, "dialogs file")
        try:
            data, named = _check_document(document)
            split = _agree_on_split(split, named)
            _check_dialogs(data, split)
        except _Problem as problem:
            raise UserError(f"dialogs file {path}: {problem}") from None
        visdial = cls(data["dialogs"], data["questions"], data["answers"], {}, split, path, image_root)
        if dense is not None:
            try:
                visdial._relevance = _check_dense(read_json(dense, "dense annotations file"), visdial)
            except _Problem as problem:
                raise UserError(f"dense annotations file {dense}: {problem}") from None
        return visdial

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self._subset(self._entries[index])
        entry = self._entries[index]
        image_id = entry["image_id"]
        rounds = tuple(self._round(image_id, i, turn) for i, turn in enumerate(entry["dialog"], 1))
        return Dialog(image_id, entry["caption"], rounds, self._image_path(image_id), self.split)

    def by_id(self, image_id: int) -> Dialog:
        """The dialog about this image. Raises UserError when there is none."""
        if image_id not in self._position:
            raise UserError(f"{self.path} has no dialog for image {image_id}")
        return self[self._position[image_id]]

    def sample(self, n: int, seed: int = 0) -> "VisDial":
        """n different dialogs in file order, the same for a seed. Raises UserError if there are fewer."""
        if not 0 <= n <= len(self):
            raise UserError(f"cannot sample {n} dialogs: {self.path} has {len(self)}")
        chosen = sorted(random.Random(seed).sample(range(len(self)), n))
        return self._subset([self._entries[i] for i in chosen])

    def _subset(self, entries) -> "VisDial":
        tables = self._questions, self._answers, self._relevance
        return VisDial(entries, *tables, self.split, self.path, self._image_root)

    def _round(self, image_id: int, round_id: int, turn: dict) -> Round:
        options = turn.get("answer_options")
        return Round(
            round_id,
            self._questions[turn["question"]],
            self._answers[turn["answer"]] if "answer" in turn else None,
            tuple(map(self._answers.__getitem__, options)) if options is not None else None,
            turn.get("gt_index"),
            self._relevance.get((image_id, round_id)),
        )

    def _image_path(self, image_id: int) -> Path | None:
        for pattern in IMAGE_PATTERNS:
            name = pattern.format(image_id)
            for place in (name, name.rpartition("/")[2]):
                path = os.path.join(self._image_root, place)  # plain text: this runs for every dialog read
                if os.path.isfile(path):
                    return Path(path)
        return None

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<div style="{_CARD};align-items:center">{thumbnail_html(dialog, 72)}'
            f'<div style="flex:1;min-width:200px">{html.escape(dialog.caption)}'
            f'<div style="{_SMALL}">image {dialog.image_id} · {len(dialog.rounds)} rounds</div></div></div>'
            for dialog in self[:5]
        )
        title = f"<b>VisDial {html.escape(self.split)}</b>: {len(self):,} dialogs"
        return f'<div style="font-family:system-ui,sans-serif">{title}{rows}</div>'


class _Problem(Exception):
    """What is wrong inside a file; `load` adds the file's name."""


def _find_files(source: Path, split: str | None, dense) -> tuple[Path, Path | None]:
    """The dialogs file and, if there, the dense annotations (official train's has a name of its own)."""
    dense = resolve(dense) if dense is not None else None
    if not source.is_dir():
        return source, dense
    path = source / f"visdial_1.0_{split}.json"
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in source.glob("visdial_1.0_*.json"))) or "none"
        raise UserError(f"no {path.name} in folder {source} (dialogs files there: {there}); check the split")
    for name in (f"visdial_1.0_{split}_dense_annotations.json", f"visdial_1.0_{split}_dense_sample.json"):
        if dense is None and (source / name).is_file():
            dense = source / name
    return path, dense


def _agree_on_split(asked: str | None, named: str | None) -> str:
    """The split's short name. Files say "val2018" or "test2018", and subsets may have names of their own."""
    said = next((name for name in _SPLITS if (named or "").startswith(name)), None)
    if said is not None and asked in _SPLITS and asked != said:
        raise _Problem(f"split is {shown(named)}, but {asked} was asked for; were two files swapped?")
    return asked or said or "val"


def _need(holder: dict, key: str, kind: type, place: str) -> Any:
    """holder[key], which must be there and of exactly this type (True is no whole number here)."""
    if key not in holder:
        raise _Problem(f"{place}{key} is missing")
    if type(holder[key]) is not kind:
        raise _Problem(f"{place}{key} should be {_KINDS[kind]}, is {shown(holder[key])}")
    return holder[key]


def _need_index(holder: dict, key: str, size: int, place: str) -> int:
    index = _need(holder, key, int, place)
    if not 0 <= index < size:
        raise _Problem(f"{place}{key} is {shown(index)}, expected 0 to {size - 1}")
    return index


def _need_objects(items: list, place: str) -> None:
    for i, item in enumerate(items):
        if type(item) is not dict:
            raise _Problem(f"{place}[{i}] should be an object, is {shown(item)}")


def _check_text(text: Any, place: str) -> None:
    if type(text) is not str:
        raise _Problem(f"{place} should be text, is {shown(text)}")
    if _HALF_CHARACTER.search(text):
        raise _Problem(f"{place} holds half a character, {text[:60]!a}: the file was cut or converted badly")


def _check_document(document: Any) -> tuple[dict, str | None]:
    """The outer shell and the string tables → (data, what the file calls its split)."""
    if isinstance(document, list):
        first = document[0] if document and isinstance(document[0], dict) else {}
        what = "predictions" if "ranks" in first else "dense annotations" if "round_id" in first else "a list"
        raise _Problem(f"this holds {what}, not dialogs; were two files swapped?")
    if not isinstance(document, dict):
        raise _Problem(f"expected an object with split and data, got {shown(document)}")
    data = _need(document, "data", dict, "")
    for table in ("questions", "answers"):
        for i, text in enumerate(_need(data, table, list, "data.")):
            _check_text(text, f"data.{table}[{i}]")
    if not _need(data, "dialogs", list, "data."):
        raise _Problem("data.dialogs is empty")
    return data, _need(document, "split", str, "") if "split" in document else None


def _check_dialogs(data: dict, split: str) -> None:
    dialogs, n_questions, n_answers = data["dialogs"], len(data["questions"]), len(data["answers"])
    _need_objects(dialogs, "data.dialogs")
    first_use: dict[int, int] = {}
    for i, entry in enumerate(dialogs):
        place = f"data.dialogs[{i}]"
        image_id = _need_index(entry, "image_id", 10**12, f"{place}.")  # file names have 12 digits
        if first_use.setdefault(image_id, i) != i:
            raise _Problem(
                f"{place}.image_id {image_id} was used by data.dialogs[{first_use[image_id]}] already"
            )
        _check_text(_need(entry, "caption", str, f"{place}."), f"{place}.caption")
        turns = _need(entry, "dialog", list, f"{place}.")
        if not turns:
            raise _Problem(f"{place}.dialog is empty")
        _need_objects(turns, f"{place}.dialog")
        for j, turn in enumerate(turns):
            _check_round(turn, f"{place}.dialog[{j}].", n_questions, n_answers)
    # Some published subsets have no options at all; a file that has them must have them everywhere.
    with_options = any("answer_options" in turn for entry in dialogs for turn in entry["dialog"])
    for i, entry in enumerate(dialogs):
        for j, turn in enumerate(entry["dialog"]):
            for key in _needed_keys(split, j == len(entry["dialog"]) - 1, with_options):
                if key not in turn:
                    raise _Problem(f"data.dialogs[{i}].dialog[{j}].{key} is missing")


def _needed_keys(split: str, last: bool, with_options: bool) -> tuple[str, ...]:
    """The test split has options only in a dialog's last round, and keeps the answer to that one secret."""
    if split.startswith("test"):
        return () if last and not with_options else ("answer_options",) if last else ("answer",)
    return ("answer", "answer_options", "gt_index") if with_options else ("answer",)


def _check_round(turn: dict, place: str, n_questions: int, n_answers: int) -> None:
    _need_index(turn, "question", n_questions, place)
    if "answer" in turn:
        _need_index(turn, "answer", n_answers, place)
    if "answer_options" in turn:
        options = _need(turn, "answer_options", list, place)
        if len(options) != OPTIONS:
            raise _Problem(f"{place}answer_options has {len(options)} entries, expected {OPTIONS}")
        if set(map(type, options)) != {int} or min(options) < 0 or max(options) >= n_answers:
            k, bad = next(
                (k, x) for k, x in enumerate(options) if type(x) is not int or not 0 <= x < n_answers
            )
            raise _Problem(f"{place}answer_options[{k}] is {shown(bad)}, expected 0 to {n_answers - 1}")
    if "gt_index" in turn:
        gt_index = _need_index(turn, "gt_index", OPTIONS, place)
        if "answer_options" not in turn:
            raise _Problem(f"{place}gt_index is there, but answer_options is missing")
        if turn["answer_options"][gt_index] != turn.get("answer"):
            there = turn["answer_options"][gt_index]
            raise _Problem(
                f"{place}gt_index points at answer {there}, but answer is {shown(turn.get('answer'))}"
            )


def _check_dense(document: Any, visdial: VisDial) -> dict[tuple[int, int], tuple[float, ...]]:
    """{(image_id, round_id): relevance of each option}. Train files say `relevance`, val `gt_relevance`."""
    if isinstance(document, dict) and "data" in document:
        raise _Problem("this holds dialogs, not dense annotations; were two files swapped?")
    if not isinstance(document, list):
        raise _Problem(f"expected a list of annotations, got {shown(document)}")
    _need_objects(document, "")
    relevance: dict[tuple[int, int], tuple[float, ...]] = {}
    for i, entry in enumerate(document):
        if "ranks" in entry:
            raise _Problem("this holds predictions, not dense annotations; were two files swapped?")
        image_id, round_id = (_need(entry, key, int, f"[{i}].") for key in ("image_id", "round_id"))
        if image_id not in visdial._position:
            raise _Problem(f"[{i}].image_id {image_id} is not in {visdial.path}; do the two belong together?")
        turns = visdial._entries[visdial._position[image_id]]["dialog"]
        if not 1 <= round_id <= len(turns):
            raise _Problem(f"[{i}].round_id is {round_id}, expected 1 to {len(turns)} for image {image_id}")
        if "answer_options" not in turns[round_id - 1]:
            raise _Problem(
                f"[{i}]: round {round_id} of image {image_id} has no answer_options to be relevant"
            )
        if (image_id, round_id) in relevance:
            raise _Problem(f"[{i}] annotates round {round_id} of image {image_id} a second time")
        key = "relevance" if "relevance" in entry else "gt_relevance"
        values = _need(entry, key, list, f"[{i}].")
        if len(values) != OPTIONS:
            raise _Problem(f"[{i}].{key} has {len(values)} entries, expected {OPTIONS}")
        for k, value in enumerate(values):
            if type(value) not in (int, float) or not 0 <= value <= 1:  # NaN compares False as well
                raise _Problem(f"[{i}].{key}[{k}] is {shown(value)}, expected a number from 0 to 1")
        relevance[image_id, round_id] = tuple(map(float, values))
    return relevance


# How things look in a notebook. Colours are inherited or see-through: light and dark pages both work.
_CARD = (
    "display:flex;flex-wrap:wrap;gap:16px;padding:10px;margin:6px 0;border:1px solid rgba(128,128,128,.35);"
    "border-radius:10px;font:14px/1.4 system-ui,sans-serif;color:inherit"
)
_ROW = "display:flex;justify-content:space-between;align-items:start;gap:12px;margin:3px 0"
_BUBBLE = "padding:2px 10px;border-radius:12px;background:rgba"
_NO_IMAGE = "padding:20px 0;text-align:center;border:1px dashed;border-radius:8px;opacity:.6"
_SMALL = "opacity:.65;font-size:12px"


def _turn_html(turn: Round) -> str:
    """A question on the left, its answer on the right, as in a chat."""
    answer = html.escape(turn.answer) if turn.answer is not None else f'<i style="{_SMALL}">not published</i>'
    return (
        f'<div style="{_ROW}"><span style="{_BUBBLE}(128,128,128,.15)">{html.escape(turn.question)}?</span>'
        f'<span style="{_BUBBLE}(66,133,244,.22);text-align:right">{answer}</span></div>'
    )


def thumbnail_html(dialog: Dialog, width: int) -> str:
    """The picture inside the page itself, so that a saved notebook shows it anywhere."""
    try:
        picture = dialog.image()
    except UserError:
        return f'<div style="width:{width}px;align-self:flex-start;{_NO_IMAGE}">no image</div>'
    picture.thumbnail((width, width))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    style = f"width:{width}px;height:auto;align-self:flex-start;border-radius:8px"
    return f'<img alt="{html.escape(dialog.caption)}" src="{source}" style="{style}">'
