"""A store that tests open by hand, behind a group commit, and whoever stands in its lines."""

import asyncio
from collections.abc import Iterable, Sequence

from service.domain.outcomes import Overloaded, StoreUnavailable
from service.gate.group_commit import Bounds, GroupCommit, HeldStore
from service.gate.signals import BatchReport
from service.store.catalogue import KnownCampaign
from tests.store.desk import a_campaign

SPRING = KnownCampaign(a_campaign(shards=2), b"a secret of the tests")
SUMMER = KnownCampaign(a_campaign(id="summer", code_prefix="SUN"), b"a secret of the tests")
CAMPAIGNS = [KnownCampaign(a_campaign(id=f"c{number}"), b"a secret of the tests") for number in range(12)]
UNAVAILABLE = StoreUnavailable()
MAX_WAIT_S = 2.0
ANSWER_S = 0.1


class Door:
    """A store that the test opens by hand: a call waits until it is let through, or fails as the test says."""

    def __init__(
        self, max_batch: int = 100, max_waiting: int = 100, held: HeldStore | None = None, one_server: bool = False
    ) -> None:
        self.now_s = 0.0
        self.under_way: list[tuple[str, int, list[str]]] = []
        self.calls: list[list[str]] = []
        self.reports: list[BatchReport] = []
        self.counted: list[list[str]] = []
        self.commit: GroupCommit[str, str] = GroupCommit(
            "issue",
            self._call,
            Bounds(max_batch, max_waiting, MAX_WAIT_S),
            self.reports.append,
            lambda _campaign, outcomes: self.counted.append(list(outcomes)),
            self._clock,
            held,
            one_server,
        )
        self._bars: list[asyncio.Future[None]] = []

    def _clock(self) -> float:
        # Each look takes a microsecond, as on a real clock.
        self.now_s += 1e-6
        return self.now_s

    async def _call(self, campaign: KnownCampaign, shard: int, batch: Sequence[str]) -> list[str]:
        self.calls.append(list(batch))
        self.under_way.append((campaign.campaign.id, shard, list(batch)))
        bar: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bars.append(bar)
        await bar
        return [request.upper() for request in batch]

    def ask(
        self, requests: Iterable[str], campaign: KnownCampaign = SPRING, shard: int = 0
    ) -> list[asyncio.Task[str | Overloaded | StoreUnavailable]]:
        """Each request by a caller of its own."""
        return [asyncio.create_task(self.commit.submit(campaign, shard, request)) for request in requests]

    def watch(self, requests: str, campaign: KnownCampaign = SPRING) -> list["Watcher"]:
        """Each request by somebody who notes when he is answered."""
        watchers = [Watcher(self, request) for request in requests]
        for watcher in watchers:
            self.commit.enqueue(campaign, 0, watcher)
        return watchers

    async def let_through(self, error: BaseException | None = None) -> None:
        """End the calls under way, and only those."""
        bars, self._bars, self.under_way = self._bars, [], []
        for bar in bars:
            if error is None:
                bar.set_result(None)
            else:
                bar.set_exception(error)
        await settle()


class Watcher:
    """Somebody who takes a while to answer, and notes how many calls had left by then, and how many were reported."""

    def __init__(self, door: Door, request: str) -> None:
        self.request, self.since_s, self.gone = request, 0.0, False
        self.told_after: tuple[int, int] | None = None
        self._door = door

    def receive(self, outcome: str | Overloaded | StoreUnavailable) -> None:
        assert outcome == self.request.upper()
        self.told_after = len(self._door.calls), len(self._door.reports)
        self._door.now_s += ANSWER_S


async def settle() -> None:
    """Let everybody go on until all wait for something."""
    for _ in range(10):
        await asyncio.sleep(0)
