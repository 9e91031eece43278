"""A VisDial v1.0 dialogs file becomes checked columns of numbers; a large one is parsed only once.

The training file holds 123 million candidates: as Python objects they would take five times the file. Here
each list of 100 is packed into 400 bytes as soon as the parser has seen it.
"""

import contextlib
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from visdial_lab.errors import UserError, naming, shown
from visdial_lab.files import atomic_folder, read_bytes, read_json, write_json

OPTIONS = 100  # candidates a round, in every file that has candidates at all
SPLITS = ("train", "val", "test")
CACHE_FROM = 64 << 20  # bytes; a smaller file is parsed in less than half a second anyway
_FORMAT = 1  # of the cache; to be raised when the columns change


class Columns(NamedTuple):
    """A dialogs file as arrays: N dialogs, R rounds, O of them with options; -1 stands for "not told"."""

    split: str  # what the file itself says: "train", "val2018" …, or ""
    questions: list[str]
    answers: list[str]
    captions: list[str]  # [N]
    image_ids: np.ndarray  # [N]
    starts: np.ndarray  # [N + 1]: dialog n has the rounds starts[n] … starts[n + 1] - 1
    rounds: np.ndarray  # [R, 4]: question, answer, gt_index, row in `options`
    options: np.ndarray  # [O, 100]: places in `answers`


# What a file must look like, field by field. Names are the format's own.
_Index = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Relevance = list[Annotated[float, msgspec.Meta(ge=0, le=1)]]
_pack = struct.Struct(f"{OPTIONS}i").pack


class _Round(msgspec.Struct, gc=False):
    question: _Index
    answer: _Index = -1
    answer_options: list[_Index] | None = None
    gt_index: Annotated[int, msgspec.Meta(ge=0, lt=OPTIONS)] = -1

    def __post_init__(self) -> None:
        if self.answer_options is not None:
            _need_100(self.answer_options, "answer_options")
            self.answer_options = _pack(*self.answer_options)


class _Dialog(msgspec.Struct, gc=False):
    image_id: Annotated[int, msgspec.Meta(ge=0, lt=10**12)]  # file names have 12 digits
    caption: str
    dialog: Annotated[list[_Round], msgspec.Meta(min_length=1)]


_Entry = TypeVar("_Entry", _Dialog, msgspec.Raw)  # Raw: bytes still to be read, so that each can fail alone


class _Data(msgspec.Struct, Generic[_Entry]):
    questions: list[str]
    answers: list[str]
    dialogs: Annotated[list[_Entry], msgspec.Meta(min_length=1)]


class _Document(msgspec.Struct, Generic[_Entry]):
    data: _Data[_Entry]
    split: str = ""
    version: msgspec.Raw = msgspec.Raw()


class _Annotation(msgspec.Struct):
    image_id: int
    round_id: int
    gt_relevance: _Relevance | None = None  # the key in val,
    relevance: _Relevance | None = None  # and in train

    def __post_init__(self) -> None:
        name = "gt_relevance" if self.relevance is None else "relevance"
        self.relevance = getattr(self, name)
        if self.relevance is None:
            raise ValueError(f"{name} is missing")
        _need_100(self.relevance, name)


def _need_100(values: list, name: str) -> None:
    if len(values) != OPTIONS:
        raise ValueError(f"{name} has {len(values)} entries, expected {OPTIONS}")


def read_split(
    path: Path, asked: str | None = None, on_bad: Callable[[int, str], None] | None = None
) -> tuple[Columns, str]:
    """Read and check a dialogs file; returns its columns and the short name of its split.

    asked: the split, if the file does not say. on_bad(number of a dialog, reason): called for each dialog at
    fault, which is left out; without it the first one is a UserError. What is wrong with the file as a whole
    always is. The message names file, entry and field.
    """
    try:
        columns = read_columns(path)
        with naming(f"dialogs file {path}"):
            split = _agree_on_split(asked, columns.split)
            _check_split(columns, split, len(columns.options) > 0)
    except UserError:
        if on_bad is None:
            raise
        with naming(f"dialogs file {path}"):
            return _read_good(path, asked, on_bad)
    return columns, split


