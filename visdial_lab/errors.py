"""The two exceptions that a user of this library is meant to see, and how values look in their messages."""

import contextlib
import reprlib
from collections.abc import Iterator
from typing import Any


class UserError(Exception):
    """A mistake that the user can mend. The message is one or two lines: what is wrong, where, what to do.

    The command line prints the message alone and exits with code 2; a notebook shows it alone, too.
    """

    def _render_traceback_(self) -> list[str]:
        return _alone(self)


class WorkFailed(Exception):
    """The call was right, but the work failed. The message says it all: a traceback would tell no more.

    The command line prints the message alone and exits with code 1; a notebook shows it alone, too.
    """

    def _render_traceback_(self) -> list[str]:
        return _alone(self)


def _alone(error: Exception) -> list[str]:
    """What IPython shows in the place of a traceback: the name in red, as it does, and the message."""
    return f"\x1b[31m{type(error).__name__}\x1b[39m: {error}".splitlines()


@contextlib.contextmanager
def naming(place: str) -> Iterator[None]:
    """Put the place (file, entry) before the message of a UserError from below, where it is not known."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def differences(there: dict, now: dict) -> list[str]:
    """What differs in how two things were made, as ["seed 0, now 1"]; [] when nothing does."""
    names = [name for name in there | now if there.get(name) != now.get(name)]
    return [f"{name} {shown(there.get(name))}, now {shown(now.get(name))}" for name in names]


def shown(value: Any) -> str:
    """A value as it may stand in an error message: never long, and null for None, as in JSON and YAML."""
    return "null" if value is None else reprlib.repr(value)
