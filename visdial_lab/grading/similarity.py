"""Which submissions look alike: pairs worth a look by a person, no verdict.

Fingerprints of code by winnowing (Schleimer, Wilkerson, Aiken 2003): names and numbers do not count, nor does
what is in the stub, in the reference solution, or in many of the submissions.
"""

import io
import keyword
import tokenize
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

_GRAM = 12  # tokens that must agree in a row
_WINDOW = 4
_COMMON = 0.3  # of the submissions: shared by so many, it is how one writes that
_FEWEST = 8  # fingerprints of one's own; less is too little to compare


def similar_pairs(
    answers: Mapping[str, Mapping[str, str]], known: Mapping[str, Iterable[str]], threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Pairs that share at least `threshold` of the smaller one's fingerprints, most alike first.

    answers: {student: {exercise: code}}. known: {exercise: code that everyone has or may have}. Returns
    [{"students": [a, b], "share": 0 to 1, "exercises": [where they agree]}].
    """
    prints: dict[str, dict[str, set[int]]] = {}
    ignored = {e: set().union(*(fingerprints(code) for code in codes)) for e, codes in known.items()}
    counts: Counter = Counter()
    for student, own in answers.items():
        prints[student] = {e: fingerprints(code) - ignored.get(e, set()) for e, code in own.items()}
        counts.update((e, p) for e, found in prints[student].items() for p in found)
    most = max(2, _COMMON * len(answers))
    for own in prints.values():
        for exercise, found in own.items():
            own[exercise] = {p for p in found if counts[exercise, p] <= most}
    sizes = {student: sum(map(len, own.values())) for student, own in prints.items()}
    pairs = []
    for a, b in combinations(sorted(prints), 2):
        smaller = min(sizes[a], sizes[b])
        if smaller < _FEWEST:
            continue
        shared = {e: len(found & prints[b].get(e, set())) for e, found in prints[a].items()}
        share = sum(shared.values()) / smaller
        if share >= threshold:
            where = [exercise for exercise, count in shared.items() if count]
            pairs.append({"students": [a, b], "share": round(share, 3), "exercises": where})
    return sorted(pairs, key=lambda pair: -pair["share"])


def fingerprints(code: str) -> set[int]:
    """The code's fingerprints: of every few runs of 12 tokens the one with the smallest hash."""
    tokens = _tokens(code)
    grams = [hash(tuple(tokens[n : n + _GRAM])) for n in range(len(tokens) - _GRAM + 1)]
    windows = range(max(1, len(grams) - _WINDOW + 1)) if grams else ()
    return {min(grams[n : n + _WINDOW]) for n in windows}


def _tokens(code: str) -> list[str]:
    """Keywords and operators as they are, names, numbers, texts as their kind; up to what is unreadable."""
    kinds = {tokenize.NAME: "name", tokenize.NUMBER: "number", tokenize.STRING: "text", tokenize.OP: "op"}
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type in kinds:
                same = token.type == tokenize.OP or keyword.iskeyword(token.string)
                found.append(token.string if same else kinds[token.type])
    except (tokenize.TokenError, SyntaxError):
        pass
    return found
