"""Scenes for pre-training, drawn ahead of time by all cores and held whole on the GPU.

A shard is one .npz file: `images` [n, 128, 128, 3] uint8; `ids` [n, sets, length] int16; `answers` [n,
sets, length] uint8 (0: not trained on, k: belongs to the k-th answer); `kinds` [n, sets, k] str, the
kinds of the questions.
"""

import multiprocessing
import os
import random
from functools import cache
from pathlib import Path

from gemma3_scenes import IMAGE_SIZE, IMAGE_TOKENS

from visdial_lab.files import atomic_path

SHARD_SCENES = 250
DRAWN_SIZE = 384  # as in data/scenes; the image processor reduces pictures to 128


@cache
def load_tokenizer(folder: str):
    """The bare tokenizer (`tokenizers.Tokenizer`) saved in `folder`: workers need not import transformers."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def encode_turns(tokenizer, turns: list[tuple[str, str]], length: int):
    """Write a picture and its questions as one chat of exactly `length` tokens, as Gemma's template does.

    Turns that no longer fit are left out; the rest is <pad>. Returns `ids` [length] int16, `answers`
    [length] uint8 (k on the tokens of the k-th answer and on its <end_of_turn>, else 0) and the number of
    turns that fitted. Raises ValueError if not even one fits.
    """
    import numpy as np

    token = tokenizer.token_to_id
    start, end = token("<start_of_turn>"), token("<end_of_turn>")
    # Special tokens cut the text, so these pieces can be encoded one by one.
    texts = ["user\n\n\n", "\n", "model\n", "\n\n" + turns[0][0]]
    texts += [f"user\n{question}" for question, _ in turns[1:]] + [answer for _, answer in turns]
    head, newline, model, *spoken = (
        item.ids for item in tokenizer.encode_batch(texts, add_special_tokens=False)
    )

    ids = [token("<bos>"), start, *head, token("<start_of_image>")]
    ids += [token("<image_soft_token>")] * IMAGE_TOKENS + [token("<end_of_image>")]
    marks = [0] * len(ids)
    fitted = 0
    for question, reply in zip(spoken[: len(turns)], spoken[len(turns) :], strict=True):
        before = [*([start] if fitted else []), *question, end, *newline, start, *model]
        if len(ids) + len(before) + len(reply) + 1 + len(newline) > length:
            break
        fitted += 1
        ids += [*before, *reply, end, *newline]
        marks += [0] * len(before) + [fitted] * (len(reply) + 1) + [0] * len(newline)
    if not fitted:
        raise ValueError(f"not one turn fits into {length} tokens: {turns[0]}")
    rest = length - len(ids)
    return np.array(ids + [token("<pad>")] * rest, np.int16), np.array(marks + [0] * rest, np.uint8), fitted


def make_scene(name: str, tokenizer, sets: int, length: int):
    """Sample, draw and question one scene. `name` seeds everything about it.

    Returns the picture [128, 128, 3] uint8 and, for each of `sets` differently worded chats, (ids,
    answers, kinds). Turns come in random order, so that no answer can count on a description having been
    given before.
    """
    import draw
    import language
    import numpy as np
    import world
    from PIL import Image

    rng = random.Random(name)
    scene = world.sample_scene(rng)
    # Pillow's bilinear filter, as in transformers' Gemma3ImageProcessorPil
    drawn = draw.draw(scene, DRAWN_SIZE).convert("RGB")
    picture = drawn.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    chats = []
    for _ in range(sets):
        turns = list(language.pretraining_turns(scene, rng))
        rng.shuffle(turns)
        ids, answers, fitted = encode_turns(tokenizer, [turn[:2] for turn in turns], length)
        chats.append((ids, answers, [turn[2] for turn in turns[:fitted]]))
    return np.asarray(picture), chats


def make_shard(path: Path, names: list[str], tokenizer_folder: str, sets: int, length: int) -> None:
    """Make the scenes called `names` and store them in `path` (whole or not at all)."""
    import numpy as np

    tokenizer = load_tokenizer(tokenizer_folder)
    made = [make_scene(name, tokenizer, sets, length) for name in names]
    most = max(len(kinds) for _, chats in made for _, _, kinds in chats)
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            images=np.stack([picture for picture, _ in made]),
            ids=np.stack([[ids for ids, _, _ in chats] for _, chats in made]),
            answers=np.stack([[answers for _, answers, _ in chats] for _, chats in made]),
            kinds=np.array(
                [[kinds + [""] * (most - len(kinds)) for _, _, kinds in chats] for _, chats in made]
            ),
        )


def start_pool(workers: int):
    """Workers that draw in the background. Spawned: a process that holds a GPU must not be forked."""
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
    return multiprocessing.get_context("spawn").Pool(workers)


def start_drawing(pool, folder: Path, split: str, count: int, tokenizer_folder: Path, sets: int, length: int):
    """Have `count` scenes drawn, shard by shard; shards that are in `folder` already are kept.

    `split` seeds the scenes. Returns {path: result}, result None where the shard was there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = {}
    for first in range(0, count, SHARD_SCENES):
        names = [f"{split}-{number}" for number in range(first, min(first + SHARD_SCENES, count))]
        path = folder / f"{split}-{sets}x{length}-{first:07d}-{len(names)}.npz"
        job = (path, names, str(tokenizer_folder), sets, length)
        shards[path] = None if path.exists() else pool.apply_async(make_shard, job)
    return shards


class Scenes:
    """Every training scene drawn so far, on the device; it grows while training runs."""

    def __init__(self, shards: dict, capacity: int, device) -> None:
        self.waiting, self.capacity, self.device, self.count = dict(shards), capacity, device, 0
        self.images = self.ids = self.answers = None

    def take_finished(self) -> None:
        """Copy the shards finished since the last call to the device. Raises what a worker raised."""
        import numpy as np
        import torch

        for path, result in list(self.waiting.items()):
            if result is not None and not result.ready():
                continue
            if result is not None:
                result.get()
            del self.waiting[path]
            with np.load(path) as shard:
                arrays = [torch.from_numpy(shard[name]) for name in ("images", "ids", "answers")]
            if self.images is None:
                self.images, self.ids, self.answers = (
                    torch.empty(self.capacity, *array.shape[1:], dtype=array.dtype, device=self.device)
                    for array in arrays
                )
            rows = slice(self.count, self.count + len(arrays[0]))
            for store, array in zip((self.images, self.ids, self.answers), arrays, strict=True):
                store[rows] = array.to(self.device)
            self.count = rows.stop

    def batch(self, size: int, generator):
        """A random batch: ids [B, L] int64, answers [B, L] uint8, pictures [B, H, W, 3] uint8."""
        import torch

        scene = torch.randint(self.count, (size,), device=self.device, generator=generator)
        chat = torch.randint(self.ids.shape[1], (size,), device=self.device, generator=generator)
        return self.ids[scene, chat].long(), self.answers[scene, chat], self.images[scene]