def read_columns(path: Path) -> Columns:
    """Read and check a dialogs file, or map the columns that an earlier reading of this very file has kept.

    Raises UserError naming file, entry and field.
    """
    key = _identity(path)
    folders = _cache_folders(path) if key else ()
    for folder in folders:
        if columns := _open_cache(folder, key):
            return columns
    columns = _parse(path)
    for folder in folders:
        with contextlib.suppress(UserError, OSError):  # no room, no right to write: then without a cache
            _write_cache(folder, key, columns)
            return _open_cache(folder, key) or columns
    return columns


def _parse(path: Path) -> Columns:
    document = _decode(path, _Dialog)  # the file's bytes are gone from memory before the columns are laid out
    with naming(f"dialogs file {path}"):
        columns = _columns(document.data, document.data.dialogs, document.split)
        _check(columns)
        return columns


def _read_good(path: Path, asked: str | None, on_bad: Callable[[int, str], None]) -> tuple[Columns, str]:
    """Read one dialog after the other, slower than all at once, and leave out those that are at fault."""
    document = _decode(path, msgspec.Raw)
    data, split = document.data, _agree_on_split(asked, document.split)
    good: dict[int, _Dialog] = {}
    for n, raw in enumerate(data.dialogs):
        try:
            good[n] = msgspec.json.decode(raw, type=_Dialog)
        except msgspec.ValidationError as error:
            on_bad(n, _explain(error, f"data.dialogs[{n}]"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            on_bad(n, f"data.dialogs[{n}]: not UTF-8 text, or lists inside lists inside lists …")
    ranked = any(turn.answer_options is not None for dialog in good.values() for turn in dialog.dialog)
    used: dict[int, int] = {}
    for n, dialog in list(good.items()):
        try:
            if dialog.image_id in used:
                before = f"data.dialogs[{used[dialog.image_id]}]"
                raise UserError(f"data.dialogs[0].image_id {dialog.image_id} was used by {before} already")
            alone = _columns(data, [dialog], document.split)
            _check(alone)
            _check_split(alone, split, ranked)
            used[dialog.image_id] = n
        except UserError as error:
            on_bad(n, str(error).replace("data.dialogs[0]", f"data.dialogs[{n}]", 1))
            del good[n]
    if not good:
        raise UserError(f"each of its {len(data.dialogs)} dialogs is at fault")
    return _columns(data, list(good.values()), document.split), split


def _decode(path: Path, entry: type) -> _Document:
    """The file's tree with dialogs of this type: _Dialog for checked ones, Raw for bytes."""
    data = read_bytes(path, "dialogs file")
    view = memoryview(data)[3 if data.startswith(b"\xef\xbb\xbf") else 0 :]
    try:
        document = msgspec.json.decode(view, type=_Document[entry])
    except msgspec.ValidationError as error:
        raise UserError(f"dialogs file {path}: {_other_kind(view) or _explain(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"dialogs file {path}, {_locate(data, error)}") from None
    if bytes(document.version).strip(b'"').startswith(b"0.9"):
        fetch = "v1.0 is needed (`visdial-lab download` fetches it)"
        raise UserError(f"dialogs file {path}: this is VisDial v0.9; {fetch}")
    return document


def _columns(data: _Data, dialogs: list[_Dialog], split: str) -> Columns:
    turns = [turn for dialog in dialogs for turn in dialog.dialog]
    has = np.array([turn.answer_options is not None for turn in turns])
    packed = b"".join(turn.answer_options or b"" for turn in turns)
    fields = [[turn.question for turn in turns], [turn.answer for turn in turns]]
    fields += [[turn.gt_index for turn in turns], np.where(has, np.cumsum(has) - 1, -1)]
    return Columns(
        split,
        data.questions,
        data.answers,
        [dialog.caption for dialog in dialogs],
        image_ids=np.array([dialog.image_id for dialog in dialogs]),
        starts=np.cumsum([0, *(len(dialog.dialog) for dialog in dialogs)]),
        rounds=np.stack([np.asarray(field, np.int32) for field in fields], axis=1),
        options=np.frombuffer(packed, np.int32).reshape(-1, OPTIONS),
    )


def _check(columns: Columns) -> None:
    """What the types alone cannot say: indices inside the tables, gt_index at the answer, ids used once."""
    ids, first = columns.image_ids, np.unique(columns.image_ids, return_index=True)[1]
    if len(first) < len(ids):
        n = int(np.delete(np.arange(len(ids)), first)[0])
        before = int((ids == ids[n]).argmax())
        raise UserError(f"data.dialogs[{n}].image_id {ids[n]} was used by data.dialogs[{before}] already")
    question, answer, gt_index, row = columns.rounds.T
    n_questions, n_answers = len(columns.questions), len(columns.answers)
    outside = "{} is {}, expected 0 to {}".format
    _refuse(columns, question >= n_questions, lambda r: outside("question", question[r], n_questions - 1))
    _refuse(columns, answer >= n_answers, lambda r: outside("answer", answer[r], n_answers - 1))
    if columns.options.max(initial=0) >= n_answers:
        o, k = np.argwhere(columns.options >= n_answers)[0]
        wrong = outside(f"answer_options[{k}]", columns.options[o, k], n_answers - 1)
        _refuse(columns, row == o, lambda _: wrong)
    pointing = gt_index >= 0
    _refuse(columns, pointing & (row < 0), lambda _: "gt_index is there, but answer_options is missing")
    there = np.where(pointing, -2, answer)
    there[pointing] = columns.options[row[pointing], gt_index[pointing]]
    says = "gt_index points at answer {}, but answer is {}".format
    _refuse(columns, there != answer, lambda r: says(there[r], "missing" if answer[r] < 0 else answer[r]))


def _agree_on_split(asked: str | None, named: str) -> str:
    """The split's short name. Files say "val2018" or "test2018", and subsets may have names of their own."""
    said = next((name for name in SPLITS if named.startswith(name)), None)
    if said is not None and asked in SPLITS and asked != said:
        raise UserError(
            f"split is {shown(named)}, but {asked} was asked for; were two files swapped? (If this is meant: "
            "as visdial_1.0_NAME.json it is split NAME, which data.train_split and data.val_split may name)"
        )
    return asked or said or "val"


def _check_split(columns: Columns, split: str, ranked: bool) -> None:
    """Some published subsets have no options at all; a file that has them must have them everywhere. But the
    test split has them only in a dialog's last round, and keeps the answer to that one secret."""
    _, answer, gt_index, row = columns.rounds.T
    test = split.startswith("test")
    last = np.isin(np.arange(len(row)), columns.starts[1:] - 1)
    _refuse(columns, (answer < 0) & ~(last & test), lambda _: "answer is missing")
    if ranked:
        _refuse(columns, (row < 0) & (last | (not test)), lambda _: "answer_options is missing")
        _refuse(columns, (gt_index < 0) & (not test), lambda _: "gt_index is missing")


def _refuse(columns: Columns, bad: np.ndarray, message: Callable[[int], str]) -> None:
    """Raise UserError with the place of the first round r where bad[r], and message(r)."""
    if bad.any():
        r = int(bad.argmax())
        n = int(np.searchsorted(columns.starts, r, "right")) - 1
        raise UserError(f"data.dialogs[{n}].dialog[{r - columns.starts[n]}].{message(r)}")


def read_dense(path: Path, columns: Columns, dialogs: Path) -> dict[tuple[int, int], tuple[float, ...]]:
    """Read dense annotations → {(image_id, round_id): relevance of each option, 0 to 1}.

    Raises UserError naming file, entry and field. dialogs: the file of the columns, for the message.
    """
    document = read_json(path, "dense annotations file")
    with naming(f"dense annotations file {path}"):
        if isinstance(document, dict) and "data" in document:
            raise UserError("this holds dialogs, not dense annotations; were two files swapped?")
        if isinstance(document, list) and any(isinstance(x, dict) and "ranks" in x for x in document):
            raise UserError("this holds predictions, not dense annotations; were two files swapped?")
        try:
            entries = msgspec.convert(document, list[_Annotation])
        except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: half a character
            raise UserError(_explain(error)) from None
        return _relevance(entries, columns, dialogs)


def _relevance(entries: list[_Annotation], columns: Columns, dialogs: Path) -> dict:
    position = {image_id: n for n, image_id in enumerate(columns.image_ids.tolist())}
    relevance: dict[tuple[int, int], tuple[float, ...]] = {}
    for i, entry in enumerate(entries):
        image_id, round_id = key = entry.image_id, entry.round_id
        if image_id not in position:
            raise UserError(f"[{i}].image_id {image_id} is not in {dialogs}; do the two belong together?")
        start, end = columns.starts[position[image_id] :][:2].tolist()
        if not 1 <= round_id <= end - start:
            raise UserError(f"[{i}].round_id is {round_id}, expected 1 to {end - start} for image {image_id}")
        place = f"round {round_id} of image {image_id}"
        if columns.rounds[start + round_id - 1, 3] < 0:
            raise UserError(f"[{i}]: {place} has no answer_options to be relevant")
        if key in relevance:
            raise UserError(f"[{i}] annotates {place} a second time")
        relevance[key] = tuple(entry.relevance)
    return relevance


# ---- saying what is wrong, in the words of the format

_WORDS = {"int": "a whole number", "float": "a decimal number", "str": "text", "bool": "true or false"}
_WORDS |= {"array": "a list", "object": "an object", "array | null": "a list"}


def _explain(error: Exception, root: str = "") -> str:
    """As "Expected `int`, got `str` - at `$.data.dialogs[1].image_id`": the place first, in plain words."""
    what, _, place = str(error).partition(" - at `$")
    what = re.sub(r"Object missing required field `(\w+)`", r"\1 is missing", what)
    dot = ": " if what[0].isupper() else "."  # our own messages begin with a field of the place
    what = re.sub(r"`([^`]+)`", lambda kind: _WORDS.get(kind[1], kind[1]), what[0].lower() + what[1:])
    return f"{root}{place.strip('`')}{dot}{what}".lstrip(".: ")


def _other_kind(data: memoryview) -> str | None:
    """What a JSON list is that should have been a dialogs file."""
    try:
        entries = msgspec.json.decode(data, type=list[dict[str, msgspec.Raw]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    keys = entries[0] if entries else ()
    what = "predictions" if "ranks" in keys else "dense annotations" if "round_id" in keys else "a list"
    return f"this holds {what}, not dialogs; were two files swapped?"


def _locate(data: bytes, error: Exception) -> str:
    """Line and column of what the parser could not read."""
    at, what = len(data), "not valid JSON (the file ends too early, fetch or write it again)"
    if isinstance(error, UnicodeDecodeError):  # it knows its place inside one text only
        at, what = data.find(error.object) + error.start, "not UTF-8 text; is it another kind of file?"
    elif isinstance(error, RecursionError):
        at, what = 0, "not usable JSON (lists inside lists inside lists …)"
    elif found := re.search(r"(?:.*malformed: )?(.*) \(byte (\d+)\)", str(error)):
        at, what = int(found[2]), f"not valid JSON ({found[1]})"
    line, column = data.count(b"\n", 0, at) + 1, at - data.rfind(b"\n", 0, at)
    return f"line {line}, column {column}: {what}"


# ---- the cache: a folder of arrays beside the file, or in the user's own cache folder


def _cache_folders(path: Path) -> tuple[Path, Path]:
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    own_name = f"{path.stem}-{zlib.crc32(str(path).encode()):08x}"
    return path.with_suffix(".cache"), home / "visdial-lab" / own_name


def _identity(path: Path) -> dict[str, int] | None:
    """What tells this file from an edited one: size, time of change, a checksum of its two ends.

    None for a file that is too small to be worth a cache or cannot be read: parsing will say why.
    """
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size >= CACHE_FROM:
            ends = file.read(1 << 16)
            file.seek(max(0, status.st_size - (1 << 16)))
            checksum = zlib.crc32(ends + file.read())
            return {"format": _FORMAT, "size": status.st_size, "time": status.st_mtime_ns, "ends": checksum}
    return None


def _write_cache(folder: Path, key: dict[str, int], columns: Columns) -> None:
    arrays = {"texts": np.frombuffer(msgspec.json.encode(columns[:4]), np.uint8)}
    arrays |= {name: getattr(columns, name) for name in columns._fields[4:]}
    with atomic_folder(folder, marker="key.json") as temporary:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        checksums = {name: zlib.crc32(array) for name, array in arrays.items()}
        write_json(temporary / "key.json", {"key": key, "checksums": checksums})


def _open_cache(folder: Path, key: dict[str, int]) -> Columns | None:
    """The columns, mapped; None when they were made from another file or a single bit of them has changed."""
    try:
        notes = msgspec.json.decode((folder / "key.json").read_bytes())
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in notes["checksums"]}
        checksums = {name: zlib.crc32(array) for name, array in arrays.items()}
        if notes != {"key": key, "checksums": checksums}:
            return None
        texts = msgspec.json.decode(arrays.pop("texts"), type=tuple[str, list[str], list[str], list[str]])
        return Columns(*texts, **arrays)
    except Exception:  # whatever a damaged file may raise: the cache will be made anew
        return None
