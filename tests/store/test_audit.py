"""The audit: day files and stream rebuild every counter, and whatever was tampered with is found and named."""

import asyncio
import gzip
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest

from service.domain.benefit import Percent, RedEnvelope
from service.domain.coupon import Coupon
from service.domain.extension import Scope
from service.domain.money import Money
from service.store import keys
from service.store.audit import Audit, Mismatch, ShardAudit
from service.store.day_files import DayFilesBroken
from service.store.events import EventStore
from service.store.export import Exporter
from service.store.scripts import Scripts
from tests.store.desk import EXPIRY, LATER, Desk, Room, to_the_end
from tests.store.ledgers import drift
from tests.store.records import ROW, lose_records, read_records, records_key

pytestmark = pytest.mark.anyio

MINUTE = 60_000


def exporter(room: Room, folder: Path) -> Exporter:
    """It keeps nothing that was exported. Events are dated by the server's own clock, so it goes by that too."""
    return Exporter(Scripts(room.client), EventStore(room.client), folder, retention_ms=-MINUTE)


async def export_only(room: Room, desk: Desk, folder: Path, shard: int = 0) -> None:
    """Export everything there is in the shard."""
    at_work = exporter(room, folder)
    with at_work.day_files(desk.campaign, shard).locked() as mine:
        assert mine
        while await at_work.export(desk.campaign, shard):
            pass


async def export(room: Room, desk: Desk, folder: Path) -> None:
    """Export and trim everything there is."""
    at_work = exporter(room, folder)
    for shard in range(desk.campaign.shards):
        await export_only(room, desk, folder, shard)
        while await at_work.trim(desk.campaign, shard, None):
            pass


async def audit(room: Room, desk: Desk, folder: Path) -> list[ShardAudit]:
    found = Audit(room.scripts, EventStore(room.client), exporter(room, folder)).shards(desk.campaign)
    return [shard async for shard in found]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("spring/*.ndjson*"))


async def live(desk: Desk, room: Room) -> None:
    """Every way in which a coupon of the first shard can change."""
    await desk.issue_batch([(f"user {number}", "first") for number in range(40)])
    await desk.redeem(0)
    await desk.redeem(1, hold_ms=MINUTE)
    await desk.redeem(2, hold_ms=MINUTE)
    await desk.redeem(3, hold_ms=MINUTE)
    await desk.redeem(4, hold_ms=MINUTE)
    await desk.redeem(5)
    await desk.redeem(6)
    await desk.settle("commit", 1)
    await desk.settle("release", 2)
    await desk.settle("rollback", 5)
    await desk.deactivate(7)
    await room.clock.advance(2 * MINUTE)
    await desk.tidy()
    await desk.redeem(4, order="another")


async def live_on_until_expiry(desk: Desk, room: Room) -> None:
    await desk.redeem(8, hold_ms=2 * MINUTE)
    await desk.redeem(9, hold_ms=2 * MINUTE)
    await desk.redeem(10, hold_ms=1)
    await room.clock.set(EXPIRY - MINUTE)
    await desk.redeem(11, hold_ms=2 * MINUTE)
    await desk.redeem(12, hold_ms=2 * MINUTE)
    await desk.redeem(13)
    await desk.redeem(14, hold_ms=2 * MINUTE)
    await desk.write_through((await desk.extend(LATER)).number)
    await desk.issue("latecomer")
    await room.clock.set(LATER + 1)
    await desk.settle("rollback", 13)
    await desk.settle("release", 11)
    await room.clock.advance(MINUTE)
    await desk.tidy()


async def test_the_stream_alone_rebuilds_every_counter_through_the_whole_life(room: Room, tmp_path: Path) -> None:
    desk = await room.open()
    await live(desk, room)
    (found,) = await audit(room, desk, tmp_path)
    assert found.is_sound, found
    await live_on_until_expiry(desk, room)
    (found,) = await audit(room, desk, tmp_path)
    assert found.is_sound, found
    assert found.told is not None
    assert found.told.expired > 30
    assert found.told == await desk.counters()


