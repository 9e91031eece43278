"""How people word an answer: for every meaning, the wordings in use, how often each is chosen, how right
each is.

`Wordings` maps an answer to (probability that the annotator writes it, relevance in 0..1). Probabilities
sum to 1. A relevance of 1 means right in other words, something in between partly right; people do write
those too. The dataset samples its human answers from these tables, its dense relevance is read off them,
and so is what a perfect player could score (the oracle).
"""

Wordings = dict[str, tuple[float, float]]

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def wordings(right: dict[str, float], partly: dict[str, tuple[float, float]] | None = None) -> Wordings:
    """Right wordings with their shares, and partly right ones with (share, relevance); shares are scaled to
    sum to 1.
    """
    partly = {text: pair for text, pair in (partly or {}).items() if text not in right}
    total = sum(right.values()) + sum(share for share, _ in partly.values())
    table = {text: (share / total, 1.0) for text, share in right.items()}
    return table | {text: (share / total, relevance) for text, (share, relevance) in partly.items()}


def yes_no(value: bool, echo: str = "it is", more: dict[str, float] | None = None) -> Wordings:
    """Yes or no; `echo` is the verb taken up again ("there is", "she is"), `more` are fuller wordings with
    their shares.
    """
    if value:
        right = {"yes": 50, f"yes, {echo}": 20, "yeah": 10, "i think so": 10, "looks like it": 10}
    else:
        right = {"no": 50, f"no, {echo}n't": 20, "nope": 12, "i don't think so": 9, "not that i can see": 9}
    return wordings(right | (more or {}))


def number(count: int) -> Wordings:
    """How many; "a few" and "several" are partly right from three on."""
    word = NUMBERS[count]
    if count == 0:
        return wordings({"none": 40, "0": 20, "zero": 10, "there are none": 20, "i don't see any": 10})
    if count == 1:
        return wordings({"one": 40, "1": 20, "just one": 20, "there is one": 10, "only one": 10})
    right = {word: 45, str(count): 25, f"there are {word}": 15, f"i see {word}": 15}
    if count == 2:
        return wordings(right, {"a couple": (6, 0.8)})
    return wordings(right, {"a few": (6, 0.5), "several": (4, 0.4)})


def color(name: str, plural: bool = False) -> Wordings:
    """A colour; "mostly" takes something back and is partly right."""
    right = {name: 50, f"it's {name}": 20, f"it is {name}": 10, f"{name} i think": 10, f"looks {name}": 10}
    if plural:
        right = {name: 50, f"they are {name}": 20, f"{name} i think": 15, f"they look {name}": 15}
    return wordings(right, {f"mostly {name}": (5, 0.6)})


def doing(pose: str, pronoun: str, holding: str | None = None) -> Wordings:
    """What somebody is doing, by pose and perhaps by what is in the hand."""
    right = {pose: 40, f"{pronoun} is {pose}": 25, f"just {pose}": 20, f"{pose} there": 15}
    if holding:
        right |= {f"holding {holding}": 20, f"{pose} and holding {holding}": 10}
    return wordings(right)


def place_in_picture(side: str, far: bool, beside: str | None) -> Wordings:
    """Where in the picture: by side, by depth, by neighbour."""
    if side == "middle":
        right = {"in the middle": 50, "in the center": 25, "middle": 15, "near the middle": 10}
    else:
        right = {f"on the {side}": 45, f"on the {side} side": 20, f"to the {side}": 20, side: 15}
    if far:
        right["in the background"] = 15
    return wordings(right, {f"next to {beside}": (8, 0.8)} if beside else None)


def holding(article_thing: str, color_name: str, kind: str) -> Wordings:
    """What is in somebody's hand."""
    full = f"{'an' if color_name == 'orange' else 'a'} {color_name} {kind}"
    return wordings({article_thing: 45, full: 25, kind: 15, f"it's {article_thing}": 15})


def short_and_full(short: str, partly: dict[str, tuple[float, float]] | None = None) -> Wordings:
    """One adjective or noun in the usual dresses: "sunny", "it's sunny", "looks sunny", "pretty sunny"."""
    return wordings({short: 50, f"it's {short}": 25, f"looks {short}": 15, f"pretty {short}": 10}, partly)


def cannot_tell() -> Wordings:
    """What people say when the picture does not show it."""
    return wordings(
        {
            "can't tell": 35,
            "i can't tell": 25,
            "not sure": 15,
            "hard to tell": 15,
            "i don't know": 10,
            "no idea": 8,
        }
    )
