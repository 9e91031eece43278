"""Captions, and the texts the base model is pre-trained on: descriptions and single questions, never a
conversation.
"""

import random

import world
from facts import (
    SETTING_PHRASE,
    Fact,
    an,
    counting,
    existence,
    lower_garment,
    name,
    picture_facts,
    plural,
    pronouns,
    thing_facts,
)

DESCRIBE = (
    "Describe the picture.",
    "What is in the picture?",
    "Write a caption.",
    "describe this image.",
    "What do you see?",
)
BRIEFLY = ("Answer briefly.", "Short answer, please.", "In a few words.")
CARRIED = (
    "shirt",
    "pants",
    "doing",
    "wearing",
    "where",
    "hand",
    "age",
    "color",
    "hat",
)  # what "and the dog" can ask
ASKABLE = sorted(world.EXTENT)  # kinds that "is there a …" asks about


def indefinite(thing: dict, rng: random.Random) -> str:
    """The thing as a caption first mentions it: "a dog", "a brown dog", "a man in a red shirt"."""
    if thing["kind"] in world.PEOPLE:
        extra = rng.random()
        if extra < 0.35:
            return f"{an(thing['kind'])} in {an(thing['shirt'])} shirt"
        if extra < 0.5 and thing["hat"]:
            return f"{an(thing['kind'])} wearing {an(thing['hat'])} hat"
        return an(thing["kind"])
    if thing["kind"] not in world.PLAIN and rng.random() < 0.4:
        return f"{an(thing['color'])} {thing['kind']}"
    return an(thing["kind"])


def caption(scene: dict, rng: random.Random) -> tuple[str, list[int]]:
    """One terse line in the manner of COCO, and the indices of the things it mentions (the subject first)."""
    things = scene["things"]
    place = SETTING_PHRASE[scene["setting"]]
    named = [i for i, t in enumerate(things) if name(scene, t)]
    people = [i for i in named if things[i]["kind"] in world.PEOPLE]
    animals = [i for i in named if things[i]["kind"] in world.ANIMALS]
    pool = people or animals or named
    if not pool:
        kind = things[0]["kind"]
        return f"some {plural(kind)} {place}", []
    subject = rng.choice(pool)
    main = things[subject]
    text = indefinite(main, rng)
    mentioned = [subject]
    others = [i for i in named if i != subject and things[i]["kind"] != main["kind"]]
    style = rng.random()
    if main.get("holding") and style < 0.3:
        return f"{text} holding {an(main['holding']['kind'])} {place}", mentioned
    if others and style < 0.6:
        second = rng.choice(others)
        mentioned.append(second)
        near = world.neighbour(scene, main)
        link = "next to" if near is things[second] else "and"
        return f"{text} {link} {indefinite(things[second], rng)} {place}", mentioned
    if "pose" in main:
        return (
            f"{text} {main['pose']} {place}" if rng.random() < 0.5 else f"{text} is {main['pose']} {place}",
            mentioned,
        )
    return f"{text} {place}", mentioned


def description(scene: dict, rng: random.Random) -> str:
    """Two to four full sentences about the picture; later ones speak of the same things with pronouns."""
    light = (
        "at night"
        if scene["time"] == "night"
        else f"on a {scene['weather']} day"
        if scene["weather"]
        else "during the day"
    )
    sentences = [f"This is a picture taken {SETTING_PHRASE[scene['setting']]} {light}."]
    things = list(scene["things"])
    rng.shuffle(things)
    for thing in things[:3]:
        he, his = (w.capitalize() for w in pronouns(thing))
        kind, color = thing["kind"], thing["color"]
        spot = "in the middle" if world.side(thing) == "middle" else f"on the {world.side(thing)}"
        if kind in world.PEOPLE:
            lower = f"{his.lower()} {lower_garment(thing)} {'are' if he == 'He' else 'is'} {thing['pants']}"
            sentences.append(
                f"There is {an(kind)} {spot}. {he} is {thing['pose']}. "
                f"{his} shirt is {thing['shirt']} and {lower}."
            )
            if thing["holding"]:
                sentences.append(
                    f"{he} is holding {an(thing['holding']['color'])} {thing['holding']['kind']}."
                )
        else:
            sentences.append(
                f"There is {an(kind)} {spot}." + ("" if kind in world.PLAIN else f" It is {color}.")
            )
    return " ".join(sentences)


def existence_facts(scene: dict, rng: random.Random) -> list[Fact]:
    """Is there a …: as many about kinds that are there as about kinds that are not."""
    kinds = [t["kind"] for t in scene["things"]]
    absent = [k for k in ASKABLE if k not in kinds]
    asked = [rng.choice(kinds), rng.choice(absent), rng.choice(absent)] if kinds else rng.sample(absent, 2)
    facts = [existence(scene, kind) for kind in asked if kind not in world.PEOPLE or kinds.count(kind) <= 1]
    return [*facts, existence(scene, "people", world.PEOPLE), existence(scene, "animals", world.ANIMALS)]


