"""Talking to an OpenAI-compatible server: what it said, or why not, in words that hold no secret."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from visdial_lab.chat import message_text
from visdial_lab.errors import UserError, listed

KEY = "OPENAI_API_KEY"  # the environment variable that the key comes from, and the only place
_LONGEST_WAIT = 120  # seconds that a Retry-After may ask for; the openai client gives up on longer ones
_SHOWN = 20  # models of a server that a message lists

Ask = Callable[[list[dict]], Awaitable[tuple[str, dict[str, int]]]]


@dataclass(frozen=True)
class Server:
    """Where to ask, and how patiently. The key is not here: it stays in the environment."""

    base_url: str = "http://localhost:11434/v1"  # Ollama on this machine
    retries: int = 6  # after 429, 5xx, a cut connection or a timeout, with growing jittered pauses
    timeout: float = 120.0  # seconds for one request


class ServerTrouble(Exception):
    """The server failed on one sample; another may fare better.

    again: it did answer, but not in a form that can be read; nothing has been tried again yet.
    """

    def __init__(self, reason: str, again: bool = False):
        super().__init__(reason)
        self.reason, self.again, self.tokens = reason, again, {"prompt": 0, "completion": 0}


@contextlib.asynccontextmanager
async def connect(server: Server, recipe: Any) -> AsyncIterator[Ask]:
    """Check server and model, then give ask(messages) → (reply, {"prompt": tokens, "completion": tokens}).

    ask raises ServerTrouble when a request fails for good, UserError for a refused key or unknown model.
    """
    import openai

    if key := _key():  # with OPENAI_LOG=debug, some versions write whatever a server sends, an echoed key too
        logging.getLogger("openai").setLevel(logging.WARNING)
    url = _checked_url(server.base_url)
    client = openai.AsyncOpenAI(
        api_key=key or "none", base_url=url, max_retries=server.retries, timeout=server.timeout
    )
    options = {"model": recipe.model, "temperature": recipe.temperature, "seed": recipe.seed}
    patience = (server.timeout + _LONGEST_WAIT) * (server.retries + 1)

    async def ask(messages: list[dict]) -> tuple[str, dict[str, int]]:
        try:
            async with asyncio.timeout(patience):  # a server that dribbles byte after byte never times out
                said = await client.chat.completions.create(
                    messages=messages, max_tokens=recipe.max_tokens, **options
                )
            return _read(said, messages)
        except openai.NotFoundError as error:
            raise await _no_model(client, url, recipe.model, _told(error, key)) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise _refused(url, _told(error, key), key) from None
        except (openai.OpenAIError, TimeoutError) as error:
            raise ServerTrouble(_told(error, key)) from None
        except (ValueError, RecursionError) as error:  # no JSON, or too deep
            raise ServerTrouble(_told(error, key), again=True) from None

    async with client:
        await _greet(client, url, options, key)
        yield ask


def _key() -> str | None:
    """The key, if there is one. Raises UserError, without showing it, for one that no header can hold."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{KEY} in the environment holds characters that a key cannot have; set it again")
    return key or None


def _checked_url(base_url: str) -> str:
    """The address. Raises UserError for one that is none, or that would carry a secret into the manifest."""
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good:
        raise UserError(
            f"--base-url: expected an address such as http://localhost:11434/v1, got {base_url!r}"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UserError(f"--base-url holds more than an address; a key comes from the environment ({KEY})")
    return base_url


async def _greet(client: Any, url: str, options: dict, key: str | None) -> None:
    """Is somebody there, and do they have the model? Not every server lists all that it can load: one that
    does not name the model is asked for one token from it. Raises UserError."""
    import openai

    models = await _models(client, url, key)
    if options["model"] in models:
        return
    hello = [{"role": "user", "content": "hello"}]
    try:
        await client.with_options(max_retries=1).chat.completions.create(
            messages=hello, max_tokens=1, **options
        )
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise _refused(url, _told(error, key), key) from None
    except (openai.OpenAIError, ValueError) as error:
        raise await _no_model(client, url, options["model"], _told(error, key)) from None


async def _models(client: Any, url: str, key: str | None) -> list[str]:
    """The models that the server lists; none when it lists none. Raises UserError when nobody answers."""
    import openai

    try:
        listed = await client.with_options(max_retries=1, timeout=20).models.list()
        return sorted(str(model.id) for model in listed.data)
    except openai.APIConnectionError as error:
        raise UserError(
            f"no server answers at {url} ({_told(error, key)}); start it (`ollama serve`), or give --base-url"
        ) from None
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise _refused(url, _told(error, key), key) from None
    except (openai.OpenAIError, ValueError, AttributeError, TypeError):  # it has no list, or not in this form
        return []


async def _no_model(client: Any, url: str, model: str, reason: str) -> UserError:
    models = await _models(client, url, _key())
    there = listed(models, _SHOWN)
    return UserError(
        f"{url} does not answer for model {model!r} ({reason}).\n"
        f"Models that it lists: {there or 'none; does the address end as it should (mostly in /v1)?'}"
    )


def _refused(url: str, reason: str, key: str | None) -> UserError:
    state = "it is refused" if key else "it is not set"
    return UserError(f"{url} wants a key ({reason}); {KEY} in the environment: {state}")


def _read(said: Any, messages: list[dict]) -> tuple[str, dict[str, int]]:
    """The reply in a response, and its tokens. Raises ServerTrouble when the response has another form."""
    try:
        reply = said.choices[0].message.content
    except (AttributeError, TypeError, LookupError):
        raise ServerTrouble("the response is no chat completion", again=True) from None
    if not isinstance(reply, str):
        raise ServerTrouble(f"the response holds {type(reply).__name__} instead of a text", again=True)
    reply = reply.encode("utf-8", "replace").decode()  # half a character could not be written to a file
    counts = [getattr(said.usage, f"{kind}_tokens", None) for kind in ("prompt", "completion")]
    if not all(type(count) is int and count >= 0 for count in counts):  # not told: four characters a token
        counts = [sum(len(message_text(message)) for message in messages) // 4, len(reply) // 4]
    return reply, dict(zip(("prompt", "completion"), counts, strict=True))


def _told(error: Exception, key: str | None) -> str:
    """What went wrong as one short line. A server may echo the key that it was sent: it is taken out."""
    import openai

    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        said = body.get("message") or body.get("detail") or error.message
        text = f"the server answers {error.status_code}: {said}"
    elif isinstance(error, openai.APITimeoutError | TimeoutError):
        text = "it takes too long"
    elif isinstance(error, openai.APIConnectionError):
        text = f"the connection failed: {error.__cause__ or error}"
    else:
        text = f"the response cannot be read: {error}"
    text = " ".join(text.split())
    return (text.replace(key, "***") if key else text)[:200]
