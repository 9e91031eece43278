"""The two exceptions that a user of this library is meant to see, and how values look in their messages."""

import contextlib
import difflib
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


class _Told(Exception):
    """An error whose message says it all."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in the place of a traceback: the name in red, as it does, and the message."""
        return f"\x1b[31m{type(self).__name__}\x1b[39m: {self}".splitlines()


class UserError(_Told):
    """A mistake that the user can mend. The message is one or two lines: what is wrong, where, what to do.

    The command line prints the message alone and exits with code 2; a notebook shows it alone, too.
    """


class WorkFailed(_Told):
    """The call was right, but the work failed. The message says it all: a traceback would tell no more.

    The command line prints the message alone and exits with code 1; a notebook shows it alone, too.
    """


OnBad = Callable[[int, UserError], None]  # told the number of what is at fault, which is then left out


@contextlib.contextmanager
def naming(place: str) -> Iterator[None]:
    """Put the place (file, entry; or "") before the message of a UserError from below that knows none."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}" if place else str(error)) from None


def differences(there: dict, now: dict) -> str:
    """What differs in how two things were made: "seed 0, now 1; rounds 2, now 3"; "" when nothing does."""
    names = [name for name in there | now if there.get(name) != now.get(name)]
    told = (f"{name} {shown(there.get(name))}, now {shown(now.get(name))}" for name in names)
    return listed(told, 3, "; ")


def listed(items: Iterable[Any], most: int, separator: str = ", ") -> str:
    """The first items of a list that may be long, as "a, b and 7 more"."""
    items = list(map(str, items))
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def counted(count: int, one: str, many: str = "") -> str:
    """A number with what it counts: "1 dialog", "2,064 dialogs"; many: where that is more than an added s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def shown(value: Any) -> str:
    """A value as it may stand in an error message: never long, and null for None, as in JSON and YAML."""
    return "null" if value is None else reprlib.repr(value)


def nearest(word: str, choices: Sequence[str], cutoff: float = 0.6) -> str:
    """A hint, " (did you mean …?)": the nearest whole key, else the nearest by its last part, else nothing.

    cutoff: how alike the two must be, from 0 to 1 (`difflib.get_close_matches`).
    """
    parts = {choice.rpartition(".")[2]: choice for choice in choices}
    close = difflib.get_close_matches(word, choices, 1, cutoff)
    last = word.rpartition(".")[2]
    close += [parts[part] for part in difflib.get_close_matches(last, parts, 1, cutoff)]
    return f" (did you mean {close[0]}?)" if close else ""