def counting_facts(scene: dict, rng: random.Random) -> list[Fact]:
    """How many …: of a kind that is there (more often one that comes in numbers), and of people."""
    kinds = [t["kind"] for t in scene["things"]]
    several = [k for k in kinds if kinds.count(k) > 1] or kinds
    facts = [counting(scene, "people", world.PEOPLE), counting(scene, "animals", world.ANIMALS)]
    return [counting(scene, rng.choice(several)), *facts] if several else facts


def single_questions(scene: dict, rng: random.Random) -> list[Fact]:
    """Every fact that can be asked by name, in random order."""
    facts = picture_facts(scene) + existence_facts(scene, rng) + counting_facts(scene, rng)
    for i in range(len(scene["things"])):
        facts += thing_facts(scene, i)
    rng.shuffle(facts)
    return facts


# How often each kind of question is asked in pre-training, relative to its share among all facts of a scene.
KIND_WEIGHT = {
    "unknown": 0.25,
    "setting": 0.6,
    "color": 2.0,
    "counting": 2.0,
    "position": 0.8,
    "activity": 0.8,
}


def _statement(fact: Fact) -> str:
    """The fact as a plain sentence, without the Yes or No it answers with."""
    text = fact.sentence.removeprefix("Yes, ").removeprefix("No, ")
    return text[0].upper() + text[1:]


def _with_context(scene: dict, fact: Fact, facts: list[Fact], rng: random.Random) -> tuple[str, str] | None:
    """(question, full answer) after a statement that says what the question is about, or None where that
    can't be.

    "The dog is on the left. what color is it?", "The boy is holding a kite. what color is it?", "The man's
    shirt is red. and the woman's shirt?": everything that has to be understood stands in the question
    itself.
    """
    if fact.about is None or fact.pronoun is None:
        return None
    thing = scene["things"][fact.about]
    if fact.held:
        who, kind = name(scene, thing), thing["holding"]["kind"]
        question = "what color is it" if rng.random() < 0.6 else "what color"
        return f"{who[0].upper()}{who[1:]} is holding {an(kind)}. {question}", fact.pronoun_sentence
    others = [f for f in facts if f.about not in (None, fact.about) and f.kind != "unknown" and not f.held]
    same_slot = [f for f in others if f.slot == fact.slot and f.slot in CARRIED]
    who = name(scene, thing)
    if same_slot and who and rng.random() < 0.35:
        return f"{_statement(rng.choice(same_slot))} {rng.choice(('and', 'what about'))} {who}", fact.sentence
    own = [
        f for f in facts if f.about == fact.about and f.kind not in ("unknown", "existence") and not f.held
    ]
    own = [f for f in own if f.slot != fact.slot]
    if not own:
        return None
    told = rng.choice(own)
    text = f"{_statement(told)} {fact.pronoun}"
    if told.slot == "shirt" and fact.slot == "pants" and rng.random() < 0.5:
        text = f"{_statement(told)} and {pronouns(thing)[1]} {lower_garment(thing)}"
    if fact.slot == "hat color" and rng.random() < 0.4:
        text = f"{name(scene, thing)} is wearing a hat. what color"
    if others and rng.random() < 0.5:
        text = f"{_statement(rng.choice(others))} {text}"
    return text, fact.pronoun_sentence


def pretraining_turns(scene: dict, rng: random.Random, questions: int = 9) -> list[tuple[str, str, str]]:
    """(user text, answer, kind) triples about one scene for pre-training.

    Single questions, each complete in itself: by name, or leaning on a statement in the same breath;
    sometimes a description at the end. Nothing refers to an earlier turn. Answers are full sentences, as an
    assistant gives them, unless the question asks for a brief one.
    """
    turns = []
    facts = single_questions(scene, rng)
    facts.sort(key=lambda f: rng.random() ** (1 / KIND_WEIGHT.get(f.kind, 1.0)), reverse=True)
    for fact in facts[:questions]:
        question, answer, style = fact.named, fact.sentence, rng.random()
        if style < 0.55:
            question, answer = _with_context(scene, fact, facts, rng) or (question, answer)
        elif style > 0.85:
            question = f"{caption(scene, rng)[0]}\n{question}"
        if rng.random() < 0.4:
            question = question[0].upper() + question[1:]
        question += "?"
        if rng.random() < 0.5:
            question = f"{question} {rng.choice(BRIEFLY)}"
            said = [text for text, (share, _) in fact.answers.items() if share > 0]
            answer = rng.choices(said, [fact.answers[text][0] for text in said])[0]
        turns.append((question, answer, fact.kind))
    if rng.random() < 0.15:  # last, so that no answer can be read off it instead of the picture
        turns.append((rng.choice(DESCRIBE), description(scene, rng), "description"))
    return turns
