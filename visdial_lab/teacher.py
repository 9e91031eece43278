"""A teacher by rules, for the embedded scenes: what a model should recall before it answers.

A reminder says what a follow-up means ("what color is it" → "what color is the dog") and what the dialog has
established about the thing it asks for. The teacher hears what everybody hears, in order: the caption, and
the rounds before. Of the scene's truth it is told which kinds of things are in the picture, to tell their
names from other words; never where they are, what colour they have, or what will be said.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

_THING = "the thing"  # in a hand that holds something, nobody said what
NOTHING = "nothing"  # the reminder when nothing was said that could help
_FACTS = 3  # so many of a thing's facts are recalled, the latest
_PRONOUN = {"man": "he", "boy": "he", "woman": "she", "girl": "she"}  # everything else is "it"
_OWNER = {"his": "he", "her": "she", "its": "it"}
_COLOR = "(?:red|orange|yellow|green|blue|purple|pink|brown|black|white|gray)"
_POSE = "(?:standing|walking|running|jumping|waving|sitting|sleeping|flying)"
_NUMBER = r"\b(?:one|two|three|four|five|six|seven|eight|nine|a couple|a few|several|\d)\b"
_UNKNOWN = r"can't tell|not sure|hard to tell|don't know|no idea"
_NO = r"no\b|nope|not\b|none|there are none|zero|0|i don't"
_WHOLE = (  # questions about the whole picture: "it" in them is no thing, "the picture" not one on the wall
    r"where is this|place|inside or outside|day or night|dark|in color|time|city|took|weather|sunny|raining"
)


@dataclass
class _Memory:
    """What was said so far. Things go by their names in the dialog: "the dog", "the man in the red shirt"."""

    kinds: Sequence[str]  # of all things in the picture, one entry a thing
    focus: str | None = None  # the thing that was talked about last
    hand: str | None = None  # "the kite the boy is holding", if that was just said
    asked: str = ""  # the last question, spelt out
    last: dict[str, str] = field(default_factory=dict)  # he, she, it → the name that was last called so
    seen: list[str] = field(default_factory=list)  # all names, the latest at the end
    known: dict[str | None, list[str]] = field(default_factory=lambda: defaultdict(list))  # None: the picture

    def notice(self, name: str) -> None:
        """Talk has come to this thing."""
        self.focus = self.last[self.pronoun(name)] = name
        self.seen.append(name)

    def pronoun(self, name: str) -> str:
        return _PRONOUN.get(_kind(name), "it")

    def meant(self, pronoun: str) -> str | None:
        """The thing in focus if it is called so, else the one that was last."""
        own = self.focus and self.pronoun(self.focus) == pronoun
        return self.focus if own else self.last.get(pronoun)

    def learn(self, name: str | None, facts: str) -> None:
        known = self.known[name]
        for fact in facts.split(" and "):
            vague = fact == "holding something" and any(old.startswith("holding") for old in known)
            if fact not in known and not vague:
                known.append(fact)

    def subject(self, question: str) -> str | None:
        """The name of the thing that a question, spelt out, asks about; None: the picture, or a number."""
        if re.search(_WHOLE, question):
            return None
        if sided := re.fullmatch(r"is (the .+) on the (?:left|right)", question):
            return sided[1]
        kind = "|".join(self.kinds)
        name = rf"the (?:other )?(?:{_COLOR} )?(?:{kind})\b(?: in the (?:\w+ shirt|middle)| on the \w+)?"
        found = re.search(rf"(?<= ){name}(?= is holding)", question) or re.search(name, question)
        return found and found[0]


def reminders(kinds: Sequence[str], caption: str, turns: Sequence[tuple[str, str | None]]) -> list[str]:
    """A reminder for each round (question, answer) of a dialog about a scene with things of these kinds.

    Reminder r depends on the caption, the rounds before r, and question r; on no answer from r on.
    """
    memory, found = _Memory(kinds), []
    _read_caption(memory, caption)
    for question, answer in turns:
        asked = _spell_out(memory, question)
        subject = memory.subject(asked)
        facts = ", ".join(memory.known[subject][-_FACTS:])
        parts = [f"{asked}?"] if asked != question else []
        parts += [f"{subject}, {facts}" if subject else facts] if facts else []
        found.append(" ".join(parts) or NOTHING)
        _listen(memory, asked, subject, answer or "")
    return found


def _spell_out(memory: _Memory, question: str) -> str:
    """The question as it would be asked without a history: pronouns by name, what was left out put in."""
    if question == "how many" and memory.asked.startswith("are there any"):
        return memory.asked.replace("are there any", "how many") + " are there"
    if question == "what color":
        return f"what color is {memory.hand or _of(memory.focus or 'the person', 'hat')}"
    if question == "what color is it" and memory.hand and not memory.hand.startswith(_THING):
        return f"what color is {memory.hand}"
    other = re.fullmatch("(?:and|what about) (.+)", question)
    if other and (memory.focus or memory.asked.startswith("are there any")):
        return _carry_over(memory, other[1])
    if re.search(_WHOLE, question):
        return question

    own, plain = re.search(r"\b(his|her|its) (\w+)", question), re.search(r"\b(he|she|it)\b", question)
    name = memory.meant(_OWNER[own[1]] if own else plain[1]) if own or plain else None
    if name is None:
        return question
    return question.replace(own[0], _of(name, own[2])) if own else re.sub(rf"\b{plain[1]}\b", name, question)


def _carry_over(memory: _Memory, to: str) -> str:
    """The last question, asked about something else: "and the dog", "and her skirt", "what about him"."""
    if garment := re.fullmatch(r"(?:his|her) (pants|skirt)", to):
        verb = "are" if garment[1] == "pants" else "is"
        return f"what color {verb} {_of(memory.focus, garment[1])}"
    if memory.asked.startswith("are there any"):
        return f"are there any {to}"
    if to == "the other one":
        kind = _kind(memory.focus)
        others = [name for name in memory.seen if _kind(name) == kind and name != memory.focus]
        to = others[-1] if others else f"the other {kind}"
    to = memory.last.get({"him": "he", "her": "she"}.get(to), to)
    if owned := re.search(rf"{memory.focus}'s (\w+)|the (\w+) of {memory.focus}", memory.asked):
        return memory.asked.replace(owned[0], _of(to, owned[1] or owned[2]))
    return memory.asked.replace(memory.focus, to)


def _kind(name: str) -> str:
    """The dog → dog; the man in the red shirt → man; the other red ball → ball."""
    return re.sub(rf"^the (?:other )?(?:{_COLOR} )?| (?:in|on) the .*", "", name)


def _of(name: str, noun: str) -> str:
    """The man's shirt, but the shirt of the man on the left."""
    return f"{name}'s {noun}" if name.count(" ") == 1 else f"the {noun} of {name}"


