"""Build data/scenes: pictures, VisDial v1.0 files, dense annotations and the dataset's card, byte for byte
the same each time.

    python data/recipes/build_scenes.py --output data/scenes

Candidates are collected as Visual Dialog's were (Das et al., CVPR 2017, section 4): the human answer,
plausible answers to similar questions, popular answers, random ones. Unlike theirs, each list of 100 is
shuffled: their order leaks the answer. Dense relevance of one round a dialog is read off the scene's truth.
"""

import argparse
import json
import math
import random
from collections import Counter, defaultdict
from multiprocessing import Pool
from pathlib import Path

import world
from dialogs import Turn, converse

SIZES = {"train": 600, "val": 150, "test": 50}
FIRST_ID = {"train": 1, "val": 1001, "test": 2001}
OPTIONS = 100
POPULAR = 30
PLAUSIBLE = 45
IMAGE_SIDE = 384


def make_dialog(split: str, index: int) -> tuple[dict, str, list[Turn]]:
    """Scene, caption and ten rounds number `index` of a split; each depends on nothing but its own seed."""
    rng = random.Random(f"visdial-lab scenes {split} {index}")
    scene = world.sample_scene(rng)
    while not scene["things"]:
        scene = world.sample_scene(rng)
    caption, turns = converse(scene, rng)
    return scene, caption, turns


class AnswerPool:
    """The answers of the train split, as often as given: by kind of question, all, the popular ones."""

    def __init__(self, dialogs: list[tuple[dict, str, list[Turn]]]):
        self.by_kind: dict[str, list[str]] = defaultdict(list)
        for _, _, turns in dialogs:
            for turn in turns:
                self.by_kind[turn.kind].append(turn.answer)
        self.all = [answer for answers in self.by_kind.values() for answer in answers]
        by_count = sorted(Counter(self.all).items(), key=lambda item: (-item[1], item[0]))
        self.popular = [text for text, _ in by_count[:POPULAR]]


def options_for(turn: Turn, pool: AnswerPool, rng: random.Random) -> list[str]:
    """100 different candidates in random order, the human answer among them."""
    chosen = dict.fromkeys([turn.answer])
    chosen.update(dict.fromkeys(text for text in turn.answers if rng.random() < 0.8))
    similar = dict.fromkeys(rng.choices(pool.by_kind[turn.kind], k=4 * PLAUSIBLE))
    chosen.update(dict.fromkeys(list(similar)[:PLAUSIBLE]))
    chosen.update(dict.fromkeys(pool.popular))
    while len(chosen) < OPTIONS:
        chosen[rng.choice(pool.all)] = None
    options = list(chosen)[:OPTIONS]
    rng.shuffle(options)
    return options


def relevance_of(turn: Turn, options: list[str]) -> list[float]:
    """1 for right (in whatever words), between 0 and 1 for partly right, 0 for wrong."""
    return [turn.answers.get(text, (0.0, 0.0))[1] for text in options]


class _Table:
    """A list of strings that hands out the index of each."""

    def __init__(self):
        self.strings: list[str] = []
        self._index: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        if text not in self._index:
            self._index[text] = len(self.strings)
            self.strings.append(text)
        return self._index[text]


def split_files(
    split: str, dialogs: list[tuple[dict, str, list[Turn]]], pool: AnswerPool
) -> dict[str, object]:
    """The JSON documents of one split by file name. The test split is cut as VisDial's: 1 to 10 rounds,
    options in the last round only, and no answer there.
    """
    questions, answers = _Table(), _Table()
    entries, dense, truth = [], [], []
    for index, (scene, caption, turns) in enumerate(dialogs):
        rng = random.Random(f"visdial-lab options {split} {index}")
        image_id = FIRST_ID[split] + index
        shown = turns[: index % len(turns) + 1] if split == "test" else turns
        annotated = rng.randrange(len(shown))
        rounds = []
        for number, turn in enumerate(shown):
            last_of_test = split == "test" and number == len(shown) - 1
            entry: dict[str, object] = {"question": questions(turn.question)}
            options = options_for(turn, pool, rng)
            if not last_of_test:
                entry["answer"] = answers(turn.answer)
            if split != "test" or last_of_test:
                entry["answer_options"] = [answers(text) for text in options]
            if split != "test":
                entry["gt_index"] = options.index(turn.answer)
                if number == annotated:
                    relevance = relevance_of(turn, options)
                    dense.append({"image_id": image_id, "round_id": number + 1, "gt_relevance": relevance})
            rounds.append(entry)
        entries.append({"image_id": image_id, "caption": caption, "dialog": rounds})
        kinds = [{"kind": t.kind, "needs_history": t.needs_history} for t in shown]
        truth.append({"image_id": image_id, "scene": scene, "rounds": kinds})
    data = {"questions": questions.strings, "answers": answers.strings, "dialogs": entries}
    files: dict[str, object] = {f"visdial_1.0_{split}.json": {"version": "1.0", "split": split, "data": data}}
    if split != "test":
        files[f"truth_{split}.json"] = truth
    if split == "val":
        files[f"visdial_1.0_{split}_dense_annotations.json"] = dense
    return files


