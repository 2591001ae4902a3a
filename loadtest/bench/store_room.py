"""Why: some figures are the store room's own, and some need coupons by the million: no HTTP is in the way here."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import count
from statistics import median
from typing import Any, Final

import uvloop
from redis.asyncio import Redis

from loadtest.bench.systems import Tidegate
from service.cli.failures import CommandError, ExitCode
from service.domain.outcomes import Issued
from service.gate.group_commit import Bounds, GroupCommit
from service.settings import GroupCommitSettings, read_settings
from service.store.catalogue import Catalogue, KnownCampaign
from service.store.client import connect
from service.store.coupons import CouponStore, IssueRequest
from service.store.pipeline import pipelined
from service.store.scripts import STORE_CLOCK, Scripts, load

LARGEST: Final = GroupCommitSettings().max_batch
DIGEST_BYTES: Final = 8
KEY: Final = "key-"
"""What a user's idempotency key is before his id, here and in what people ask for over HTTP."""
TIMEOUT_MS: Final = 30_000
BLOCKS: Final = 10
BLOCK: Final = 50
IDLE_ISSUES: Final = 2 * BLOCKS * BLOCK
"""Coupons that are issued one by one for each look at the time when idle."""
SHARD: Final = 0
"""A campaign has one shard unless the settings say otherwise."""


class StoreRoom:
    """Issues coupons in the store of a running Tidegate, as fast as one caller can."""

    def __init__(self, service: Tidegate, client: Redis, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._url = service.store.url
        scripts = Scripts(client)
        settings = read_settings(store_url=self._url, code_secret=service.code_secret)
        self._catalogue = Catalogue(client, scripts, settings.read_code_key())
        self._coupons = CouponStore(pipelined(client, TIMEOUT_MS))

    def issue(self, campaign_id: str, first_user: int, users: int, batch: int = LARGEST) -> None:
        """Issue a coupon to each of so many users. Raises CommandError if one gets none."""
        self._runner.run(self._issue(campaign_id, first_user, users, batch))

    def codes(self, campaign_id: str, first: int, coupons: int) -> list[str]:
        """The codes of coupons by the order in which they were issued."""
        known = self._runner.run(self._known(campaign_id))
        return [known.codes.code(SHARD, sequence) for sequence in range(first, first + coupons)]

    def idle_us(self, campaign_id: str, number: int) -> tuple[float, float]:
        """The median time of one issue alone, in microseconds: by the group commit, and by the same EVALSHA bare.

        Every `number` has users of its own.
        """
        return self._runner.run(self._idle_us(campaign_id, number))

    async def _known(self, campaign_id: str) -> KnownCampaign:
        known = await self._catalogue.find(campaign_id)
        assert known is not None, campaign_id
        return known

    async def _issue(self, campaign_id: str, first_user: int, users: int, batch: int) -> None:
        known = await self._known(campaign_id)
        last = first_user + users
        for first in range(first_user, last, batch):
            requests = [_request(known, user) for user in range(first, min(first + batch, last))]
            for outcome in await self._coupons.issue(known, SHARD, requests):
                if not isinstance(outcome, Issued):
                    raise CommandError(f"a user got no coupon: {outcome}", ExitCode.REFUSED)

    async def _idle_us(self, campaign_id: str, number: int) -> tuple[float, float]:
        known = await self._known(campaign_id)
        users = count(number * IDLE_ISSUES)
        gate = GroupCommit(
            "issue",
            self._coupons.issue,
            Bounds(LARGEST, LARGEST, TIMEOUT_MS / 1000),
            observe=lambda _report: None,
            count=lambda _known, _outcomes: None,
        )
        through_the_gate, bare = [], []
        async with Redis.from_url(self._url) as client:
            for _ in range(BLOCKS):
                for _ in range(BLOCK):
                    request = _request(known, next(users))
                    began = time.perf_counter()
                    await gate.submit(known, SHARD, request)
                    through_the_gate.append(time.perf_counter() - began)
                for _ in range(BLOCK):
                    sha, keys, arguments = await _call(client, known, _request(known, next(users)))
                    began = time.perf_counter()
                    await client.evalsha(sha, len(keys), *keys, *arguments)
                    bare.append(time.perf_counter() - began)
        return median(through_the_gate) * 1e6, median(bare) * 1e6


@contextmanager
def store_room(service: Tidegate) -> Iterator[StoreRoom]:
    """The store room over a Tidegate's store, with a connection and an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        client = connect(service.store.url, TIMEOUT_MS)
        try:
            yield StoreRoom(service, client, runner)
        finally:
            runner.run(client.aclose())


class _Noted(Scripts):
    """Notes which script would be run, and runs nothing."""

    async def run(self, name: str, keys: list[str], *args: str | bytes | int) -> Any:
        self.noted = (load(name, STORE_CLOCK).sha, keys, args)
        return None


async def _call(
    client: Redis, known: KnownCampaign, request: IssueRequest
) -> tuple[str, list[str], Sequence[str | bytes | int]]:
    scripts = _Noted(client)
    await CouponStore(scripts).issue(known, SHARD, [request])
    return scripts.noted


def _request(known: KnownCampaign, number: int) -> IssueRequest:
    user_id = f"{number:08d}"
    _, bucket = known.place(user_id)
    key = f"{KEY}{user_id}".encode()
    return IssueRequest(user_id, bucket, blake2b(key, digest_size=DIGEST_BYTES).digest())
