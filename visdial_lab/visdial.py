"""Reading Visual Dialog v1.0: dialogs, rounds, the 100 options, dense annotations, and finding the images."""

import base64
import dataclasses
import functools
import html
import io
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visdial_lab.errors import UserError, counted, listed
from visdial_lab.files import holds, resolve
from visdial_lab.reading import Columns, read_dense, read_split

if TYPE_CHECKING:
    from PIL.Image import Image

    from visdial_lab.config import Config

IMAGE_PATTERNS = (  # below the image folder, or directly inside it by the last part of the name
    "images/{:012d}.png",  # the embedded scenes
    "images/{:012d}.jpg",
    "train2014/COCO_train2014_{:012d}.jpg",  # VisDial's train split draws on both COCO folders,
    "val2014/COCO_val2014_{:012d}.jpg",  # and its JSON does not say on which
    "VisualDialog_val2018/VisualDialog_val2018_{:012d}.jpg",
    "VisualDialog_test2018/VisualDialog_test2018_{:012d}.jpg",
)


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
        rounds = counted(len(self.rounds), "round")
        return f"<Dialog {self.image_id} ({self.split}, {rounds}): {self.caption!r}>"

    def image(self):
        """Open the picture as an RGB PIL image. Raises UserError when it is missing or damaged."""
        if self.image_path is None:
            name = f"…{self.image_id:012d}.jpg"
            hint = "is --image-dir (image_root in Python) the right folder?"
            raise UserError(f"dialog {self.image_id}: no image {name} found; {hint}")
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


def without_history(dialog: Dialog) -> list[Dialog]:
    """Each round as a dialog of its own: what is left to a model that is told nothing of the rounds before.

    Picture, caption and round ids stay. That is the control for history, as a gray picture is for seeing.
    """
    return [dataclasses.replace(dialog, rounds=(turn,)) for turn in dialog.rounds]


class VisDial(Sequence):
    """A split of Visual Dialog as a sequence of Dialog. Strings are looked up when a dialog is asked for,
    so that the 123,287 training dialogs with their 100 options a round fit in memory."""

    def __init__(self, columns: Columns, chosen, relevance, split: str, path: Path, image_root: Path):
        self._columns, self._chosen, self._relevance = columns, chosen, relevance
        self.split, self.path, self._image_root = split, path, image_root

    @classmethod
    def load(
        cls,
        source="data/scenes",
        split=None,
        dense=None,
        image_root=None,
        on_bad: Callable[[int, str], None] | None = None,
    ) -> "VisDial":
        """Read and check a dialogs file.

        source: a folder with visdial_1.0_{split}.json (and dense annotations, if there), a dialogs file, or
        the name of a profile, whose data folder is read.
        split: "train", "val" (default) or "test"; for a file, what the file itself says goes first.
        dense: a dense annotations file. image_root: folder of the images (default: the source's folder).
        on_bad(its number in the file, reason): called for each dialog that is at fault, which is left out;
        dense annotations, which may be of such a dialog, are left aside then.
        Raises UserError naming file, entry and field for whatever is missing or wrong.
        """
        source = _data_root(source)
        if source.is_dir():
            split = split or "val"
        path, dense = _find_files(source, split, dense)
        image_root = resolve(image_root) if image_root is not None else path.parent
        columns, split = read_split(path, split, on_bad)
        relevance = read_dense(dense, columns, path) if dense is not None and on_bad is None else {}
        return cls(columns, range(len(columns.captions)), relevance, split, path, image_root)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self._subset(self._chosen[index])
        return self._dialog(self._chosen[index], with_options=True)

    def without_options(self, index: int) -> Dialog:
        """The dialog with `options` None, for what reads the talk only: looking 1,000 texts up takes longer
        than all the rest."""
        return self._dialog(self._chosen[index], with_options=False)

    def _dialog(self, n: int, with_options: bool) -> Dialog:
        columns = self._columns
        image_id = int(columns.image_ids[n])
        start, end = columns.starts[n : n + 2]
        rounds = tuple(
            self._round(image_id, i, *fields, row if with_options else -1)
            for i, (*fields, row) in enumerate(columns.rounds[start:end].tolist(), 1)
        )
        return Dialog(image_id, columns.captions[n], rounds, self.find_image(image_id), self.split)

    def by_id(self, image_id: int) -> Dialog:
        """The dialog about this image. Raises UserError when there is none."""
        if image_id not in self._places:
            raise UserError(f"{self.path} has no dialog for image {image_id}")
        return self[self._places[image_id]]

    @functools.cached_property
    def _places(self) -> dict[int, int]:
        return {image_id: place for place, image_id in enumerate(self.image_ids)}

    @property
    def image_ids(self) -> list[int]:
        """The image id of every dialog, in order."""
        return self._columns.image_ids[self._chosen].tolist()

    def sample(self, n: int, seed: int = 0) -> "VisDial":
        """n different dialogs in file order, the same for a seed. Raises UserError if there are fewer."""
        if not 0 <= n <= len(self):
            raise UserError(f"cannot sample {n} dialogs: {self.path} has {len(self)}")
        places = sorted(random.Random(seed).sample(range(len(self)), n))
        return self._subset([self._chosen[place] for place in places])

    def answered(self) -> Iterator[tuple[int, int, str]]:
        """(place of the dialog, round_id, question) of every round whose answer is published, fast: 1.2
        million of them in seconds, because no options are looked up."""
        columns = self._columns
        for place, n in enumerate(self._chosen):
            start, end = columns.starts[n : n + 2]
            for round_id, (question, answer) in enumerate(columns.rounds[start:end, :2].tolist(), 1):
                if answer >= 0:
                    yield place, round_id, columns.questions[question]

    def to_datasets(self):
        """A `datasets.Dataset` for the tools of that world, one row a dialog.

        Columns: image_id, image (decoded when asked for, None if missing), caption, rounds (the fields of
        Round). All texts are written out, 23 kB a dialog of VisDial: take a slice or a sample of train.
        """
        import datasets

        text = datasets.Value("string")
        turn = {
            "round_id": datasets.Value("int32"),
            "question": text,
            "answer": text,
            "options": datasets.List(text),
            "gt_index": datasets.Value("int32"),
            "relevance": datasets.List(datasets.Value("float32")),
        }
        features = {"image_id": datasets.Value("int64"), "image": datasets.Image(), "caption": text}
        rows = [
            {
                "image_id": dialog.image_id,
                "image": dialog.image_path and str(dialog.image_path),
                "caption": dialog.caption,
                "rounds": [vars(one) for one in dialog.rounds],
            }
            for dialog in self
        ]
        features = datasets.Features(features | {"rounds": datasets.List(turn)})
        return datasets.Dataset.from_list(rows, features=features)

    def _subset(self, chosen) -> "VisDial":
        return VisDial(self._columns, chosen, self._relevance, self.split, self.path, self._image_root)

    def _round(self, image_id: int, round_id: int, question: int, answer: int, gt_index: int, row: int):
        answers = self._columns.answers
        return Round(
            round_id,
            self._columns.questions[question],
            answers[answer] if answer >= 0 else None,
            tuple(map(answers.__getitem__, self._columns.options[row].tolist())) if row >= 0 else None,
            gt_index if gt_index >= 0 else None,
            self._relevance.get((image_id, round_id)),
        )

    def find_image(self, image_id: int) -> Path | None:
        """Where the picture with this id lies, or None; it is not opened."""
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
            f'<div style="{_SMALL}">image {dialog.image_id} · {counted(len(dialog.rounds), "round")}'
            "</div></div></div>"
            for dialog in self[:5]
        )
        title = f"<b>VisDial {html.escape(self.split)}</b>: {counted(len(self), 'dialog')}"
        return f'<div style="font-family:system-ui,sans-serif">{title}{rows}</div>'


