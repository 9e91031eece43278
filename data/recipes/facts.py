"""What is true in a scene, as questions with every way to answer them.

One `Fact` is one thing that can be asked: by name ("what color is the dog"), with a pronoun ("what color is
it"), and as an ellipsis that transfers the last question ("and the dog"). It is answered by a full sentence
(how the base model is taught to talk), or tersely, by the `wordings` of Visual Dialog.
"""

from dataclasses import dataclass

import world
from wordings import (
    NUMBERS,
    Wordings,
    cannot_tell,
    color,
    doing,
    holding,
    number,
    place_in_picture,
    short_and_full,
    wordings,
    yes_no,
)

PRONOUN = {"man": ("he", "his"), "boy": ("he", "his"), "woman": ("she", "her"), "girl": ("she", "her")}
PLURAL = {
    "man": "men", "woman": "women", "sheep": "sheep", "bus": "buses", "bench": "benches",
}  # fmt: skip
SIZED = ("dog", "ball", "tree", "car", "house", "boat", "cat")
ADULTS = ("man", "woman")


@dataclass(frozen=True)
class Fact:
    """Something that can be asked about a scene. `about` is the index of the thing, or None for the whole
    picture.
    """

    kind: str  # existence, counting, color, attribute, position, activity, setting, unknown
    slot: str  # which property: facts of equal slot can be asked one after another by ellipsis
    about: int | None
    named: str
    sentence: str
    answers: Wordings
    pronoun: str | None = None  # None: cannot be asked with a pronoun
    pronoun_sentence: str | None = None
    held: bool = False  # about the thing in somebody's hand