def oracle(dialogs: list[tuple[dict, str, list[Turn]]], split: str, pool: AnswerPool) -> dict[str, float]:
    """What a player scores who knows the truth of the scene but not which wording this annotator chose.

    `mrr`: it ranks the options by relevance and leaves equally relevant ones in random order.
    `mrr_wordings`: among equally relevant ones it prefers what annotators write more often, the most that a
    model of language could know. Both are expectations over the order of ties, so they are exact for this
    split; NDCG is 1 by construction.
    """
    plain, informed = [], []
    for index, (_, _, turns) in enumerate(dialogs):
        rng = random.Random(f"visdial-lab options {split} {index}")
        rng.randrange(len(turns))  # the annotated round, drawn first in split_files too
        for turn in turns:
            known = [turn.answers.get(text, (0.0, 0.0)) for text in options_for(turn, pool, rng)]
            share, relevance = turn.answers[turn.answer]
            plain.append(_expected_reciprocal_rank([r for _, r in known], relevance))
            informed.append(_expected_reciprocal_rank([(r, s) for s, r in known], (relevance, share)))
    mrr, mrr_wordings = (math.fsum(ranks) / len(ranks) for ranks in (plain, informed))
    return {"mrr": mrr, "mrr_wordings": mrr_wordings, "ndcg": 1.0}


def _expected_reciprocal_rank(scores: list, mine: object) -> float:
    """1 / rank of an option that scores `mine`, averaged over the order of its ties."""
    above, ties = sum(s > mine for s in scores), sum(s == mine for s in scores)
    return math.fsum(1 / (above + k) for k in range(1, ties + 1)) / ties


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")


def save_image(scene: dict, path: Path) -> None:
    """Draw the scene into a PNG of 128 colours: half the size of a JPEG of flat art, and sharper."""
    from draw import draw
    from PIL import Image

    draw(scene, IMAGE_SIDE).quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def statistics(all_dialogs: dict[str, list]) -> dict[str, object]:
    """Counts for the card: kinds of question, share of follow-ups, distinct questions and answers."""
    turns = [turn for dialogs in all_dialogs.values() for _, _, turns in dialogs for turn in turns]
    kinds = Counter(turn.kind for turn in turns)
    return {
        "dialogs": {split: len(dialogs) for split, dialogs in all_dialogs.items()},
        "question_kinds": {kind: round(count / len(turns), 4) for kind, count in sorted(kinds.items())},
        "follow_ups": round(sum(turn.needs_history for turn in turns) / len(turns), 4),
        "distinct_questions": len({turn.question for turn in turns}),
        "distinct_answers": len({turn.answer for turn in turns}),
    }


def documents() -> tuple[dict[str, object], dict[str, list]]:
    """Every JSON file of the dataset by name, and the dialogs they were made from."""
    dialogs = {split: [make_dialog(split, i) for i in range(size)] for split, size in SIZES.items()}
    pool = AnswerPool(dialogs["train"])
    files: dict[str, object] = {}
    for split in SIZES:
        files |= split_files(split, dialogs[split], pool)
    files["card.json"] = statistics(dialogs) | {"oracle": {"val": oracle(dialogs["val"], "val", pool)}}
    return files, dialogs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "scenes")
    parser.add_argument("--no-images", action="store_true", help="write the JSON files only")
    args = parser.parse_args()
    (args.output / "images").mkdir(parents=True, exist_ok=True)
    files, dialogs = documents()
    for name, document in files.items():
        _write_json(args.output / name, document)
    print(json.dumps(files["card.json"], indent=2))
    if args.no_images:
        return
    jobs = [
        (scene, args.output / "images" / f"{FIRST_ID[split] + i:012d}.png")
        for split in SIZES
        for i, (scene, _, _) in enumerate(dialogs[split])
    ]
    with Pool() as pool:
        pool.starmap(save_image, jobs)
    print(f"{len(jobs)} pictures in {args.output / 'images'}")


if __name__ == "__main__":
    main()
