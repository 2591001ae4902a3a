"""The scheduler: what is due is enqueued, once; what is not due costs a look."""

from pathlib import Path

import pytest

from service.domain.campaign import CampaignStatus, IssueWindow
from service.domain.extension import Terms
from service.store import export, keys, previews
from service.store.catalogue import Catalogue
from service.store.chores import ChoreStore
from service.store.events import EventStore
from service.store.export import Exporter
from service.store.jobs import JobQueue
from tests.store.desk import EXPIRY, LATER, LAUNCH, SECRET, DyingScripts, ProcessDied, Room, a_campaign
from tests.store.records import ROW, lose_records
from worker.schedule import SHARDS_PER_TICK, Schedule
from worker.tidying import Tidying

pytestmark = pytest.mark.anyio

HOUR = 3_600_000
WINDOW = IssueWindow(LAUNCH + HOUR, LAUNCH + 2 * HOUR)


def schedule(room: Room, jobs: JobQueue) -> Schedule:
    exporter = Exporter(room.scripts, EventStore(room.client), Path(), retention_ms=0)
    return Schedule(room.catalogue, ChoreStore(room.scripts), exporter, jobs)


@pytest.fixture(autouse=True)
def _no_export_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every campaign with a coupon has events to export; most tests are about other chores."""
    monkeypatch.setattr(export, "EXPORT_EVERY_MS", 10**15)


def waiting(jobs: JobQueue) -> list[str]:
    return jobs.rq.job_ids


def take_all(jobs: JobQueue) -> list[str]:
    taken = waiting(jobs)
    for job in jobs.rq.jobs:
        job.delete()
    return taken


async def test_a_campaign_with_nothing_due_is_left_alone(jobs: JobQueue, room: Room) -> None:
    desk = await room.open(shards=2)
    await desk.issue("ann")
    await desk.redeem(hold_ms=HOUR, shard=desk.known.place("ann")[0])
    before = await room.everything()
    await schedule(room, jobs).enqueue_due()
    assert await room.everything() == before


async def test_an_extension_that_is_not_written_through_is_enqueued(jobs: JobQueue, room: Room) -> None:
    desk = await room.open(shards=2)
    await desk.issue()
    await desk.extend()
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == ["extension-spring-1"]


async def test_an_extension_whose_maker_died_between_shards_is_enqueued(jobs: JobQueue, room: Room) -> None:
    desk = await room.open(shards=2)
    extensions = type(room.extensions)(DyingScripts(room.client, calls=1))
    with pytest.raises(ProcessDied):
        await extensions.extend(desk.campaign, Terms(until_ms=LATER, reason="as asked"))
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == ["extension-spring-1"]


async def test_a_campaign_is_tended_when_its_window_opens_and_when_it_closes(jobs: JobQueue, room: Room) -> None:
    await room.open(status=CampaignStatus.SCHEDULED, issue_window=WINDOW)
    enqueued = []
    for at in (LAUNCH, WINDOW.starts_at_ms, WINDOW.ends_at_ms - 1, WINDOW.ends_at_ms, WINDOW.ends_at_ms + HOUR):
        await room.clock.set(at)
        await schedule(room, jobs).enqueue_due()
        enqueued.append(take_all(jobs))
        await Tidying(room.catalogue, room.extensions).tend("spring", until_s=0)
    assert enqueued == [[], ["tend-spring"], [], ["tend-spring"], []]


@pytest.mark.parametrize("status", [CampaignStatus.RUNNING, CampaignStatus.STOPPED, CampaignStatus.ENDED])
async def test_expired_coupons_are_tidied_once_whatever_the_campaign_does(
    jobs: JobQueue, room: Room, status: CampaignStatus
) -> None:
    desk = await room.open()
    await desk.issue()
    await desk.change(status=status)
    await room.clock.set(EXPIRY)
    await schedule(room, jobs).enqueue_due()
    assert take_all(jobs) == ["tend-spring"]
    await Tidying(room.catalogue, room.extensions).tend("spring", until_s=0)
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == []


async def test_a_record_that_is_gone_keeps_nobody_behind_it_from_expiring(jobs: JobQueue, room: Room) -> None:
    desk = await room.open()
    await desk.issue_batch([(f"user {number}", "first") for number in range(ROW + 1)])
    await lose_records(room.client, "spring", *range(ROW))
    await room.clock.set(EXPIRY)
    await schedule(room, jobs).enqueue_due()
    assert take_all(jobs) == ["tend-spring"]
    await Tidying(room.catalogue, room.extensions).tend("spring", until_s=0)
    assert (await desk.counters()).expired == 1
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == []


async def test_a_record_that_is_gone_keeps_no_other_reservation_from_lapsing(jobs: JobQueue, room: Room) -> None:
    desk = await room.open()
    await desk.issue_batch([(f"user {number}", "first") for number in range(ROW + 1)])
    await desk.redeem(ROW, hold_ms=HOUR)
    await desk.redeem(0, hold_ms=2 * HOUR)
    await lose_records(room.client, "spring", *range(ROW))
    await room.clock.advance(2 * HOUR)
    await schedule(room, jobs).enqueue_due()
    assert take_all(jobs) == ["tend-spring"]
    await Tidying(room.catalogue, room.extensions).tend("spring", until_s=0)
    counters = await desk.counters()
    assert (counters.outstanding, counters.reserved) == (ROW, 1)
    assert [list(event.coupons) for event in await room.events() if event.type == "coupon.lapsed"] == [[ROW]]
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == []


async def test_coupons_kept_alive_by_an_extension_are_tidied_when_that_ends(jobs: JobQueue, room: Room) -> None:
    desk = await room.open()
    await desk.issue()
    await desk.extend(LATER)
    await desk.write_through(1)
    enqueued = []
    for at in (EXPIRY, EXPIRY, LATER):
        await room.clock.set(at)
        await schedule(room, jobs).enqueue_due()
        enqueued.append(take_all(jobs))
        await Tidying(room.catalogue, room.extensions).tend("spring", until_s=0)
    assert enqueued == [["tend-spring"], [], ["tend-spring"]]
    assert (await desk.counters()).expired == 1


async def test_a_reservation_is_tidied_when_its_time_is_over(jobs: JobQueue, room: Room) -> None:
    desk = await room.open()
    await desk.issue()
    await desk.redeem(hold_ms=HOUR)
    await room.clock.advance(HOUR)
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == ["tend-spring"]


async def test_a_shard_that_lags_behind_the_definition_is_tended(jobs: JobQueue, room: Room) -> None:
    with pytest.raises(ProcessDied):
        await Catalogue(room.client, DyingScripts(room.client, calls=2), SECRET).register(a_campaign(shards=2))
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == ["tend-spring"]


async def test_what_is_due_waits_once_however_often_and_by_however_many_it_is_seen(jobs: JobQueue, room: Room) -> None:
    desk = await room.open(status=CampaignStatus.SCHEDULED, issue_window=WINDOW)
    await room.clock.set(WINDOW.starts_at_ms)
    await desk.issue()
    await desk.extend()
    one, other = schedule(room, jobs), schedule(room, jobs)
    for _ in range(3):
        await one.enqueue_due()
        await other.enqueue_due()
    assert sorted(waiting(jobs)) == ["extension-spring-1", "tend-spring"]


async def test_many_campaigns_are_looked_at_a_bounded_number_a_tick(jobs: JobQueue, room: Room) -> None:
    campaigns = SHARDS_PER_TICK // 16 + 4
    for number in range(campaigns):
        await room.open(id=f"c-{number}", code_prefix=f"C{number}", shards=16, issue_window=IssueWindow(0, 1))
    rounds = schedule(room, jobs)
    seen = []
    for _ in range(3):
        await rounds.enqueue_due()
        seen.append(len(waiting(jobs)))
    assert seen == [campaigns - 4, campaigns, campaigns]


async def test_an_undoing_that_is_not_written_through_is_enqueued(jobs: JobQueue, room: Room) -> None:
    desk = await room.open()
    await desk.issue()
    await desk.extend()
    await desk.write_through(1)
    await desk.undo(1)
    await schedule(room, jobs).enqueue_due()
    assert "undo-spring-1" in take_all(jobs)
    await Tidying(room.catalogue, room.extensions).write_undo_through("spring", 1, until_s=0)
    await Tidying(room.catalogue, room.extensions).tend("spring", until_s=0)
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == []


async def test_lost_time_is_due_once_and_only_where_the_clock_stops(jobs: JobQueue, room: Room) -> None:
    await room.open(stop_the_clock=True)
    await room.open(id="autumn", code_prefix="AUTUMN")
    await room.extensions.outages.record(LAUNCH - HOUR, LAUNCH + 1, "tills down", "ada")
    await schedule(room, jobs).enqueue_due()
    assert take_all(jobs) == ["tend-spring"]
    await Tidying(room.catalogue, room.extensions).tend("spring", until_s=0)
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == []


async def test_a_dry_run_that_is_not_counted_is_enqueued(
    jobs: JobQueue, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "COUNTED_AT_ONCE", 0)
    desk = await room.open()
    await desk.issue()
    await room.extensions.previews.begin(desk.campaign, Terms(until_ms=LATER, reason="a trial"), issued=1)
    await schedule(room, jobs).enqueue_due()
    assert take_all(jobs) == ["preview-spring-1"]
    await Tidying(room.catalogue, room.extensions).preview("spring", 1, until_s=0)
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == []


async def test_events_are_exported_once_they_have_gathered_for_a_while(
    jobs: JobQueue, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "EXPORT_EVERY_MS", 10_000)
    desk = await room.open()
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == []
    await desk.issue()
    await schedule(room, jobs).enqueue_due()
    assert take_all(jobs) == ["export-spring"]
    (event,) = await room.events()
    state_key = keys.state_key("spring", 0)
    assert await room.scripts.run("note_export", [state_key], "0-0", str(event.id), "2026-02-06", 100) == 1
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == []
    await desk.issue("bob")
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == []
    await room.clock.advance(10_000)
    await schedule(room, jobs).enqueue_due()
    assert waiting(jobs) == ["export-spring"]