def load_dialogs(config: "Config", split: str | None = None, **options) -> VisDial:
    """The dialogs of a profile, by default to train on: so many as it says of its val split, or of another.

    options and errors: as for `VisDial.load`.
    """
    data, split = config.data, split or config.data.train_split
    most = data.num_val_dialogs if split == data.val_split else data.num_train_dialogs
    return VisDial.load(data.root, split, **options)[:most]


def _data_root(source: str | Path) -> Path:
    from visdial_lab.config import load_config, profile_names

    is_profile = str(source) in profile_names() and not Path(source).exists()
    return resolve(load_config(source).data.root if is_profile else source)


def _find_files(source: Path, split: str | None, dense) -> tuple[Path, Path | None]:
    """The dialogs file and, if there, the dense annotations (official train's has a name of its own)."""
    dense = resolve(dense) if dense is not None else None
    if not source.exists() and source.suffix != ".json":
        fetch = "`visdial-lab download` fetches VisDial; for data of your own give data.root in the config"
        raise UserError(f"data folder not found: {source}; {fetch}")
    if not source.is_dir():
        return source, dense
    path = source / f"visdial_1.0_{split}.json"
    if not path.is_file():
        if there := sorted(file.name for file in source.glob("visdial_*.json")):
            keys = "the split, or data.train_split and data.val_split in the config"
            raise UserError(f"no {path.name} in folder {source} (there: {', '.join(there)}); check {keys}")
        inside = sorted({f"{file.parent.name}/" for file in source.glob("*/visdial_1.0_*.json")})
        hint = f"it holds {holds(source)}; check the folder, or data.root in the config"
        hint = f"did you mean {listed(inside, 3)} in it?" if inside else hint
        raise UserError(f"no {path.name} in folder {source}, nor of any other split: {hint}")
    for name in (f"visdial_1.0_{split}_dense_annotations.json", f"visdial_1.0_{split}_dense_sample.json"):
        if dense is None and (source / name).is_file():
            dense = source / name
    return path, dense


# How things look in a notebook. Colours are inherited or see-through: light and dark pages both work.
_CARD = (
    "display:flex;flex-wrap:wrap;gap:16px;padding:10px;margin:6px 0;border:1px solid rgba(128,128,128,.35);"
    "border-radius:10px;font:14px/1.4 system-ui,sans-serif;color:inherit"
)
_ROW = "display:flex;justify-content:space-between;align-items:start;gap:12px;margin:3px 0"
_BUBBLE = "padding:2px 10px;border-radius:12px;background:rgba"
_NO_IMAGE = (
    "max-width:100%;box-sizing:border-box;padding:20px 0;text-align:center;border:1px dashed;"
    "border-radius:8px;opacity:.6"
)
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
    source = jpeg_url(picture, width, quality=85)
    style = f"width:{width}px;height:auto;align-self:flex-start;border-radius:8px"
    return f'<img alt="{html.escape(dialog.caption)}" src="{source}" style="{style}">'


def jpeg_url(picture: "Image", longest_side: int, quality: int) -> str:
    """A picture, made smaller if need be, as a JPEG inside a URL."""
    picture.thumbnail((longest_side, longest_side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
