"""Imports: the lines of a file wait in the store, out of everybody's sight, until all of them have been found good.

They wait there and not in a file, because the worker that checks them may run on another machine than the API that
took them. A page is PAGE lines in one field; what nobody goes on with vanishes after a day.
"""

import asyncio
import json
import sys
from array import array
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis

from service.domain.imported_codes import ImportedCodes
from service.store import keys
from service.store.scripts import Scripts, store_errors

PAGE: Final = 4_096
PAGES_PER_READ: Final = 8
KEPT_FOR_S: Final = 86_400
MOST_BAD_LINES: Final = 20

BadLines = dict[int, str]
"""Why lines are bad, by their number, from 1."""


class ImportStore:
    """Keeps imports. Every method raises StoreError when the store does not answer."""

    def __init__(self, client: Redis, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    async def add_lines(self, campaign_id: str, import_id: str, page: int, lines: Sequence[bytes]) -> None:
        """Keep a page of the file as it came, for a day."""
        import_key = keys.import_key(campaign_id, import_id)
        await self._scripts.run("keep_lines", [import_key], f"lines:{page}", b"\n".join(lines), KEPT_FOR_S)

    async def lines(self, campaign_id: str, import_id: str, page: int) -> list[bytes]:
        """A page of the file; empty where the import is gone."""
        with store_errors():
            text: Any = await self._client.hget(keys.import_key(campaign_id, import_id), f"lines:{page}")
        return text.split(b"\n") if text is not None else []

    async def put_codes(self, campaign_id: str, import_id: str, page: int, text: bytes, bad: BadLines) -> None:
        """Keep the page's codes in place of its lines, and all bad lines found so far."""
        await self._put(campaign_id, import_id, "bad", json.dumps(bad).encode())
        await self._put(campaign_id, import_id, f"codes:{page}", text)

    async def bad_lines(self, campaign_id: str, import_id: str) -> BadLines:
        """The bad lines found so far."""
        with store_errors():
            text = await self._client.hget(keys.import_key(campaign_id, import_id), "bad")
        return {int(line): why for line, why in json.loads(text or b"{}").items()}

    async def codes_of(self, campaign_id: str, import_id: str, pages: int) -> list[list[bytes]]:
        """The codes of an import, page by page."""
        found = await self._pages(keys.import_key(campaign_id, import_id), "codes", pages)
        return [page.split(b"\n") if page else [] for page in found]

    async def put_order(self, campaign_id: str, import_id: str, order: "array[int]", pages: int) -> None:
        """Keep the index of the codes' texts; the lines as they came are needed no more."""
        for page in range(-(-len(order) // PAGE)):
            part = order[page * PAGE : (page + 1) * PAGE]
            await self._put(campaign_id, import_id, f"order:{page}", _portable(part).tobytes())
        await self._put(campaign_id, import_id, "pages", str(pages).encode())
        await self._put(campaign_id, import_id, "id", import_id.encode())
        with store_errors():
            lines = [f"lines:{page}" for page in range(pages)]
            await self._client.hdel(keys.import_key(campaign_id, import_id), *lines)

    async def publish(self, campaign_id: str, import_id: str) -> str:
        """Make it the campaign's codes: published, imported_before (another was) or gone."""
        import_key, codes_key = keys.import_key(campaign_id, import_id), keys.codes_key(campaign_id)
        word: bytes = await self._scripts.run("publish_import", [import_key, codes_key], import_id)
        return word.decode()

    async def drop(self, campaign_id: str, import_id: str) -> None:
        """Forget an import that was not published."""
        with store_errors():
            await self._client.delete(keys.import_key(campaign_id, import_id))

    async def load(self, campaign_id: str, codes: int) -> ImportedCodes:
        """The campaign's published codes."""
        with store_errors():
            pages = int(await self._client.hget(keys.codes_key(campaign_id), "pages") or 0)
        text = [page for page in await self._pages(keys.codes_key(campaign_id), "codes", pages) if page]
        order: array[int] = array("I")
        for page in await self._pages(keys.codes_key(campaign_id), "order", -(-codes // PAGE)):
            order.frombytes(page)
        # A million lines take a moment to find, in which the process serves others.
        return await asyncio.to_thread(ImportedCodes, b"\n".join(text), _portable(order))

    async def _put(self, campaign_id: str, import_id: str, field: str, value: bytes) -> None:
        with store_errors():
            await self._client.hset(keys.import_key(campaign_id, import_id), field, value)

    async def _pages(self, key: str, name: str, pages: int) -> list[bytes]:
        found: list[bytes] = []
        for first in range(0, pages, PAGES_PER_READ):
            fields = [f"{name}:{page}" for page in range(first, min(pages, first + PAGES_PER_READ))]
            with store_errors():
                values: Any = await self._client.hmget(key, fields)
            found += [value or b"" for value in values]
        return found


def _portable(numbers: "array[int]") -> "array[int]":
    """The numbers as every machine reads them, little-endian; and back again."""
    if sys.byteorder == "big":
        numbers = array("I", numbers)
        numbers.byteswap()
    return numbers
