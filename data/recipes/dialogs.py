"""Ten-round conversations about a scene, in the manner of Visual Dialog: terse, lower case, leaning on what
was said.

The questioner knows the caption and what has been answered so far. Most of the time it stays with what it
just talked about ("what color is it", "and the other one", "what about her"), so that a good part of the
questions cannot be understood without the history.
"""

import random
from dataclasses import dataclass, field

import world
from facts import Fact, counting, existence, lower_garment, name, pronouns, thing_facts
from language import caption, counting_facts, single_questions
from wordings import Wordings

ROUNDS = 10
# Slots that "and the dog" can carry over to another thing.
TRANSFERABLE = ("shirt", "doing", "wearing", "where", "hand", "age", "color", "hat")
WEIGHT = {
    "unknown": 0.12,
    "setting": 0.5,
    "existence": 1.2,
    "counting": 0.9,
    "position": 0.35,
    "activity": 0.45,
    "color": 1.3,
    "attribute": 0.8,
}


@dataclass(frozen=True)
class Turn:
    """One round: the question as asked, the human answer, every wording its probability and relevance."""

    kind: str
    question: str
    answer: str
    answers: Wordings
    needs_history: bool


@dataclass
class _State:
    """What has been established: the thing in focus, the last fact asked, and everything asked so far."""

    scene: dict
    focus: int | None
    last: Fact | None = None
    hand_open: bool = False  # the focus was just said to hold something, so "it" is that thing
    asked: set = field(default_factory=set)
    mentioned: set = field(default_factory=set)  # things that the caption or a question has named


def _key(fact: Fact) -> tuple:
    return (fact.about, fact.slot)


def _clear_pronoun(state: _State, thing: dict) -> bool:
    """Whether he, she or it can only mean the thing in focus."""
    just_said = state.last is None or state.last.about == state.focus
    if thing["kind"] not in world.PEOPLE:
        return just_said and not state.hand_open
    same = [t for t in state.scene["things"] if pronouns(t)[0] == pronouns(thing)[0]]
    return just_said or len(same) == 1


def _by_pronoun(state: _State) -> list[tuple[str, Fact]]:
    """Follow-ups about the thing in focus: "is he wearing a hat", "what color is it"."""
    if state.focus is None:
        return []
    thing = state.scene["things"][state.focus]
    found = []
    for fact in thing_facts(state.scene, state.focus):
        if fact.held:
            if state.hand_open:
                found.append((fact.pronoun, fact))
        elif fact.pronoun and _clear_pronoun(state, thing):
            found.append((fact.pronoun, fact))
    return found


def _by_ellipsis(state: _State) -> list[tuple[str, Fact]]:
    """Follow-ups that leave out what the last question said: "and the woman", "how many", "what color"."""
    last, scene = state.last, state.scene
    if last is None:
        return []
    found = []
    things = scene["things"]
    if last.kind == "existence" and last.slot.startswith("any ") and last.named.startswith("are there any"):
        group = {"any people": world.PEOPLE, "any animals": world.ANIMALS}.get(last.slot)
        kind = last.slot.removeprefix("any ")
        if group is None and scene_count(scene, kind) > 1:
            found += [
                ("how many", f) for f in counting_facts(scene, random.Random(0)) if f.slot == f"count {kind}"
            ]
        if group is not None:
            other = ("animals", world.ANIMALS) if kind == "people" else ("people", world.PEOPLE)
            total = counting(scene, kind, group)
            if _word_is_plural(total):
                found.append(("how many", total))
            found.append((f"what about {other[0]}", existence(scene, *other)))
    if last.about is None:
        return found
    mine = {f.slot: f for f in thing_facts(scene, last.about)}
    if last.slot == "shirt":
        person = things[last.about]
        found.append((f"and {pronouns(person)[1]} {lower_garment(person)}", mine["pants"]))
    if last.slot == "hat" and "hat color" in mine:
        found.append(("what color", mine["hat color"]))
    if last.slot in ("hand", "held thing") and "held color" in mine:
        found.append(("what color", mine["held color"]))
    if last.slot in TRANSFERABLE:
        for i, thing in enumerate(things):
            if i == last.about:
                continue
            for fact in thing_facts(scene, i):
                if fact.slot == last.slot and not fact.held:
                    found += [
                        (text, fact) for text in _addressed(scene, last.about, thing, i in state.mentioned)
                    ]
    return found