def _read_caption(memory: _Memory, caption: str) -> None:
    """What the caption says about the one or two things it mentions, and which of them "it" would mean."""
    names = []
    for part in re.split(r" (?:and|next to) (?=an? )", caption):
        thing = re.match(rf"an? (?:({_COLOR}) )?({'|'.join(memory.kinds)})\b", part)
        if not thing:
            continue
        shirt = re.search(rf"in an? ({_COLOR} shirt)", part)
        twins = memory.kinds.count(thing[2]) > 1
        names.append(f"the {thing[2]} in the {shirt[1]}" if twins and shirt else f"the {thing[2]}")
        patterns = rf"{_COLOR} shirt", rf"{_COLOR} hat", r"holding an? \w+", _POSE
        for fact in filter(None, [thing[1], *(_found(pattern, part) for pattern in patterns)]):
            memory.learn(names[-1], fact)
    for name in reversed(names):
        memory.notice(name)
    if len(names) == 2 and memory.pronoun(names[0]) == "it":
        memory.focus = None  # "it" could be either of two things
    if place := _found(r"(?:in|on|by) (?:a|the) (?:living room|\w+)$", caption):
        memory.learn(None, place)


def _listen(memory: _Memory, asked: str, subject: str | None, answer: str) -> None:
    """Learn from the answer, and let the talk move on to what it was about."""
    no, there = bool(re.match(_NO, answer)), re.fullmatch(r"is there (an? (\w+))", asked)
    fact = None if re.search(_UNKNOWN, answer) or not answer else _fact(asked, answer, no)
    memory.asked = asked
    held = re.search(r"^holding (?:.* )?(\w+)$", fact or "")
    if there:
        subject = f"the {there[2]}" if there[2] in memory.kinds and not no else None
    if fact:
        memory.learn(None if there else subject, fact)
    if subject:
        memory.notice(subject)
        if not (memory.hand and asked.endswith(memory.hand)):
            thing = held and (_THING if held[1] == "something" else f"the {held[1]}")
            memory.hand = f"{thing} {subject} is holding" if held else None
    else:
        memory.hand = None


def _fact(asked: str, answer: str, no: bool) -> str | None:
    """What question and answer establish, in a few words: "red hat", "not on the left", "two people"."""
    color = _found(_COLOR, answer)
    if asked.startswith("what color"):
        held = re.search(r"color is the (\w+) .* is holding$", asked)
        worn = _found(r"\b(?:shirt|pants|skirt|hat)\b", asked)
        return color and (f"holding a {color} {held[1]}" if held else f"{color} {worn}" if worn else color)
    if asked.startswith("where is the"):
        place = _found(r"left|right|middle|center|background|next to .*", answer)
        before = {"left": "on the ", "right": "on the ", "next": ""}
        return place and before.get(place.split()[0], "in the ") + place
    if asked.endswith("wearing a hat"):
        return "no hat" if no else f"{color} hat" if color else "wearing a hat"
    if asked.endswith("wearing"):
        return re.sub(r"\ban? ", "", answer)
    if "holding" in asked:
        thing = _found(rf"\ban? (?:{_COLOR} )?\w+$", answer)
        bare = answer if asked.startswith("what is") else "something"
        return "not holding anything" if no or answer == "nothing" else f"holding {thing or bare}"
    if asked.endswith("doing"):
        return _found(_POSE, answer) or _found("holding.*", answer)
    if many := re.fullmatch("how many (.+) are there", asked):
        number = "no" if no else _found(_NUMBER, answer)
        return number and f"{number} {many[1]}"
    if some := re.fullmatch("(?:is there|are there any) (.+)", asked):
        return re.sub("^(?:an? )?", "no ", some[1]) if no else some[1]
    if stated := _found(rf"on the (?:left|right)$|{_POSE}$|dark|sunny|raining", asked):
        return f"not {stated}" if no else stated
    return None if asked.startswith("is the picture") else re.sub("^(?:it's|looks|pretty) ", "", answer)


def _found(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found and found[0]
