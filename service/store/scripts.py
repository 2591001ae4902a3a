"""The Lua scripts, addressed by their content, so that two versions of Tidegate can run side by side on one store."""

import re
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

LUA: Final = Path(__file__).parent / "lua"
USES: Final = re.compile(r"^( *)-- Uses +(\w+(?:, \w+)*)$", re.MULTILINE)
"""The line in which a script or a fragment names the fragments that it needs, and no others: the store defines all of
their functions anew at every call. Within a function it stands where they are defined, whenever that is called."""
CLOCK: Final = "clock"
STORE_CLOCK: Final = (LUA / "fragments" / f"{CLOCK}.lua").read_text(encoding="utf-8")


class StoreError(Exception):
    """The store did not do what it was asked, or did and could not say so."""


class StoreUnreachable(StoreError):
    """There is no connection to the store."""


class StoreTimeout(StoreError):
    """The store gave no answer in time; whether the script ran is unknown."""


class StoreRefused(StoreError):
    """The store answered with an error of its own: out of memory, read-only, disk full."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns the client library's errors into StoreUnreachable, StoreTimeout and StoreRefused."""
    try:
        yield
    except RedisTimeoutError as error:
        raise StoreTimeout(str(error)) from error
    except (RedisConnectionError, RedisClusterException, OSError) as error:
        raise StoreUnreachable(str(error)) from error
    except RedisError as error:
        raise StoreRefused(str(error)) from error


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and its SHA-1, by which the store knows it."""

    source: str
    sha: str


class Scripts:
    """Runs scripts on a store. `clock` is the fragment that defines `now_ms`; tests pass one they can turn."""

    def __init__(self, client: Redis, clock: str = STORE_CLOCK) -> None:
        self._client = client
        self._clock = clock

    async def run(self, name: str, keys: list[str], *args: str | bytes | int) -> Any:
        """Run a script once and return its reply. Never repeats a script that may have run.

        Raises StoreUnreachable, StoreTimeout or StoreRefused.
        """
        script = load(name, self._clock)
        with store_errors():
            try:
                return await self._client.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:
                return await self._client.eval(script.source, len(keys), *keys, *args)


@cache
def load(name: str, clock: str) -> Script:
    """The script of that name."""
    source = behind_fragments((LUA / f"{name}.lua").read_text(encoding="utf-8"), clock)
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


def behind_fragments(text: str, clock: str = STORE_CLOCK) -> str:
    """A script's text with the fragments that it uses, each behind those that it uses itself.

    They come first, but for those that only a function uses: its own line that names them is where they stand.
    """

    def gather(names: str, known: Set[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in names.split(", "):
            if name not in known | found.keys():
                fragment = clock if name == CLOCK else (LUA / "fragments" / f"{name}.lua").read_text(encoding="utf-8")
                uses = USES.search(fragment)
                found |= gather(uses[2], known | found.keys()) if uses else {}
                found[name] = fragment
        return found

    first: dict[str, str] = {}
    for uses in USES.finditer(text):
        if not uses[1]:
            first |= gather(uses[2], first.keys())
    within = USES.sub(lambda uses: "\n".join(gather(uses[2], first.keys()).values()) if uses[1] else uses[0], text)
    return "\n".join([*first.values(), within])