async def live_through_extensions(desk: Desk, room: Room) -> None:
    """Coupons come back, some are used, and the extension is undone; then a few are extended."""
    await desk.issue_batch([(f"user {number}", "first") for number in range(40)])
    await desk.redeem(0, hold_ms=MINUTE)
    await desk.redeem(1)
    await desk.deactivate(2)
    await room.clock.set(EXPIRY)
    await desk.tidy()
    back = await desk.extend(LATER, include_expired=True)
    await desk.redeem(3, merchant="book shop")
    await desk.redeem(4, hold_ms=MINUTE, merchant="book shop")
    await desk.deactivate(5)
    assert (await desk.write_through(back.number)).revived == 35
    await desk.redeem(6, hold_ms=MINUTE, merchant="book shop")
    await room.clock.advance(1)
    await desk.undo(back.number)
    await desk.settle("rollback", 3)
    await to_the_end(partial(room.extensions.write_undo_through, desk.campaign, 0, back.number))
    await room.clock.advance(2 * MINUTE)
    await desk.tidy()
    scoped = await desk.extend(LATER + MINUTE, include_expired=True, scope=Scope(merchant_id="book shop"))
    assert (await desk.write_through(scoped.number)).changed == 3
    await desk.redeem(6, order="another")


async def test_the_events_tell_what_extensions_and_their_undoing_do_to_coupons(room: Room, tmp_path: Path) -> None:
    desk = await room.open()
    await live_through_extensions(desk, room)
    (found,) = await audit(room, desk, tmp_path)
    assert found.is_sound, found
    assert found.told is not None
    assert (found.told.outstanding, found.told.redeemed, found.told.deactivated) == (2, 2, 2)
    types = {event.type for event in await room.events()}
    assert types >= {
        "campaign.extended",
        "campaign.extension_undone",
        "coupon.extended",
        "coupon.extension_undone",
        "coupon.revived",
    }
    await export(room, desk, tmp_path)
    await room.clock.set(LATER + MINUTE)
    await desk.tidy()
    (found,) = await audit(room, desk, tmp_path)
    assert found.is_sound, found
    assert found.told is not None
    assert found.told.outstanding == 0


async def test_day_files_and_the_rest_of_the_stream_rebuild_them_too(room: Room, tmp_path: Path) -> None:
    desk = await room.open(shards=2)
    await live(desk, room)
    await export(room, desk, tmp_path)
    assert await room.client.xlen(keys.events_key("spring", 0)) == 0
    await live_on_until_expiry(desk, room)
    assert all(shard.is_sound for shard in await audit(room, desk, tmp_path))
    await export(room, desk, tmp_path)
    assert await room.client.xlen(keys.events_key("spring", 0)) == 0
    first, second = await audit(room, desk, tmp_path)
    assert first.is_sound
    assert first.told == first.kept
    assert second.is_sound
    assert first.events > 20


async def test_drawn_amounts_are_rebuilt_from_the_events(room: Room, tmp_path: Path) -> None:
    pot = RedEnvelope(10_007, 60, 1, "CNY")
    desk = await room.open(benefit=pot, max_coupons=60, budget=Money(10_007, "CNY"), shards=2)
    await live(desk, room)
    await export(room, desk, tmp_path)
    await live_on_until_expiry(desk, room)
    audits = await audit(room, desk, tmp_path)
    assert all(shard.is_sound for shard in audits), audits
    assert 0 < sum(shard.told.budget_committed for shard in audits if shard.told) < 10_007


async def test_percentages_are_rebuilt_at_their_worst_case(room: Room, tmp_path: Path) -> None:
    desk = await room.open(benefit=Percent(20, 2500, "CNY"))
    await desk.issue_batch([(f"user {number}", "first") for number in range(4)])
    await desk.redeem(0, amount=1000)
    await desk.deactivate(1, 2)
    (found,) = await audit(room, desk, tmp_path)
    assert found.is_sound, found
    assert found.told is not None
    assert (found.told.budget_committed, found.told.deactivated) == (5000, 2)


