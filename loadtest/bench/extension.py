"""Why: an extension must hold at once and be written through fast, and nobody at a till may notice.

`make bench-extension` issues coupons straight into a store of its own, extends them, and writes it through in turns,
while a redeemer goes on as before; between the turns he is alone. Ends with 0: every bound reached · 1: one missed · 2:
bad arguments.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Final

import uvloop
from rich.console import Console

from loadtest.bench.figures import Bound
from loadtest.bench.processes import pinned, two_cores
from loadtest.bench.stores import Store, running_store
from service.cli.failures import CommandError, ExitCode
from service.domain.benefit import Amount
from service.domain.campaign import Campaign, CampaignStatus, user_buckets_for
from service.domain.extension import Terms
from service.domain.money import Rate
from service.domain.validity import DAY_MS, FixedValidity
from service.store.catalogue import Catalogue, KnownCampaign
from service.store.client import connect
from service.store.coupons import CouponStore, IssueRequest, RedeemRequest
from service.store.extensions import ExtensionStore
from service.store.scripts import Scripts, StoreError
from worker.tidying import Tidying

COUPONS, FEWEST, MOST = 1_000_000, 100_000, 10_000_000
BATCH: Final = 256
TIMEOUT_MS: Final = 30_000
ALONE_S: Final = 1.0
MEANWHILE_S: Final = 2.0
"""Turns are short, since what a redemption takes alone differs by half from one minute to the next."""
LONGEST_CALL_US: Final = 4_000
NEVER_S: Final = 3_600.0
SECRET: Final = b"a bench has nothing to hide"
BOUNDS: Final = {
    "An extension holds, from the call to its answer": Bound(50, "ms"),
    "Coupons written through a second of the store's time": Bound(300_000, "/s", is_least=True),
    "Write-through calls longer than 4 ms": Bound(0.01, "of all"),
    "Redeem's p99 meanwhile, against alone": Bound(2, "x"),
}


@dataclass(frozen=True, slots=True)
class Spent:
    """What scripts have cost the store."""

    calls: int
    us: int


def spent(store: Store) -> Spent:
    """What all scripts have cost it since it started."""
    stats = store.client.info("commandstats")["cmdstat_evalsha"]
    return Spent(int(stats["calls"]), int(stats["usec"]))


class Extended:
    """A campaign of that many coupons in a store, and what is done to it."""

    def __init__(self, store: Store, coupons: int) -> None:
        self._store = store
        self._total = coupons
        client = connect(store.url, TIMEOUT_MS)
        scripts = Scripts(client)
        self._catalogue = Catalogue(client, scripts, SECRET)
        self._coupons = CouponStore(Scripts(connect(store.url, TIMEOUT_MS)))
        self._extensions = ExtensionStore(scripts)
        self._redeemed = 0

    async def measure(self, console: Console) -> list[float]:
        """One value for each of BOUNDS, in their order."""
        campaign = _campaign(self._total)
        await self._catalogue.register(campaign)
        known = await self._catalogue.find(campaign.id)
        assert known is not None
        console.print(f"issuing {self._total:,} coupons")
        for first in range(0, self._total, BATCH):
            users = (f"{user:08d}" for user in range(first, min(first + BATCH, self._total)))
            await self._coupons.issue(known, 0, [IssueRequest(u, known.place(u)[1], u.encode()) for u in users])
        tidying = Tidying(self._catalogue, self._extensions)

        began_s = time.perf_counter()
        await self._extensions.extend(campaign, _terms(campaign, 1))
        held_ms = (time.perf_counter() - began_s) * 1000
        alone_s: list[float] = []
        meanwhile_s: list[float] = []
        while not await self._is_written(campaign, 1):
            alone_s += await self._redeem(known, asyncio.sleep(ALONE_S))
            turn = tidying.write_through(campaign.id, 1, time.monotonic() + MEANWHILE_S)
            meanwhile_s += await self._redeem(known, turn)

        await self._extensions.extend(campaign, _terms(campaign, 2))
        self._store.client.config_set("slowlog-log-slower-than", LONGEST_CALL_US)
        self._store.client.config_set("slowlog-max-len", self._total)
        self._store.client.slowlog_reset()
        before = spent(self._store)
        await tidying.write_through(campaign.id, 2, time.monotonic() + NEVER_S)
        after = spent(self._store)
        slow = self._store.client.slowlog_len() / (after.calls - before.calls)
        rate = self._total / ((after.us - before.us) / 1e6)
        return [held_ms, rate, slow, _p99(meanwhile_s) / _p99(alone_s)]

    async def _is_written(self, campaign: Campaign, number: int) -> bool:
        progress = await self._extensions.progress(campaign, number)
        return progress is not None and progress.is_written

    async def _redeem(self, known: KnownCampaign, meanwhile: Coroutine[None, None, None]) -> list[float]:
        """Redeem one coupon after the other while that goes on; how long each took."""
        took_s = []
        going_on = asyncio.ensure_future(meanwhile)
        while not going_on.done() and self._redeemed < self._total:
            request = RedeemRequest(self._redeemed, "tea-house", "order", None, 0)
            began_s = time.perf_counter()
            await self._coupons.redeem(known, 0, [request])
            took_s.append(time.perf_counter() - began_s)
            self._redeemed += 1
        await going_on
        return took_s


def _p99(took_s: list[float]) -> float:
    return quantiles(took_s, n=100)[-1]


def _terms(campaign: Campaign, days: int) -> Terms:
    assert isinstance(campaign.validity, FixedValidity)
    return Terms(until_ms=campaign.validity.expires_at_ms + days * DAY_MS, reason="a bench")


def _campaign(coupons: int) -> Campaign:
    now_ms = round(time.time() * 1000)
    return Campaign(
        id="bench-extension",
        name="Bench",
        status=CampaignStatus.RUNNING,
        version=1,
        benefit=Amount(2500, "CNY"),
        max_coupons=coupons,
        max_coupons_per_user=1,
        budget=None,
        issue_window=None,
        validity=FixedValidity("Asia/Shanghai", None, now_ms + DAY_MS),
        issue_rate=Rate(10**9, 10**8),
        user_rate=None,
        merchant_rate=None,
        code_prefix="BENCH",
        shards=1,
        user_buckets=user_buckets_for(coupons, 1),
        created_at_ms=now_ms,
    )


def _parse(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench-extension", description="Extend a large campaign, and write it through."
    )
    parser.add_argument("--coupons", type=int, default=COUPONS, help=f"({COUPONS:,})")
    coupons: int = parser.parse_args(arguments).coupons
    if not FEWEST <= coupons <= MOST:
        parser.error(f"--coupons must be between {FEWEST:,} and {MOST:,}")
    return coupons


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, and return the exit code."""
    coupons, console = _parse(arguments), Console()
    # Asked to stop, unwind as after an error, so that no store is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        cores = two_cores()
        with (
            tempfile.TemporaryDirectory(prefix="tidegate-extension-") as folder,
            running_store(Path(folder), cores) as store,
            pinned(cores.service),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            values = runner.run(Extended(store, coupons).measure(console))
    except (CommandError, StoreError, OSError) as error:
        sys.stderr.write(f"bench-extension: {error}\n")
        return ExitCode.REFUSED
    held = [bound.holds(value) for bound, value in zip(BOUNDS.values(), values, strict=True)]
    for (name, bound), value, holds in zip(BOUNDS.items(), values, held, strict=True):
        verdict = "[green]ok[/]    " if holds else "[bold red]missed[/]"
        console.print(verdict, f"{name}: {value:,.2f}, bound {bound}", sep="  ", highlight=False, soft_wrap=True)
    return ExitCode.DONE if all(held) else ExitCode.REFUSED


if __name__ == "__main__":
    sys.exit(main())
