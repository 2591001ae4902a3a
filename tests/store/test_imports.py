"""The lines of a file wait in the store, but none of them for ever."""

from contextlib import suppress
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from service.store import keys
from service.store.imports import KEPT_FOR_S
from service.store.scripts import StoreError
from tests.store.desk import Room

pytestmark = pytest.mark.anyio


async def test_a_page_is_kept_for_a_day_even_if_the_store_is_out_of_reach_after_one_call(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.imports.add_lines("spring", "earlier", 0, [b"ACME-1"])
    send: Any = room.client.execute_command
    with monkeypatch.context() as patch:

        async def unreachable(*_: Any, **__: Any) -> Any:
            raise RedisConnectionError("the connection is gone")

        async def send_once(*command: Any, **options: Any) -> Any:
            patch.setattr(room.client, "execute_command", unreachable)
            return await send(*command, **options)

        patch.setattr(room.client, "execute_command", send_once)
        with suppress(StoreError):
            await room.imports.add_lines("spring", "one", 0, [b"ACME-2"])
    assert await room.imports.lines("spring", "one", 0) == [b"ACME-2"]
    assert 0 < await room.client.ttl(keys.import_key("spring", "one")) <= KEPT_FOR_S