def an(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def plural(kind: str) -> str:
    return PLURAL.get(kind, kind + "s")


def all_kinds(scene: dict) -> list[str]:
    """The kind of everything to be seen, things in people's hands included."""
    things = scene["things"]
    return [t["kind"] for t in things] + [t["holding"]["kind"] for t in things if t.get("holding")]


def name(scene: dict, thing: dict, by_color: bool = True) -> str | None:
    """A definite name that fits this thing alone, or None: "the dog", "the man in the red shirt", "the ball
    on the left".
    """
    kind = thing["kind"]
    same = [t for t in scene["things"] if t["kind"] == kind]
    if len(same) == 1:
        return f"the {kind}" if all_kinds(scene).count(kind) == 1 else None
    if all_kinds(scene).count(kind) > len(same):
        return None
    if kind in world.PEOPLE:
        if by_color and [t["shirt"] for t in same].count(thing["shirt"]) == 1:
            return f"the {kind} in the {thing['shirt']} shirt"
    elif by_color and [t["color"] for t in same].count(thing["color"]) == 1 and kind not in world.PLAIN:
        return f"the {thing['color']} {kind}"
    if len(same) == 2 and world.side(same[0]) != world.side(same[1]):
        return (
            f"the {kind} in the middle"
            if world.side(thing) == "middle"
            else f"the {kind} on the {world.side(thing)}"
        )
    return None


def _of(who: str, noun: str) -> str:
    """The man's shirt, but the shirt of the man on the left."""
    return f"{who}'s {noun}" if who.count(" ") == 1 else f"the {noun} of {who}"


def pronouns(thing: dict) -> tuple[str, str]:
    return PRONOUN.get(thing["kind"], ("it", "its"))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _color_facts(scene: dict, i: int, thing: dict) -> list[Fact]:
    who = name(scene, thing, by_color=False)
    if who is None or thing["kind"] in world.PLAIN or thing["kind"] in world.PEOPLE:
        return []
    c = thing["color"]
    return [
        Fact(
            "color",
            "color",
            i,
            f"what color is {who}",
            f"{_capital(who)} is {c}.",
            color(c),
            "what color is it",
            f"It is {c}.",
        )
    ]


def _place_facts(scene: dict, i: int, thing: dict) -> list[Fact]:
    who = name(scene, thing)
    if who is None or " on the " in who or " in the middle" in who:
        return []
    he, _ = pronouns(thing)
    side = world.side(thing)
    where = "in the middle" if side == "middle" else f"on the {side}"
    near = world.neighbour(scene, thing)
    beside = name(scene, near) if near else None
    answers = place_in_picture(side, thing["row"] == "far", beside)
    facts = [
        Fact(
            "position",
            "where",
            i,
            f"where is {who}",
            f"{_capital(who)} is {where}.",
            answers,
            f"where is {he}",
            f"{_capital(he)} is {where}.",
        )
    ]
    for asked in _asked_sides(scene, i, side):
        is_there = asked == side
        words = f"{'' if is_there else 'not '}on the {asked}"
        facts.append(
            Fact(
                "position",
                f"is {asked}",
                i,
                f"is {who} on the {asked}",
                f"{_yes(is_there)}, {who} is {words}.",
                yes_no(is_there, he + " is"),
                f"is {he} on the {asked}",
                f"{_yes(is_there)}, {he} is {words}.",
            )
        )
    return facts


def lower_garment(person: dict) -> str:
    """Men and boys are drawn in pants, women and girls in skirts."""
    return "pants" if pronouns(person)[0] == "he" else "skirt"


def _asked_sides(scene: dict, i: int, side: str) -> list[str]:
    """One side to ask about: the true one or another, evenly, so that "no" is not the safe guess."""
    truly = (scene["seed"] >> i) & 1 and side != "middle"
    return [side] if truly else ["right" if side == "left" else "left"]


def _asked_poses(scene: dict, i: int, pose: str, poses: tuple[str, ...]) -> list[str]:
    """One pose to ask about, likewise."""
    if (scene["seed"] >> (i + 8)) & 1:
        return [pose]
    wrong = [p for p in poses if p != pose]
    return [wrong[(scene["seed"] >> (i + 3)) % len(wrong)]]


def _word(count: int) -> str:
    return NUMBERS[count]


def _yes(value: bool) -> str:
    return "Yes" if value else "No"


def _size_facts(scene: dict, i: int, thing: dict) -> list[Fact]:
    who = name(scene, thing)
    if who is None or thing["kind"] not in SIZED or thing["row"] != "near":
        return []
    size = thing["size"]
    answers = short_and_full(size, partly={"medium": (5, 0.3)})
    return [
        Fact(
            "attribute",
            "size",
            i,
            f"is {who} big or small",
            f"{_capital(who)} is {size}.",
            answers,
            "is it big or small",
            f"It is {size}.",
        )
    ]


def _doing_facts(scene: dict, i: int, thing: dict) -> list[Fact]:
    who = name(scene, thing)
    if who is None or "pose" not in thing:
        return []
    he, _ = pronouns(thing)
    pose, held = thing["pose"], thing.get("holding")
    answers = doing(pose, he, an(held["kind"]) if held else None)
    facts = [
        Fact(
            "activity",
            "doing",
            i,
            f"what is {who} doing",
            f"{_capital(who)} is {pose}.",
            answers,
            f"what is {he} doing",
            f"{_capital(he)} is {pose}.",
        )
    ]
    poses = (
        ("standing", "sitting", "running", "jumping")
        if thing["kind"] in world.PEOPLE
        else ("standing", "sleeping", "running")
    )
    for asked in _asked_poses(scene, i, pose, poses):
        is_so = asked == pose
        words = f"{'' if is_so else 'not '}{asked}"
        facts.append(
            Fact(
                "activity",
                f"is {asked}",
                i,
                f"is {who} {asked}",
                f"{_yes(is_so)}, {who} is {words}.",
                yes_no(is_so, he + " is"),
                f"is {he} {asked}",
                f"{_yes(is_so)}, {he} is {words}.",
            )
        )
    return facts


def _clothes_facts(scene: dict, i: int, person: dict) -> list[Fact]:
    who = name(scene, person)
    if who is None:
        return []
    he, his = pronouns(person)
    shirt, pants, hat = person["shirt"], person["pants"], person["hat"]
    lower = lower_garment(person)
    below = f"{pants} pants" if lower == "pants" else f"{an(pants)} skirt"
    facts = []
    if "shirt" not in who:
        facts.append(
            Fact(
                "color",
                "shirt",
                i,
                f"what color is {_of(who, 'shirt')}",
                f"{_capital(_of(who, 'shirt'))} is {shirt}.",
                color(shirt),
                f"what color is {his} shirt",
                f"{_capital(his)} shirt is {shirt}.",
            )
        )
        outfit = f"{an(shirt)} shirt and {below}"
        bare = f"{shirt} shirt and {below.removeprefix('a ').removeprefix('an ')}"
        answers = wordings(
            {outfit: 55, bare: 25, f"{an(shirt)} shirt": 20},
            {below: (6, 0.6), f"a shirt and {lower}": (5, 0.5)},
        )
        facts.append(
            Fact(
                "attribute",
                "wearing",
                i,
                f"what is {who} wearing",
                f"{_capital(who)} is wearing {outfit}.",
                answers,
                f"what is {he} wearing",
                f"{_capital(he)} is wearing {outfit}.",
            )
        )
    are = "are" if lower == "pants" else "is"
    facts.append(
        Fact(
            "color",
            "pants",
            i,
            f"what color {are} {_of(who, lower)}",
            f"{_capital(_of(who, lower))} {are} {pants}.",
            color(pants, plural=lower == "pants"),
            f"what color {are} {his} {lower}",
            f"{_capital(his)} {lower} {are} {pants}.",
        )
    )
    words = f"wearing {an(hat)} hat" if hat else "not wearing a hat"
    more = {f"yes, {an(hat)} hat": 10, f"yes, {an(hat)} one": 5} if hat else None
    facts.append(
        Fact(
            "attribute",
            "hat",
            i,
            f"is {who} wearing a hat",
            f"{_yes(bool(hat))}, {who} is {words}.",
            yes_no(bool(hat), he + " is", more),
            f"is {he} wearing a hat",
            f"{_yes(bool(hat))}, {he} is {words}.",
        )
    )
    if hat:
        facts.append(
            Fact(
                "color",
                "hat color",
                i,
                f"what color is {_of(who, 'hat')}",
                f"{_capital(_of(who, 'hat'))} is {hat}.",
                color(hat),
                f"what color is {his} hat",
                f"{_capital(his)} hat is {hat}.",
            )
        )
    return facts


def _hand_facts(scene: dict, i: int, person: dict) -> list[Fact]:
    who = name(scene, person)
    if who is None:
        return []
    he, _ = pronouns(person)
    held = person["holding"]
    if held is None:
        answers = yes_no(False, he + " is", {"nothing": 5, f"no, {he} isn't holding anything": 5})
        return [
            Fact(
                "attribute",
                "hand",
                i,
                f"is {who} holding anything",
                f"No, {who} is not holding anything.",
                answers,
                f"is {he} holding anything",
                f"No, {he} is not holding anything.",
            )
        ]
    kind, c = held["kind"], held["color"]
    thing, full = an(kind), f"{an(c)} {kind}"
    answers = yes_no(
        True,
        he + " is",
        {f"yes, {thing}": 40, f"yes, {full}": 15, f"yes, {he} is holding {thing}": 10, thing: 5, full: 5},
    )
    hand = f"holding {full}"
    return [
        Fact(
            "attribute",
            "hand",
            i,
            f"is {who} holding anything",
            f"Yes, {who} is {hand}.",
            answers,
            f"is {he} holding anything",
            f"Yes, {he} is {hand}.",
        ),
        Fact(
            "attribute",
            "held thing",
            i,
            f"what is {who} holding",
            f"{_capital(who)} is {hand}.",
            holding(thing, c, kind),
            f"what is {he} holding",
            f"{_capital(he)} is {hand}.",
        ),
        Fact(
            "color",
            "held color",
            i,
            f"what color is the {kind} {who} is holding",
            f"The {kind} is {c}.",
            color(c),
            "what color is it",
            f"It is {c}.",
            held=True,
        ),
    ]


def _age_facts(scene: dict, i: int, person: dict) -> list[Fact]:
    who = name(scene, person)
    if who is None:
        return []
    he, _ = pronouns(person)
    adult = person["kind"] in ADULTS
    right = (
        {"an adult": 40, "adult": 20, "maybe 30": 20, "in the 30s": 20}
        if adult
        else {"a child": 30, "a kid": 20, "about 8": 25, "young": 25}
    )
    partly = (
        {"maybe 40": (6, 0.6), "middle aged": (6, 0.6)}
        if adult
        else {"about 10": (10, 0.8), "a teenager": (5, 0.3)}
    )
    age = "an adult" if adult else "a child"
    return [
        Fact(
            "attribute",
            "age",
            i,
            f"how old is {who}",
            f"{_capital(who)} is {age}.",
            wordings(right, partly),
            f"how old is {he}",
            f"{_capital(he)} is {age}.",
        )
    ]


def _unknown_facts(scene: dict, i: int, thing: dict) -> list[Fact]:
    who = name(scene, thing)
    if who is None:
        return []
    he, his = pronouns(thing)
    cannot = "I can't tell from the picture."
    if thing["kind"] in world.PEOPLE:
        asked = [
            ("name", f"what is {_of(who, 'name')}", f"what is {his} name"),
            ("thought", f"what is {who} thinking about", f"what is {he} thinking about"),
            ("married", f"is {who} married", f"is {he} married"),
        ]
    elif thing["kind"] in world.ANIMALS:
        asked = [
            ("name", f"what is {_of(who, 'name')}", "what is its name"),
            ("owner", f"who owns {who}", "who owns it"),
            ("friendly", f"is {who} friendly", "is it friendly"),
        ]
    else:
        asked = [
            ("new", f"is {who} new", "is it new"),
            ("price", f"how much is {who}", "how much is it"),
            ("owner", f"who owns {who}", "who owns it"),
        ]
    return [
        Fact("unknown", slot, i, named, cannot, cannot_tell(), pronoun, cannot)
        for slot, named, pronoun in asked
    ]


def thing_facts(scene: dict, i: int) -> list[Fact]:
    """Everything that can be asked about thing i."""
    thing = scene["things"][i]
    facts = _color_facts(scene, i, thing) + _place_facts(scene, i, thing) + _doing_facts(scene, i, thing)
    facts += _size_facts(scene, i, thing) + _unknown_facts(scene, i, thing)
    if thing["kind"] in world.PEOPLE:
        facts += _clothes_facts(scene, i, thing) + _hand_facts(scene, i, thing) + _age_facts(scene, i, thing)
    return facts


def existence(scene: dict, kind: str, group: tuple[str, ...] | None = None) -> Fact:
    """Is there one of a kind ("is there a dog"), or of a group ("are there any animals")."""
    count = sum(k in (group or (kind,)) for k in all_kinds(scene))
    index = next((i for i, t in enumerate(scene["things"]) if t["kind"] == kind), None)
    if group or count > 1:
        many = kind if group else plural(kind)
        sentence = (
            f"Yes, there {'is ' + _word(1) if count == 1 else 'are ' + _word(count)}."
            if count
            else f"No, there are no {many}."
        )
        return Fact(
            "existence",
            f"any {kind}",
            None,
            f"are there any {many}",
            sentence,
            yes_no(count > 0, "there are" if count != 1 else "there is"),
        )
    sentence = f"Yes, there is {an(kind)}." if count else f"No, there is no {kind}."
    return Fact(
        "existence", f"any {kind}", index, f"is there {an(kind)}", sentence, yes_no(count > 0, "there is")
    )


def counting(scene: dict, kind: str, group: tuple[str, ...] | None = None) -> Fact:
    """How many of a kind, or of a group ("people")."""
    count = sum(k in (group or (kind,)) for k in all_kinds(scene))
    many = kind if group else plural(kind)
    one = {"people": "person", "animals": "animal"}.get(kind, kind)
    sentence = (
        f"There is one {one}." if count == 1 else f"There are {_word(count) if count else 'no'} {many}."
    )
    return Fact(
        "counting",
        f"count {kind}",
        None,
        f"how many {many} are there",
        sentence,
        number(count),
        "how many",
        sentence,
    )


SETTING_PHRASE = {
    "park": "in a park", "beach": "on a beach", "street": "on a street", "snow": "in the snow",
    "lake": "by a lake", "farm": "on a farm", "living room": "in a living room", "kitchen": "in a kitchen",
}  # fmt: skip


def picture_facts(scene: dict) -> list[Fact]:
    """Questions about the whole picture: place, weather, time of day, and what it cannot show."""
    setting, weather, night = scene["setting"], scene["weather"], scene["time"] == "night"
    phrase, indoors = SETTING_PHRASE[setting], setting in world.INDOORS
    out = "inside" if indoors else "outside"
    looks = f"looks like {phrase.split(' ', 1)[1]}"
    where = wordings({phrase: 45, looks: 20, setting: 20, f"{phrase} i think": 15}, {out: (6, 0.5)})
    in_out = wordings(
        {out: 50, out.replace("side", "doors") if out == "inside" else "outdoors": 25, f"it's {out}": 25}
    )
    day = wordings(
        {"night": 50, "at night": 20, "it's night": 20, "nighttime": 10}
        if night
        else {"day": 40, "daytime": 30, "it's day": 20, "during the day": 10}
    )
    facts = [
        Fact("setting", "place", None, "where is this", f"This is {phrase}.", where),
        Fact("setting", "place", None, "what place is this", f"This is {phrase}.", where),
        Fact("setting", "inside", None, "is this inside or outside", f"This is {out}.", in_out),
        Fact("setting", "day", None, "is it day or night", f"It is {'night' if night else 'day'}.", day),
        Fact(
            "setting",
            "night",
            None,
            "is it dark out",
            f"{_yes(night)}, it is {'night' if night else 'day'}.",
            yes_no(night),
        ),
        Fact(
            "setting", "photo", None, "is the picture in color", "Yes, the picture is in color.", yes_no(True)
        ),
        Fact("unknown", "clock", None, "what time is it", "I can't tell from the picture.", cannot_tell()),
        Fact("unknown", "city", None, "what city is this", "I can't tell from the picture.", cannot_tell()),
        Fact(
            "unknown",
            "photographer",
            None,
            "who took the picture",
            "I can't tell from the picture.",
            cannot_tell(),
        ),
    ]
    if not indoors:
        raining = weather == "rainy"
        facts += [
            Fact(
                "setting", "weather", None, "how is the weather", f"It is {weather}.", short_and_full(weather)
            ),
            Fact(
                "setting",
                "sunny",
                None,
                "is it sunny",
                f"{_yes(weather == 'sunny')}, it is {weather}.",
                yes_no(weather == "sunny"),
            ),
            Fact(
                "setting",
                "rain",
                None,
                "is it raining",
                f"{_yes(raining)}, it is {weather}.",
                yes_no(raining),
            ),
        ]
    return facts