def _addressed(scene: dict, before: int, thing: dict, mentioned: bool) -> list[str]:
    """How "and …" can point at a thing: by name, by pronoun if it was mentioned, as the other one of two."""
    kind = thing["kind"]
    same = [t for t in scene["things"] if t["kind"] == kind]
    if kind == scene["things"][before]["kind"]:
        return ["and the other one", "what about the other one"] if len(same) == 2 else []
    who = name(scene, thing)
    texts = [f"and {who}", f"what about {who}"] if who else []
    me, them = pronouns(scene["things"][before])[0], {"he": "him", "she": "her"}.get(pronouns(thing)[0])
    others = [t for t in scene["things"] if pronouns(t)[0] == pronouns(thing)[0]]
    if mentioned and them and me != pronouns(thing)[0] and len(others) == 1:
        texts += [f"what about {them}", f"and {them}"]
    return texts


def scene_count(scene: dict, kind: str) -> int:
    return sum(t["kind"] == kind for t in scene["things"])


def _word_is_plural(fact: Fact) -> bool:
    return not any(text in fact.answers for text in ("none", "just one"))


def _open_questions(state: _State, rng: random.Random) -> list[tuple[str, Fact]]:
    """Questions that stand on their own."""
    return [(fact.named, fact) for fact in single_questions(state.scene, rng) if not fact.held]


def _pick(options: list[tuple[str, Fact]], state: _State, rng: random.Random) -> tuple[str, Fact] | None:
    fresh = [(text, fact) for text, fact in options if _key(fact) not in state.asked]
    if not fresh:
        return None
    return rng.choices(fresh, [WEIGHT[fact.kind] for _, fact in fresh])[0]


def _ask(state: _State, rng: random.Random) -> tuple[str, Fact, bool]:
    """Choose the next question: (text, fact, needs the history)."""
    ways = [(0.28, _by_ellipsis, True), (0.42, _by_pronoun, True)]
    for share, way, follow_up in ways:
        if rng.random() < share:
            picked = _pick(way(state), state, rng)
            if picked:
                return *picked, follow_up
    picked = _pick(_open_questions(state, rng), state, rng)
    return *picked, False


def _listen(state: _State, fact: Fact, answer: str) -> None:
    """Note what was asked and answered, and move the focus."""
    state.asked.add(_key(fact))
    state.last = fact
    state.hand_open = False
    if fact.about is None:
        return
    thing = state.scene["things"][fact.about]
    if (
        fact.kind == "existence"
        and thing["kind"] not in answer
        and answer.startswith(("no", "not", "i don't"))
    ):
        return
    state.focus = fact.about
    if thing.get("holding"):
        state.hand_open = (
            fact.slot == "held thing"
            or (fact.slot == "hand" and thing["holding"]["kind"] in answer)
            or fact.held
        )


def converse(scene: dict, rng: random.Random, rounds: int = ROUNDS) -> tuple[str, list[Turn]]:
    """A caption and a dialog about the scene. Every answer is sampled from the wordings that are right."""
    text, mentioned = caption(scene, rng)
    # "it" is clear after the caption only when it mentions one thing
    first = (
        mentioned[0]
        if mentioned and (len(mentioned) == 1 or scene["things"][mentioned[0]]["kind"] in world.PEOPLE)
        else None
    )
    state = _State(scene, first)
    state.asked.update(
        (i, f"any {scene['things'][i]['kind']}") for i in mentioned
    )  # the caption has said that they are there
    state.mentioned.update(mentioned)
    turns = []
    for _ in range(rounds):
        question, fact, needs_history = _ask(state, rng)
        said = [text for text, (share, _) in fact.answers.items() if share > 0]
        answer = rng.choices(said, [fact.answers[text][0] for text in said])[0]
        turns.append(Turn(fact.kind, question, answer, fact.answers, needs_history))
        _listen(state, fact, answer)
    return text, turns
