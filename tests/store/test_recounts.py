"""A recount says what the records say while coupons change under its hands, and names the records that are wrong."""

import asyncio
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.benefit import RedEnvelope
from service.domain.codes import CouponAddress
from service.domain.money import Money
from service.store import keys, recounts
from service.store.client import connect
from service.store.coupons import SettleVerb
from tests.store.desk import EXPIRY, LATER, LAUNCH, Desk, Room
from tests.store.ledgers import drift
from tests.store.records import ROW, lose_records, read_records, records_key

COUPONS: Final = 8
HOUR: Final = 3_600_000
STATE: Final = keys.state_key("spring", 0)
VERBS: Final[tuple[SettleVerb, ...]] = ("commit", "release", "rollback")
RED_ENVELOPE: Final = {
    "benefit": RedEnvelope(1_000, 2 * COUPONS, 1, "CNY"),
    "max_coupons": 2 * COUPONS,
    "budget": Money(1_000, "CNY"),
}
LOOKS: Final = st.tuples(st.just("look"), st.integers(1, 5))
STEPS: Final = st.one_of(
    LOOKS,
    LOOKS,
    st.tuples(st.sampled_from(("issue", "redeem", "hold", *VERBS, "deactivate")), st.integers(0, COUPONS)),
    st.tuples(st.sampled_from(("extend", "wait", "tidy")), st.just(0)),
)


async def step(room: Room, desk: Desk, verb: str, number: int) -> None:
    """One thing that happens to coupon `number`, or a look at so many coupons."""
    match verb:
        case "look":
            await recounts.RecountStore(room.client, room.scripts, number).go_on(desk.campaign, 0)
        case "issue":
            await desk.issue(f"user {number}", f"again {number}")
        case "redeem":
            await desk.redeem(number, f"order {number}")
        case "hold":
            await desk.redeem(number, f"order {number}", hold_ms=HOUR)
        case "commit" | "release" | "rollback":
            await desk.settle(verb, number)
        case "deactivate":
            await desk.deactivate(number)
        case "extend":
            await desk.write_through((await desk.extend(room.clock.now_ms + 5 * HOUR)).number)
        case "wait":
            await room.clock.advance(2 * HOUR)
        case "tidy":
            await desk.tidy()


@settings(deadline=None, max_examples=60)
@given(terms=st.sampled_from(({}, RED_ENVELOPE)), steps=st.lists(STEPS, min_size=10, max_size=40))
def test_whatever_happens_between_two_looks_ledger_and_records_meet_at_the_end(
    store_url: str, terms: dict[str, Any], steps: list[tuple[str, int]]
) -> None:
    async def story() -> None:
        async with connect(store_url, timeout_ms=5_000) as client:
            await client.flushall()
            room = Room(client)
            await room.clock.set(EXPIRY - 3 * HOUR)
            desk = await room.open(**terms)
            await desk.issue_batch((f"user {number}", "first") for number in range(COUPONS))
            for verb, number in steps:
                await step(room, desk, verb, number)
                found = await room.recounts.latest(desk.campaign)
                assert found is None or found.adds_up, (verb, number, found)
            assert (await desk.recount()).adds_up

    asyncio.run(story())


async def a_lived_in_campaign(room: Room) -> Desk:
    """Coupon 0 is redeemed, 1 reserved, 2 deactivated, 3 rolled back, the others untouched."""
    desk = await room.open(budget=Money(10**9, "CNY"))
    await desk.issue_batch((f"user {number}", "first") for number in range(COUPONS))
    await desk.redeem(0, "order 0")
    await desk.redeem(1, "order 1", hold_ms=HOUR)
    await desk.deactivate(2)
    await desk.redeem(3, "order 3")
    await desk.settle("rollback", 3)
    return desk


@pytest.mark.anyio
async def test_a_campaign_in_order_adds_up_and_the_look_changes_nothing_else(room: Room) -> None:
    desk = await a_lived_in_campaign(room)
    _, before = await room.everything()
    found = await desk.recount()
    assert found == recounts.Recount(LAUNCH, 0, 0, 0, ())
    assert found.adds_up
    await room.client.hdel(STATE, "recounted")
    assert (await room.everything())[1] == before