async def test_an_event_with_too_few_amounts_is_noticed(room: Room, tmp_path: Path) -> None:
    desk = await room.open(benefit=RedEnvelope(1_000, 9, 1, "CNY"), max_coupons=9, budget=Money(1_000, "CNY"))
    data = msgpack.packb([0, 2, [7]])
    await room.client.xadd(keys.events_key("spring", 0), {"type": "coupon.issued", "data": data})
    (found,) = await audit(room, desk, tmp_path)
    assert found.broken.endswith("names 2 coupons and 1 amounts")


async def test_a_campaign_without_a_coupon_is_sound(room: Room, tmp_path: Path) -> None:
    desk = await room.open()
    (found,) = await audit(room, desk, tmp_path)
    assert (found.is_sound, found.events) == (True, 0)
    assert files(tmp_path) == []


async def test_records_that_say_another_status_are_named(room: Room, tmp_path: Path) -> None:
    desk = await room.open()
    await desk.issue_batch([(f"user {number}", "first") for number in range(200)])
    record = (await read_records(room.client, "spring"))[130]
    await lose_records(room.client, "spring", 5)
    await room.client.hset(records_key("spring"), mapping={"130": b"\x03" + record[1:], "200": record})
    (found,) = await audit(room, desk, tmp_path)
    assert not found.is_sound
    assert found.told == found.kept
    assert found.mismatches == (
        Mismatch(0, 5, "issued", None),
        Mismatch(0, 130, "issued", "redeemed"),
        Mismatch(0, 200, None, "issued"),
    )


async def test_a_record_with_another_amount_than_was_drawn_is_named(room: Room, tmp_path: Path) -> None:
    desk = await room.open(benefit=RedEnvelope(1_000, 4, 1, "CNY"), max_coupons=4, budget=Money(1_000, "CNY"))
    await desk.issue_batch([(f"user {number}", "first") for number in range(4)])
    (found,) = await audit(room, desk, tmp_path)
    assert found.is_sound, found
    coupon = await desk.coupon(2)
    assert isinstance(coupon, Coupon)
    assert coupon.drawn_amount is not None
    record = await room.client.hget(records_key("spring"), "2")
    assert isinstance(record, bytes)
    altered = record.replace(coupon.drawn_amount.to_bytes(6, "big"), (coupon.drawn_amount + 1).to_bytes(6, "big"))
    await room.client.hset(records_key("spring"), "2", altered)
    (found,) = await audit(room, desk, tmp_path)
    assert not found.is_sound
    assert found.mismatches == (Mismatch(0, 2, "issued", "issued", coupon.drawn_amount, coupon.drawn_amount + 1),)


async def test_a_row_of_records_that_is_gone_is_noticed(room: Room, tmp_path: Path) -> None:
    desk = await room.open()
    await desk.issue_batch([(f"user {number}", "first") for number in range(200)])
    await lose_records(room.client, "spring", *range(ROW, 2 * ROW))
    (found,) = await audit(room, desk, tmp_path)
    assert (found.differing, len(found.mismatches)) == (ROW, ROW)


@pytest.mark.parametrize("counter", ["issued", "outstanding", "redeemed", "committed"])
async def test_a_counter_that_drifted_is_noticed(room: Room, tmp_path: Path, counter: str) -> None:
    desk = await room.open()
    await desk.issue()
    await drift(room.client, keys.state_key("spring", 0), {counter: 1})
    (found,) = await audit(room, desk, tmp_path)
    assert not found.is_sound
    assert found.differing == 0
    assert found.told != found.kept


async def test_an_event_that_was_lost_is_noticed(room: Room, tmp_path: Path) -> None:
    desk = await room.open()
    for number in range(3):
        await desk.issue(f"user {number}")
    events: Any = await room.client.xrange(keys.events_key("spring", 0))
    await room.client.xdel(keys.events_key("spring", 0), events[1][0])
    (found,) = await audit(room, desk, tmp_path)
    assert found.broken.endswith("issues coupon 2, but 1 is the next")


