"""A merchant who says that he is busy is left in peace for as long as he said, and nobody pays for it."""

import pytest

from service.domain.money import Rate
from service.domain.outcomes import AlreadyRedeemed, MerchantBusy, RateLimited, Redeemed, RedemptionReplayed
from service.store import merchants
from service.store.coupons import RedeemRequest
from service.store.merchants import MerchantStore
from tests.store.desk import LAUNCH, Room

pytestmark = pytest.mark.anyio

MINUTE = 60_000


async def test_a_busy_merchant_redeems_nothing_until_his_time_and_nothing_is_charged(room: Room) -> None:
    desk = await room.open(merchant_rate=Rate(1, 1))
    await desk.issue("ann")
    await desk.issue("bob")
    assert await MerchantStore(room.scripts).say_busy(desk.campaign, "tea house", LAUNCH + MINUTE, "out of milk")
    before = await room.everything()
    assert await desk.redeem(0) == await desk.redeem(0, hold_ms=1) == MerchantBusy(MINUTE)
    assert await room.everything() == before
    assert isinstance(await desk.redeem(1, merchant="cinema"), Redeemed)
    await room.clock.advance(MINUTE - 1)
    assert await desk.redeem(0) == MerchantBusy(1)
    await room.clock.advance(1)
    assert isinstance(await desk.redeem(0), Redeemed)


async def test_what_a_busy_merchant_has_redeemed_or_holds_stays_his(room: Room) -> None:
    desk = await room.open()
    for user in ("ann", "bob"):
        await desk.issue(user)
    await desk.redeem(0)
    await desk.redeem(1, hold_ms=MINUTE)
    await MerchantStore(room.scripts).say_busy(desk.campaign, "tea house", LAUNCH + MINUTE, "out of milk")
    assert isinstance(await desk.redeem(0), RedemptionReplayed)
    assert isinstance(await desk.redeem(0, order="another"), AlreadyRedeemed)
    assert isinstance(await desk.settle("commit", 1), Redeemed)


async def test_in_one_batch_only_the_busy_merchant_is_refused(room: Room) -> None:
    desk = await room.open(merchant_rate=Rate(1, 1))
    await desk.issue_batch([(f"user {number}", "first") for number in range(4)])
    await MerchantStore(room.scripts).say_busy(desk.campaign, "tea house", LAUNCH + MINUTE, "out of milk")
    wanted = [("tea house", 0), ("cinema", 1), ("cinema", 2), ("tea house", 3)]
    outcomes = await desk.redeem_batch([RedeemRequest(number, who, "order", None, 0) for who, number in wanted])
    assert [type(outcome) for outcome in outcomes] == [MerchantBusy, Redeemed, RateLimited, MerchantBusy]


async def test_a_later_word_replaces_the_earlier_one_and_can_be_taken_back(room: Room) -> None:
    desk, words = await room.open(shards=4), MerchantStore(room.scripts)
    users = {desk.known.place(f"user {number}")[0]: f"user {number}" for number in range(40)}
    for user in users.values():
        await desk.issue(user)
    await words.say_busy(desk.campaign, "tea house", LAUNCH + MINUTE, "out of milk")
    await words.say_busy(desk.campaign, "tea house", LAUNCH + 1, "found some")
    found = await words.busy(desk.campaign, "tea house")
    assert found is not None
    assert (found.until_ms, found.reason) == (LAUNCH + 1, "found some")
    assert [await desk.redeem(0, shard=shard) for shard in range(4)] == [MerchantBusy(1)] * 4
    await words.take_back(desk.campaign, "tea house")
    assert await words.busy(desk.campaign, "tea house") is None
    assert all([isinstance(await desk.redeem(0, shard=shard), Redeemed) for shard in range(4)])


async def test_only_so_many_merchants_can_be_busy_until_one_of_them_is_not(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merchants, "MAX_BUSY_MERCHANTS", 2)
    desk, words = await room.open(), MerchantStore(room.scripts)
    assert await words.say_busy(desk.campaign, "tea house", LAUNCH + MINUTE, "why")
    assert await words.say_busy(desk.campaign, "cinema", LAUNCH + 1, "why")
    before = await room.everything()
    assert not await words.say_busy(desk.campaign, "bakery", LAUNCH + MINUTE, "why")
    assert await room.everything() == before
    assert await words.say_busy(desk.campaign, "tea house", LAUNCH + MINUTE, "still")
    await room.clock.advance(1)
    assert await words.say_busy(desk.campaign, "bakery", LAUNCH + MINUTE, "why")
    assert await room.client.zrange("tg:{spring:0}:busy", 0, -1) == [b"bakery", b"tea house"]
    assert sorted(await room.client.hkeys("tg:{spring:0}:reasons")) == [b"bakery", b"tea house"]