@pytest.mark.anyio
async def test_a_campaign_whose_shards_have_not_all_been_counted_has_no_result(room: Room) -> None:
    desk = await room.open(shards=2)
    assert await room.recounts.latest(desk.campaign) is None
    await room.recounts.go_on(desk.campaign, 0)
    assert await room.recounts.latest(desk.campaign) is None
    await room.recounts.go_on(desk.campaign, 1)
    assert await room.recounts.latest(desk.campaign) is not None


def status_byte(packed: bytes, status: int) -> bytes:
    return bytes([status]) + packed[1:]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("sequence", "damage", "coupons"),
    [
        (4, lambda _: None, 1),
        (4, lambda packed: packed[:9], 1),
        (4, lambda _: b"", 1),
        (4, lambda packed: status_byte(packed, 9), 1),
        (4, lambda packed: status_byte(packed, 3), 2),
        (4, lambda packed: status_byte(packed, 2), 2),
        (0, lambda packed: status_byte(packed, 1), 2),
        (1, lambda packed: status_byte(packed, 4), 2),
    ],
    ids=["gone", "cut short", "empty", "nonsense", "redeemed by nobody", "held by nobody", "not redeemed", "not held"],
)
async def test_a_damaged_record_is_named(room: Room, sequence: int, damage: Any, coupons: int) -> None:
    desk = await a_lived_in_campaign(room)
    damaged = damage((await read_records(room.client, "spring"))[sequence])
    await lose_records(room.client, "spring", sequence)
    if damaged is not None:
        await room.client.hset(records_key("spring"), str(sequence), damaged)
    found = await desk.recount()
    assert (found.coupons, found.wrong, found.named) == (coupons, 1, (CouponAddress(0, sequence),))
    assert not found.adds_up


@pytest.mark.anyio
async def test_a_reservation_that_nothing_would_free_is_named(room: Room) -> None:
    desk = await a_lived_in_campaign(room)
    await room.client.zrem("tg:{spring:0}:holds", "1")
    found = await desk.recount()
    assert (found.coupons, found.money, found.named) == (0, 0, (CouponAddress(0, 1),))


@pytest.mark.anyio
async def test_a_ledger_that_has_drifted_is_seen_in_coupons_and_in_money(room: Room) -> None:
    desk = await a_lived_in_campaign(room)
    await drift(room.client, STATE, {"redeemed": 1, "outstanding": -1, "committed": -2500})
    found = await desk.recount()
    assert (found.coupons, found.money, found.wrong, found.named) == (2, 2500, 0, ())
    await drift(room.client, STATE, {"redeemed": -1, "outstanding": 1, "committed": 2500})
    assert (await desk.recount()).adds_up


@pytest.mark.anyio
async def test_each_record_is_counted_with_the_amount_that_it_drew(room: Room) -> None:
    desk = await room.open(**RED_ENVELOPE)
    await desk.issue_batch((f"user {number}", "first") for number in range(COUPONS))
    await desk.deactivate(2)
    assert (await desk.recount()).adds_up
    packed = await room.client.hget(records_key("spring"), "3")
    assert isinstance(packed, bytes)
    await room.client.hset(records_key("spring"), "3", packed[:-1] + bytes([packed[-1] ^ 1]))
    found = await desk.recount()
    assert (found.coupons, found.money, found.wrong) == (0, 1, 0)


@pytest.mark.anyio
async def test_money_comes_back_with_expiry_and_deactivation_and_stays_with_release_and_rollback(room: Room) -> None:
    desk = await a_lived_in_campaign(room)
    assert (await desk.counters()).budget_committed == 2500 * (COUPONS - 1)
    await desk.settle("release", 1)
    assert (await desk.counters()).budget_committed == 2500 * (COUPONS - 1)
    await room.clock.set(LATER)
    await desk.tidy()
    assert (await desk.counters()).budget_committed == 2500
    assert (await desk.recount()).adds_up


@pytest.mark.anyio
async def test_of_very_many_wrong_records_the_first_are_named(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=1000)
    await desk.issue_batch(("ann", f"key {number}") for number in range(200))
    await lose_records(room.client, "spring", *range(4 * ROW))
    found = await desk.recount()
    assert (found.wrong, len(found.named)) == (4 * ROW, recounts.MOST_NAMED)
