"""For every test: real data (or a loud skip), the embedded scenes, a made-up dataset, tiny models."""

import functools
import json
import os
import random
import signal
from pathlib import Path

import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # expected numbers are a CPU's, in float32; before torch is imported
ROOT = Path(__file__).resolve().parents[1]
# For subprocess' preexec_fn: a shell starts background jobs deaf to Ctrl-C, and they pass that on.
hear_ctrl_c = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
WORDS = ["red", "dog", "blue", "cat", "house", "man", "yes", "no", "it", "is", "the", "near", "ball", "can't"]
WORDS += ["tell", "green", "한국", "x", "two", "people", "lake"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real VisDial excerpts and photos, kept beside the checkout and never inside it."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "visdial" / "visdial_1.0_val_116.json").is_file():
        pytest.skip(f"SKIPPED: real VisDial data is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def real_val(shared_data):
    """116 real val dialogs with their dense annotations."""
    from visdial_lab.visdial import VisDial

    folder = shared_data / "visdial"
    dense = folder / "visdial_1.0_val_116_dense_annotations.json"
    return VisDial.load(folder / "visdial_1.0_val_116.json", dense=dense)


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The embedded dataset of this checkout."""
    folder = ROOT / "data" / "scenes"
    if not (folder / "visdial_1.0_val.json").is_file():
        pytest.skip(f"SKIPPED: the embedded dataset is not built at {folder}")
    return folder


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A made-up dataset folder: three splits of a few dialogs, dense annotations, small JPEGs."""
    return make_dataset(tmp_path / "tiny")


@pytest.fixture
def train(tiny):
    """Its training split: 4 dialogs of 3 rounds."""
    from visdial_lab.visdial import VisDial

    return VisDial.load(tiny, "train")


@pytest.fixture
def val(tiny):
    """Its val split, as large."""
    from visdial_lab.visdial import VisDial

    return VisDial.load(tiny, "val")


@pytest.fixture
def course(tiny, monkeypatch) -> Path:
    """A course folder: the made-up dataset, a tiny base model in it, and the working folder set there."""
    import tiny_model

    monkeypatch.setenv("VISDIAL_LAB_ROOT", str(tiny))
    monkeypatch.chdir(tiny)
    tiny_model.build(tiny / "base")
    return tiny


@pytest.fixture
def rows(course) -> list[dict]:
    """Training records of that course."""
    from visdial_lab.generation import records
    from visdial_lab.visdial import VisDial

    return list(records(VisDial.load(course, "train")))


@pytest.fixture
def run(capsys):
    """run(word, …) → (exit code, standard output, standard error) of a command in this process."""

    from visdial_lab.cli import main

    def call(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The folder of a tiny vision-language model."""
    import tiny_model

    return tiny_model.build(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """(model, processor) that read a picture and text."""
    import tiny_model

    from visdial_lab.models import load_model

    return load_model(tiny_model.build(tmp_path_factory.mktemp("vision")))


@pytest.fixture(scope="module")
def text_only(tmp_path_factory):
    """(model, tokenizer) that read text alone."""
    import tiny_model

    from visdial_lab.models import load_model

    return load_model(tiny_model.build_text(tmp_path_factory.mktemp("text")))


@pytest.fixture(scope="module")
def one_thread():
    """Matrices as small as these gain nothing by a second one, and lose much where the cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_dataset(folder: Path, dialogs: int = 4, rounds: int = 3, seed: int = 0) -> Path:
    """Write visdial_1.0_{train,val,test}.json in the official format with 100 options, and their images."""
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        document = make_document(split, dialogs, rounds, seed=seed + number, first_id=1000 * number + 1)
        (folder / f"visdial_1.0_{split}.json").write_text(json.dumps(document))
        if split != "test":
            dense = make_dense(document, "relevance" if split == "train" else "gt_relevance")
            (folder / f"visdial_1.0_{split}_dense_annotations.json").write_text(json.dumps(dense))
        for entry in document["data"]["dialogs"]:
            colour = tuple(random.Random(entry["image_id"]).choices(range(256), k=3))
            Image.new("RGB", (32, 24), colour).save(folder / "images" / f"{entry['image_id']:012d}.jpg")
    return folder


def make_document(
    split: str = "val", dialogs: int = 4, rounds: int = 3, seed: int = 0, first_id: int = 1
) -> dict:
    """One dialogs file as a tree. Test dialogs have 1 to `rounds` rounds and a secret last answer."""
    rng = random.Random(seed)
    questions = [
        f"is the {thing} {word}" for thing in ("dog", "cat", "car", "tree") for word in ("big", "red", "wet")
    ]
    answers = ["yes", "no", "can't tell", *(f"it is number {i}" for i in range(150))]
    entries = []
    for n in range(dialogs):
        turns = []
        for j in range(rounds if split != "test" else 1 + n % rounds):
            options = rng.sample(range(len(answers)), 100)
            gt = rng.randrange(100)
            turn = {"question": rng.randrange(len(questions)), "answer": options[gt]}
            turns.append(turn | {"answer_options": options, "gt_index": gt})
            if split == "test":  # only the last round is ranked, and its answer is a secret
                hidden = ("answer", "gt_index") if j == n % rounds else ("answer_options", "gt_index")
                turns[-1] = {key: value for key, value in turns[-1].items() if key not in hidden}
        entries.append(
            {"image_id": first_id + n, "caption": f"a picture of {n} dogs in a park", "dialog": turns}
        )
    data = {"questions": questions, "answers": answers, "dialogs": entries}
    return {"version": "1.0", "split": split, "data": data}


def make_dense(document: dict, key: str = "gt_relevance") -> list:
    """Relevance for the second round of each dialog: the human answer 1, two others partly right."""
    annotations = []
    for entry in document["data"]["dialogs"]:
        gt = entry["dialog"][1]["gt_index"]
        relevance = [0.0] * 100
        relevance[(gt + 1) % 100], relevance[(gt + 2) % 100], relevance[gt] = 0.4, 0.2, 1.0
        annotations.append({"image_id": entry["image_id"], "round_id": 2, key: relevance})
    return annotations


def some_dialog(folder, image_id, rounds=4, options=12, longest=4, only_last=False):
    """A dialog with a noise picture; candidates share first words often; with `only_last` shaped like the
    test split."""
    import numpy as np
    from PIL import Image

    from visdial_lab.visdial import Dialog, Round

    rng = random.Random(image_id)
    path = folder / f"{image_id}.png"
    if not path.exists():
        noise = np.random.default_rng(image_id).integers(0, 255, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)

    def some(longest):
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))

    turns = []
    for round_id in range(1, rounds + 1):
        last = only_last and round_id == rounds
        texts = tuple(some(longest) for _ in range(options)) if last or not only_last else None
        answer = None if last else texts[3] if texts else some(3)
        turns.append(Round(round_id, some(6), answer, texts, None if only_last else 3, None))
    return Dialog(image_id, some(8), tuple(turns), path, "test" if only_last else "val")


def drawn(figure) -> str:
    """Draw the figure; returns all of its text."""
    import matplotlib.text

    figure.canvas.draw()
    texts = figure.findobj(matplotlib.text.Text)
    texts += [label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    return "\n".join(text.get_text() for text in texts)