async def test_day_files_that_are_gone_or_damaged_are_noticed(room: Room, tmp_path: Path) -> None:
    desk = await room.open()
    await live(desk, room)
    await export(room, desk, tmp_path)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    lines = gzip.decompress(whole).splitlines(keepends=True)
    rewritten = [gzip.compress(b"".join(kept)) for kept in (lines[1:], lines[:-1], lines[::-1], [b"{}\n", *lines])]
    for damaged in (whole[: len(whole) // 2], b"\0" + whole, lines[0], *rewritten):
        file.write_bytes(damaged)
        (found,) = await audit(room, desk, tmp_path)
        assert found.broken, damaged
    file.unlink()
    (found,) = await audit(room, desk, tmp_path)
    assert found.broken.startswith("the day files of shard 0 end with 0-0, not with ")


async def test_the_audit_writes_nothing_and_may_run_while_coupons_are_issued(room: Room, tmp_path: Path) -> None:
    desk = await room.open(max_coupons=100_000)
    done = asyncio.Event()

    async def keep_issuing() -> None:
        for batch in itertools.count():
            await desk.issue_batch([(f"user {batch} {number}", "first") for number in range(256)])
            await desk.redeem(batch)
            if done.is_set():
                return

    issuing = asyncio.create_task(keep_issuing())
    for _ in range(5):
        (found,) = await audit(room, desk, tmp_path)
        assert found.is_sound, found
    done.set()
    await issuing
    before = await room.everything()
    await audit(room, desk, tmp_path)
    assert await room.everything() == before


async def test_files_of_another_store_are_neither_overwritten_nor_gone_on_with(room: Room, tmp_path: Path) -> None:
    desk = await room.open()
    await desk.issue()
    await export(room, desk, tmp_path)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    await room.client.delete(keys.export_key("spring", 0))
    await desk.issue("bob")
    with pytest.raises(DayFilesBroken, match="move the campaign's folder away"):
        await export(room, desk, tmp_path)
    assert file.read_bytes() == whole


async def export_two_pages(room: Room, desk: Desk, folder: Path) -> tuple[Any, Path]:
    """Export five events and five more; how far the store said that it was in between, and the file."""
    before: Any = {}
    for page in range(2):
        before = await room.client.hgetall(keys.export_key("spring", 0))
        for number in range(5):
            await desk.issue(f"user {page} {number}")
        await export_only(room, desk, folder)
    (file,) = files(folder)
    return before, file


async def test_a_page_that_a_crash_has_torn_anywhere_is_written_again(room: Room, tmp_path: Path) -> None:
    desk = await room.open()
    before, file = await export_two_pages(room, desk, tmp_path)
    whole = file.read_bytes()
    for size in range(int(before[b"bytes"]), len(whole) + 1):
        file.write_bytes(whole[:size])
        await room.client.hset(keys.export_key("spring", 0), mapping=before)
        await export_only(room, desk, tmp_path)
        assert file.read_bytes() == whole


async def test_events_that_the_store_has_lost_are_not_cut_off(room: Room, tmp_path: Path) -> None:
    desk = await room.open()
    before, file = await export_two_pages(room, desk, tmp_path)
    whole = file.read_bytes()
    lost = (await room.events())[-3:]
    await room.client.hset(keys.export_key("spring", 0), mapping=before)
    await room.client.xdel(keys.events_key("spring", 0), *(str(event.id) for event in lost))
    await desk.issue("late")
    with pytest.raises(DayFilesBroken, match=f"has event {lost[0].id} behind byte"):
        await export_only(room, desk, tmp_path)
    assert file.read_bytes() == whole


async def test_a_file_that_is_not_where_it_was_left_stops_the_export_and_the_trimming(
    room: Room, tmp_path: Path
) -> None:
    desk = await room.open()
    await desk.issue()
    await export(room, desk, tmp_path)
    await desk.issue("bob")
    with pytest.raises(DayFilesBroken, match="has 0 bytes where"):
        await export(room, desk, tmp_path / "elsewhere")
    assert await room.client.xlen(keys.events_key("spring", 0)) == 1
    await export(room, desk, tmp_path)
    (found,) = await audit(room, desk, tmp_path)
    assert (found.is_sound, found.events) == (True, 2)
