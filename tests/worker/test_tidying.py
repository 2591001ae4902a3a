"""The jobs' work: afterwards everything is written down as it already held, exactly once, whoever was interrupted."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from itertools import count

import pytest

from service.domain.campaign import CampaignStatus, IssueWindow
from service.domain.coupon import CouponStatus
from service.domain.extension import Scope, Terms
from service.domain.outcomes import CampaignNotRunning, IssuancePaused, Issued
from service.store import extensions, previews
from service.store.catalogue import Catalogue
from service.store.extension_progress import ExtensionProgress, ExtensionStatus
from service.store.extensions import COUPONS_PER_CALL, ExtensionStore
from tests.store.desk import EXPIRY, LATER, LAUNCH, SECRET, Desk, DyingScripts, ProcessDied, Room
from worker.tidying import Tidying

pytestmark = pytest.mark.anyio

HOUR = 3_600_000
MOST_CALLS = 100


def tidying(room: Room) -> Tidying:
    return Tidying(room.catalogue, room.extensions)


def in_time() -> float:
    return time.monotonic() + 60


async def issue(desk: Desk, number: int, shard: int = 0) -> None:
    wishes = [(f"user {index}", "first") for index in range(number)]
    for at in range(0, number, 256):
        await desk.issue_batch(wishes[at : at + 256], shard)


async def progress(room: Room, desk: Desk, number: int) -> ExtensionProgress:
    found = await room.extensions.progress(desk.campaign, number)
    assert found is not None
    return found


async def status(room: Room) -> tuple[CampaignStatus, int]:
    campaign = await room.catalogue.load("spring")
    assert campaign is not None
    return campaign.status, campaign.version


@pytest.mark.parametrize(("chunk_ms", "rests_s"), [(5, [0.04, 0.04]), (20, [0.08] * 5), (50, [0.1] * 5)])
async def test_after_a_spell_the_store_rests_four_times_as_long(
    room: Room, monkeypatch: pytest.MonkeyPatch, chunk_ms: int, rests_s: list[float]
) -> None:
    monkeypatch.setattr(extensions, "COUPONS_PER_CALL", 1)
    desk = await room.open()
    await issue(desk, 6)
    await desk.extend()
    rested_s: list[float] = []

    async def rest(seconds: float) -> None:
        rested_s.append(round(seconds, 6))

    looks = count()
    slow = Tidying(room.catalogue, room.extensions, lambda: next(looks) * chunk_ms / 1000, rest)
    await slow.write_through("spring", 1, until_s=60)
    assert rested_s == rests_s
    assert (await progress(room, desk, 1)).is_written


async def test_an_extension_is_written_into_every_coupon_and_counts_those_it_changed(room: Room) -> None:
    desk = await room.open(shards=2)
    await issue(desk, 300, shard=0)
    await issue(desk, 200, shard=1)
    await desk.redeem(0)
    await desk.deactivate(1)
    await desk.extend()
    await tidying(room).write_through("spring", 1, in_time())
    written = await progress(room, desk, 1)
    assert (written.status, written.done, written.changed) == (ExtensionStatus.COMPLETED, 500, 498)


async def test_earlier_extensions_are_written_first_and_each_counts_its_own(room: Room) -> None:
    desk = await room.open()
    await issue(desk, 300)
    await desk.extend(EXPIRY + HOUR)
    await desk.extend(EXPIRY + 2 * HOUR)
    await desk.extend(EXPIRY + 2 * HOUR)
    await tidying(room).write_through("spring", 3, in_time())
    written = [await progress(room, desk, number) for number in (1, 2, 3)]
    assert [(each.status, each.changed) for each in written] == [
        (ExtensionStatus.COMPLETED, 300),
        (ExtensionStatus.COMPLETED, 300),
        (ExtensionStatus.COMPLETED, 0),
    ]


async def test_when_the_time_is_up_the_work_stops_and_the_next_job_goes_on_from_there(room: Room) -> None:
    desk = await room.open()
    await issue(desk, 2 * COUPONS_PER_CALL + 10)
    await desk.extend()
    done = []
    for _ in range(3):
        await tidying(room).write_through("spring", 1, until_s=time.monotonic())
        done.append((await progress(room, desk, 1)).done)
    assert done == [COUPONS_PER_CALL, 2 * COUPONS_PER_CALL, 2 * COUPONS_PER_CALL + 10]
    assert (await progress(room, desk, 1)).changed == 2 * COUPONS_PER_CALL + 10


async def test_two_jobs_at_once_change_nothing_twice(room: Room) -> None:
    desk = await room.open()
    await issue(desk, 4 * COUPONS_PER_CALL)
    await desk.extend()
    await asyncio.gather(*(tidying(room).write_through("spring", 1, in_time()) for _ in range(2)))
    written = await progress(room, desk, 1)
    assert (written.done, written.changed) == (4 * COUPONS_PER_CALL, 4 * COUPONS_PER_CALL)


async def test_an_extension_whose_maker_died_between_shards_reaches_all_of_them(room: Room) -> None:
    desk = await room.open(shards=3)
    for shard in range(3):
        await issue(desk, 10, shard)
    with pytest.raises(ProcessDied):
        await ExtensionStore(DyingScripts(room.client, calls=1)).extend(
            desk.campaign, Terms(until_ms=LATER, reason="as asked")
        )
    await tidying(room).write_through("spring", 1, in_time())
    assert {coupon.expires_at_ms for coupon in await desk.all_coupons()} == {LATER}
    assert (await progress(room, desk, 1)).changed == 30


async def test_a_failure_shows_until_the_work_goes_on(room: Room) -> None:
    desk = await room.open()
    await issue(desk, 2 * COUPONS_PER_CALL)
    await desk.extend()
    await tidying(room).note_failure("spring", 1, "StoreRefused: out of memory")
    failed = await progress(room, desk, 1)
    assert (failed.status, failed.failure) == (ExtensionStatus.FAILED, "StoreRefused: out of memory")
    await tidying(room).write_through("spring", 1, until_s=time.monotonic())
    goes_on = await progress(room, desk, 1)
    assert (goes_on.status, goes_on.failure) == (ExtensionStatus.RUNNING, "")


async def test_what_does_not_exist_is_nothing_to_do(room: Room) -> None:
    await tidying(room).write_through("nowhere", 1, in_time())
    await tidying(room).note_failure("nowhere", 1, "why")
    await tidying(room).tend("nowhere", in_time())
    await room.open()
    before = await room.everything()
    await tidying(room).write_through("spring", 7, in_time())
    await tidying(room).note_failure("spring", 7, "why")
    await tidying(room).tend("spring", in_time())
    assert await room.everything() == before


async def test_a_campaign_opens_and_closes_with_its_issue_window(room: Room) -> None:
    window = IssueWindow(LAUNCH + HOUR, LAUNCH + 2 * HOUR)
    desk = await room.open(status=CampaignStatus.SCHEDULED, issue_window=window)
    seen = []
    for at in (LAUNCH, LAUNCH + HOUR, LAUNCH + 2 * HOUR):
        await room.clock.set(at)
        await tidying(room).tend("spring", in_time())
        seen.append(await status(room))
    assert seen == [(CampaignStatus.SCHEDULED, 1), (CampaignStatus.RUNNING, 2), (CampaignStatus.ENDED, 3)]
    await room.clock.set(LAUNCH + HOUR)
    assert await desk.issue() == CampaignNotRunning(CampaignStatus.ENDED, None)


@pytest.mark.parametrize("kept", [CampaignStatus.DRAFT, CampaignStatus.PAUSED, CampaignStatus.STOPPED])
async def test_what_an_operator_decided_no_window_changes(room: Room, kept: CampaignStatus) -> None:
    await room.open(status=kept, issue_window=IssueWindow(LAUNCH - HOUR, LAUNCH + HOUR))
    await tidying(room).tend("spring", in_time())
    assert await status(room) == (kept, 1)


async def test_an_operator_who_is_quicker_wins(room: Room) -> None:
    desk = await room.open(status=CampaignStatus.SCHEDULED, issue_window=IssueWindow(LAUNCH, LAUNCH + HOUR))

    class WhileTheOperatorPauses(Catalogue):
        async def now_ms(self) -> int:
            await desk.change(status=CampaignStatus.PAUSED)
            return await super().now_ms()

    catalogue = WhileTheOperatorPauses(room.client, room.scripts, SECRET)
    await Tidying(catalogue, room.extensions).tend("spring", in_time())
    assert await status(room) == (CampaignStatus.PAUSED, 2)


async def test_a_change_whose_maker_died_between_shards_reaches_all_of_them(room: Room) -> None:
    desk = await room.open(shards=4)
    paused = replace(desk.campaign, version=2, status=CampaignStatus.PAUSED)
    with pytest.raises(ProcessDied):
        await Catalogue(room.client, DyingScripts(room.client, calls=6), SECRET).update(desk.campaign, paused)
    await tidying(room).tend("spring", in_time())
    outcomes = [(await desk.issue_batch([("ann", "first")], shard))[0] for shard in range(4)]
    assert {type(outcome) for outcome in outcomes} == {IssuancePaused}


async def test_expired_coupons_are_marked_and_their_money_comes_back(room: Room) -> None:
    desk = await room.open()
    await issue(desk, 2 * COUPONS_PER_CALL)
    await desk.redeem(5)
    await room.clock.set(EXPIRY)
    await tidying(room).tend("spring", in_time())
    counters = await desk.counters()
    assert (counters.outstanding, counters.expired, counters.redeemed) == (0, 2 * COUPONS_PER_CALL - 1, 1)
    assert counters.budget_committed == 2500


async def test_reservations_past_their_time_are_freed(room: Room) -> None:
    desk = await room.open()
    await issue(desk, 3)
    await desk.redeem(0, hold_ms=HOUR)
    await desk.redeem(1, hold_ms=2 * HOUR)
    await room.clock.advance(HOUR)
    await tidying(room).tend("spring", in_time())
    counters = await desk.counters()
    assert (counters.outstanding, counters.reserved) == (2, 1)
    coupons = await desk.all_coupons()
    assert [coupon.status for coupon in coupons] == [CouponStatus.ISSUED, CouponStatus.RESERVED, CouponStatus.ISSUED]
    assert isinstance(await desk.issue("bob"), Issued)


async def test_a_reservation_past_its_time_waits_for_no_other_shards_sweep(room: Room) -> None:
    desk = await room.open(shards=2)
    await issue(desk, 2 * COUPONS_PER_CALL, shard=0)
    await issue(desk, 1, shard=1)
    await room.clock.set(EXPIRY - HOUR)
    await desk.redeem(hold_ms=HOUR, shard=1)
    await room.clock.set(EXPIRY)
    await tidying(room).tend("spring", until_s=time.monotonic())
    counters = await desk.counters()
    assert (counters.outstanding, counters.reserved, counters.expired) == (COUPONS_PER_CALL, 0, COUPONS_PER_CALL + 1)


async def test_lost_time_is_given_back_by_exactly_its_length_once_where_the_clock_stops(room: Room) -> None:
    desk = await room.open(stop_the_clock=True, shards=2)
    await issue(desk, 3, shard=0)
    await issue(desk, 3, shard=1)
    await room.clock.set(LAUNCH + 2 * HOUR)
    await room.extensions.outages.record(LAUNCH - HOUR, LAUNCH, "before the launch", "ada")
    await room.extensions.outages.record(LAUNCH + HOUR, LAUNCH + 2 * HOUR, "tills down", "ada")
    for _ in range(2):
        await tidying(room).tend("spring", in_time())
        await tidying(room).write_through("spring", 1, in_time())
    assert {coupon.expires_at_ms for coupon in await desk.all_coupons()} == {EXPIRY + HOUR}
    given_back = await progress(room, desk, 1)
    assert (given_back.added_ms, given_back.until_ms, given_back.changed) == (HOUR, None, 6)
    assert (given_back.reason, given_back.actor) == ("tills down", "ada")
    assert await room.extensions.progress(desk.campaign, 2) is None


async def test_lost_time_stays_lost_where_the_clock_does_not_stop(room: Room) -> None:
    desk = await room.open()
    await issue(desk, 3)
    await room.extensions.outages.record(LAUNCH - HOUR, LAUNCH + 1, "tills down", "ada")
    before = await room.everything()
    await tidying(room).tend("spring", in_time())
    assert await room.everything() == before
    assert {coupon.expires_at_ms for coupon in await desk.all_coupons()} == {EXPIRY}


async def test_an_undone_extension_is_written_back_and_the_one_made_afterwards_after_it(room: Room) -> None:
    desk = await room.open(shards=2)
    await issue(desk, 300, shard=0)
    await issue(desk, 200, shard=1)
    await desk.extend(LATER + HOUR)
    await desk.undo(1)
    await desk.extend(LATER)
    await tidying(room).write_through("spring", 2, in_time())
    first, second = await progress(room, desk, 1), await progress(room, desk, 2)
    assert first.undo is not None
    assert (first.status, first.undo.done, first.undo.shortened) == (ExtensionStatus.UNDONE, 500, 500)
    assert (second.status, second.changed) == (ExtensionStatus.COMPLETED, 500)
    assert {coupon.expires_at_ms for coupon in await desk.all_coupons()} == {LATER}


@pytest.mark.parametrize("calls", range(1, 40, 3))
async def test_a_worker_killed_anywhere_changes_nothing_twice(room: Room, calls: int) -> None:
    desk = await room.open(shards=2)
    await issue(desk, 700, shard=0)
    await issue(desk, 100, shard=1)
    await desk.extend(LATER + HOUR)
    await desk.extend(LATER + 2 * HOUR, scope=Scope(user_ids=("user 7", "user 8")))
    await desk.undo(1)
    dying = ExtensionStore(DyingScripts(room.client, calls))
    with suppress(ProcessDied):
        await Tidying(room.catalogue, dying).write_through("spring", 2, in_time())
    await tidying(room).write_through("spring", 2, in_time())
    first, second = await progress(room, desk, 1), await progress(room, desk, 2)
    assert first.undo is not None
    assert (first.status, first.changed, first.undo.shortened) == (ExtensionStatus.UNDONE, 800, 796)
    assert (second.status, second.changed) == (ExtensionStatus.COMPLETED, 4)


async def test_a_sweep_whose_worker_dies_before_any_one_word_expires_every_coupon_once(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "COUPONS_PER_CALL", 50)
    desk = await room.open(shards=2)
    await issue(desk, 300, shard=0)
    await issue(desk, 200, shard=1)
    await room.clock.set(EXPIRY)
    for calls in range(1, MOST_CALLS):
        dying = DyingScripts(room.client, calls)
        catalogue = Catalogue(room.client, dying, SECRET)
        with suppress(ProcessDied):
            await Tidying(catalogue, ExtensionStore(dying)).tend("spring", in_time())
            break
    assert (await desk.counters()).expired == 500
    events = [event for shard in range(2) for event in await room.events(shard=shard)]
    told = [number for event in events if event.type == "coupon.expired" for number in event.coupons]
    assert sorted(told) == sorted([*range(300), *range(200)])


async def test_a_dry_run_whose_worker_was_killed_counts_nobody_twice(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "COUNTED_AT_ONCE", 100)
    monkeypatch.setattr(previews, "COUPONS_PER_CALL", 128)
    desk = await room.open(shards=2)
    await issue(desk, 700, shard=0)
    await issue(desk, 200, shard=1)
    terms = Terms(until_ms=LATER, reason="a trial")
    begun = await room.extensions.previews.begin(desk.campaign, terms, issued=900)
    assert (begun.number, begun.total, begun.is_made) == (1, 900, False)
    for calls in range(2, 9):
        with suppress(ProcessDied):
            dying = ExtensionStore(DyingScripts(room.client, calls))
            await Tidying(room.catalogue, dying).preview("spring", 1, in_time())
    await tidying(room).preview("spring", 1, in_time())
    made = await room.extensions.previews.read(desk.campaign, 1)
    assert made is not None
    assert (made.is_made, made.total, made.done, made.changed, made.liability) == (True, 900, 900, 900, 900 * 2500)
