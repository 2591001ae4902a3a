"""How the records lie in the store: in one cluster slot a decision, packed, and divided over shards without loss."""

import re
from collections import Counter
from dataclasses import astuple, replace
from random import Random
from typing import Any

import pytest
from redis.exceptions import ResponseError

from service.domain.benefit import RedEnvelope
from service.domain.coupon import Coupon, CouponStatus
from service.domain.extension import Scope
from service.domain.money import Money
from service.domain.outcomes import (
    BudgetExhausted,
    Issued,
    IssueOutcome,
    PerUserLimit,
    Redeemed,
    RedemptionReplayed,
    Replayed,
    SoldOut,
)
from service.domain.validity import DAY_MS, Duration, FixedValidity, FixedWaves
from service.store import extensions, keys
from service.store.catalogue import KnownCampaign
from service.store.coupons import RedeemRequest
from service.store.scripts import StoreRefused
from tests.store.desk import CLOCK_KEY, EXPIRY, LATER, LAUNCH, SECRET, UNLIMITED, Desk, Room, a_campaign
from tests.store.ledgers import COUNTERS, FIELD, drift, read_ledger
from tests.store.records import NAMES, ROW, records_key, rows_key

pytestmark = pytest.mark.anyio

STATE = keys.state_key("spring", 0)
SMALL = 32
"""So many coupons share a hash where each has a record of its own, and did in earlier layouts."""
LARGE = 2_097_152
"""So many share a hash otherwise."""
RED_ENVELOPE = {"benefit": RedEnvelope(1_000, 100, 1, "CNY"), "max_coupons": 100, "budget": Money(1_000, "CNY")}
WAVES = FixedWaves(Duration(days=1), (LAUNCH, LAUNCH + DAY_MS))
IN_WAVES = {"validity": FixedValidity("Asia/Shanghai", LAUNCH, EXPIRY, waves=WAVES)}
VERBS = "hget", "hmget", "hset"
MANY = 4_096
"""As many as the settings let into a batch."""
PLACES = [(3, 152), (0, 287), (3, 223)]
"""Whoever changes these moves users away from their claims: their caps and their idempotency would begin anew."""


async def calls(room: Room, command: str) -> int:
    """How often the store has run a command."""
    statistics = await room.client.info("commandstats")
    return int(statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def live_a_little(desk: Desk) -> None:
    """Every verb once, so that every kind of key comes to be."""
    for number in range(30):
        await desk.issue(f"user {number}")
    for shard in range(desk.campaign.shards):
        await desk.redeem(0, shard=shard)
        await desk.redeem(1, hold_ms=60_000, shard=shard)
    await desk.write_through((await desk.extend()).number)
    await desk.tidy()


async def test_every_key_of_a_decision_carries_the_shards_hash_tag(room: Room) -> None:
    desk = await room.open(shards=4)
    await live_a_little(desk)
    names = {name.decode() for name in await room.key_names()} - {CLOCK_KEY}
    tags = {re.fullmatch(r"tg:\{([^{}]+)\}:[a-z]+(:\d+)?", name)[1] for name in names}  # type: ignore[index]
    assert tags == {"catalogue", *(f"spring:{shard}" for shard in range(4))}


async def test_a_user_stays_on_one_shard_and_in_one_bucket(room: Room) -> None:
    desk = await room.open(shards=4, max_coupons=1000)
    places = {user: desk.known.place(user) for user in (f"user {number}" for number in range(1000))}
    await desk.change(max_coupons=100_000)
    again = await Room(room.client).catalogue.find("spring")
    assert again is not None
    assert {user: again.place(user) for user in places} == places
    per_shard = [sum(shard == wanted for shard, _ in places.values()) for wanted in range(4)]
    assert min(per_shard) > 180


async def test_a_users_place_is_the_same_in_every_version_of_tidegate() -> None:
    known = KnownCampaign(replace(a_campaign(shards=4), user_buckets=391), SECRET)
    assert [known.place(user) for user in ("ann", "bob", "4711")] == PLACES


@pytest.mark.parametrize("shards", [1, 4])
async def test_stock_and_budget_are_exact_however_many_shards_there_are(room: Room, shards: int) -> None:
    desk = await room.open(shards=shards, max_coupons=103, budget=Money(101 * 2500 + 7, "CNY"))
    outcomes = [await desk.issue(f"user {number}") for number in range(400)]
    assert sum(isinstance(outcome, Issued) for outcome in outcomes) == 101
    assert {type(outcome) for outcome in outcomes} <= {Issued, SoldOut, BudgetExhausted}
    counters = await desk.counters()
    assert (counters.issued, counters.budget_committed) == (101, 101 * 2500)
    assert len(await desk.all_coupons()) == 101
    ledger = await room.catalogue.ledger(desk.campaign)
    assert (ledger.remaining, ledger.budget_remaining, ledger.amounts.liability) == (2, 7, 101 * 2500)


@pytest.mark.parametrize("shards", [1, 4])
async def test_the_whole_life_adds_up_over_all_shards(room: Room, shards: int) -> None:
    desk = await room.open(shards=shards)
    await live_a_little(desk)
    statuses = [coupon.status for coupon in await desk.all_coupons()]
    counters = await desk.counters()
    assert statuses.count(CouponStatus.ISSUED) == counters.outstanding == 30 - 2 * shards
    assert statuses.count(CouponStatus.RESERVED) == counters.reserved == shards
    assert statuses.count(CouponStatus.REDEEMED) == counters.redeemed == shards


async def test_small_hashes_stay_packed_with_the_longest_names(room: Room) -> None:
    desk = await room.open()
    await desk.as_of_layout(2)
    users = [f"user-{number:027d}" for number in range(32)]
    assert max(len(user) for user in users) == 32
    wishes = [(user, str(number)) for number in range(21) for user in users]
    for at in range(0, len(wishes), 256):
        await desk.issue_batch(wishes[at : at + 256])
    for sequence in range(128):
        await desk.redeem(sequence, merchant="m" * 32, order="o" * 32)
    names = [name for name in await room.key_names() if b":coupons:" in name]
    assert len(names) == -(-len(wishes) // SMALL)
    assert {await room.client.object("encoding", name) for name in names} == {b"listpack"}
    assert [coupon.user_id for coupon in await room.coupons.user_coupons(desk.known, users[7])] == [users[7]] * 21


@pytest.mark.parametrize("terms", [RED_ENVELOPE, IN_WAVES], ids=["amounts are drawn", "starts in waves"])
async def test_where_every_record_is_a_coupons_own_they_are_packed(room: Room, terms: dict[str, Any]) -> None:
    desk = await room.open(**terms)
    await desk.issue_batch([(f"user {number}", "first") for number in range(SMALL + 1)])
    names = {name for name in await room.key_names() if b":coupons:" in name or b":rows:" in name}
    assert names == {b"tg:{spring:0}:coupons:0", b"tg:{spring:0}:coupons:1"}
    assert await room.client.object("encoding", records_key("spring")) == b"listpack"


async def test_a_bucket_of_many_users_is_a_table_and_forgets_nobody(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=1)
    wishes = [(f"user {number}", "first") for number in range(200)]
    first_answers = await desk.issue_batch(wishes)
    (bucket,) = [name for name in await room.key_names() if b":users:" in name]
    assert await room.client.object("encoding", bucket) == b"hashtable"
    for user, first_answer in zip((user for user, _ in wishes), first_answers, strict=True):
        again, another = await desk.issue_batch([(user, "first"), (user, "another")])
        assert isinstance(first_answer, Issued)
        assert isinstance(again, Replayed)
        assert again.sequence == first_answer.sequence
        assert isinstance(another, PerUserLimit)


async def test_every_grant_stands_in_the_events_once(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=1)
    await desk.issue_batch([("ann", "1"), ("ann", "2"), ("ann", "1"), ("bob", "1")])
    await desk.issue("ann", "2")
    assert await room.client.xlen(keys.events_key("spring", 0)) == 1


async def own(room: Room) -> list[int]:
    """The coupons that have a record of their own."""
    return sorted(map(int, await room.client.hkeys(records_key("spring"))))


async def test_whoever_came_together_shares_a_record_until_one_is_used(room: Room) -> None:
    desk = await room.open()
    for batch in ([0], [1, 2], range(3, 21), range(21, 40)):
        await desk.issue_batch([(f"user {number}", "first") for number in batch])
        await room.clock.advance(1)
    assert (await own(room), await room.client.hlen(rows_key("spring"))) == ([], 4)
    coupons = await desk.all_coupons()
    assert [coupon.user_id for coupon in coupons] == [f"user {number}" for number in range(40)]
    assert [*Counter(coupon.issued_at_ms for coupon in coupons).values()] == [1, 2, 18, 19]
    await desk.redeem(5, hold_ms=60_000)
    await desk.deactivate(31)
    assert await own(room) == [5, 31]
    await desk.settle("release", 5)
    changed = {5: coupons[5], 31: replace(coupons[31], status=CouponStatus.DEACTIVATED)}
    assert await desk.all_coupons() == [changed.get(number, coupon) for number, coupon in enumerate(coupons)]


@pytest.mark.parametrize("apart", [1, 7, ROW + 1])
async def test_what_a_batch_wants_of_many_rows_is_read_by_one_command_and_written_by_one(
    room: Room, apart: int
) -> None:
    desk = await room.open(merchant_rate=UNLIMITED)
    wishes = [(f"user {number}", "first") for number in range(21 * apart)]
    await desk.issue_batch(wishes)
    costs = []
    for sequences in ([0], range(apart, 21 * apart, apart)):
        asked = [RedeemRequest(sequence, f"merchant {sequence}", "1", None, 0) for sequence in sequences]
        before = [await calls(room, verb) for verb in VERBS]
        assert {type(outcome) for outcome in await desk.issue_batch([wishes[at] for at in sequences])} == {Replayed}
        between = [await calls(room, verb) for verb in VERBS]
        assert {type(outcome) for outcome in await desk.redeem_batch(asked)} == {Redeemed}
        after = [await calls(room, verb) for verb in VERBS]
        costs.append([now - was for was, now in zip(before + between, between + after, strict=True)])
    assert costs[0] == costs[1]


@pytest.mark.parametrize("buckets", [1, 3])
async def test_the_users_of_a_bucket_are_read_by_one_command_and_written_by_one(room: Room, buckets: int) -> None:
    desk = await room.open(user_buckets=buckets)
    await desk.issue("ann")
    verbs = "hmget", "hset"
    costs = []
    for users in (1, 40):
        before = [await calls(room, verb) for verb in verbs]
        await desk.issue_batch([(f"user {users} {number}", "first") for number in range(users)])
        costs.append([await calls(room, verb) - was for verb, was in zip(verbs, before, strict=True)])
    assert costs[1] == [costs[0][0] + buckets - 1, costs[0][1] + buckets - 1]


async def test_more_users_than_one_command_takes_get_each_his_own_coupon(room: Room) -> None:
    desk = await room.open()
    users = [f"user {number}" for number in range(MANY)]
    for key, kind in (("first", Issued), ("first", Replayed), ("second", Issued), ("second", Replayed)):
        outcomes = await desk.issue_batch([(user, key) for user in users])
        first = 0 if key == "first" else MANY
        assert [kind] * MANY == [type(outcome) for outcome in outcomes]
        assert [getattr(outcome, "sequence", None) for outcome in outcomes] == [*range(first, first + MANY)]


async def test_repeats_in_any_order_get_their_own_answers(room: Room) -> None:
    desk = await room.open()
    first: dict[str, IssueOutcome] = {}
    for batch in ([0], [1, 2], range(3, 21), [21], range(22, 40)):
        users = [f"user {number}" for number in batch]
        first |= zip(users, await desk.issue_batch([(user, "first") for user in users]), strict=True)
        await room.clock.advance(1)
    await desk.redeem(5)
    users = [*first]
    for order in (users, users[::-1], Random(1).sample(users, 40), Random(2).choices(users, k=80)):
        again = await desk.issue_batch([(user, "first") for user in order])
        assert [Issued(*astuple(outcome)) for outcome in again if isinstance(outcome, Replayed)] == [
            first[user] for user in order
        ]


async def test_coupons_on_both_sides_of_a_hashs_end_are_told_apart(room: Room) -> None:
    desk = await room.open(max_coupons=LARGE + 100, merchant_rate=UNLIMITED)
    await drift(room.client, STATE, {"issued": LARGE - ROW, "outstanding": LARGE - ROW})
    wishes = [(f"user {number}", "first") for number in range(2 * ROW)]
    first_answers = await desk.issue_batch(wishes)
    sequences = [*range(LARGE - ROW, LARGE + ROW)]
    assert [outcome.sequence for outcome in first_answers if isinstance(outcome, Issued)] == sequences
    again = await desk.issue_batch(wishes[::-1])
    assert [Issued(*astuple(outcome)) for outcome in again if isinstance(outcome, Replayed)] == first_answers[::-1]
    asked = [RedeemRequest(sequence, f"merchant {sequence}", "1", None, 0) for sequence in sequences[::2]]
    assert {type(outcome) for outcome in await desk.redeem_batch(asked)} == {Redeemed}
    assert {type(outcome) for outcome in await desk.redeem_batch(asked)} == {RedemptionReplayed}
    await desk.deactivate(LARGE - 1)
    await desk.deactivate(LARGE + 1)
    page = await room.coupons.page(desk.known, 0, LARGE - ROW)
    used, off = CouponStatus.REDEEMED, CouponStatus.DEACTIVATED
    for sequence, (coupon, redemption) in zip(sequences, page.coupons, strict=True):
        assert coupon.user_id == f"user {sequence - sequences[0]}"
        assert coupon.status is (
            used if sequence % 2 == 0 else off if abs(sequence - LARGE) == 1 else CouponStatus.ISSUED
        )
        assert (redemption is None) is (coupon.status is not used)
        assert await desk.coupon(sequence) == coupon
    kept = [
        await room.client.hlen(f"tg:{{spring:0}}:{name}:{number}") for name in ("rows", "coupons") for number in (0, 1)
    ]
    assert kept == [2, 2, ROW // 2 + 1, ROW // 2 + 1]


async def test_whoever_stands_behind_many_long_names_is_found(room: Room) -> None:
    desk = await room.open()
    await desk.issue_batch([(f"{number:064d}", "first") for number in range(ROW - 1)])
    await desk.issue("bob")
    bob = await desk.coupon(ROW - 1)
    assert isinstance(bob, Coupon)
    assert bob.user_id == "bob"
    assert isinstance(await desk.redeem(ROW - 1), Redeemed)
    assert await desk.coupon(ROW - 1) == replace(bob, status=CouponStatus.REDEEMED)


async def test_what_happens_to_all_leaves_them_their_common_record(room: Room) -> None:
    desk = await room.open()
    await desk.issue_batch([(f"user {number}", "first") for number in range(ROW)])
    await desk.redeem(3)
    await desk.write_through((await desk.extend(EXPIRY + 1)).number)
    assert await own(room) == [3]
    await desk.write_through((await desk.extend(LATER, scope=Scope(user_ids=("user 9",)))).number)
    assert await own(room) == [3, 9]
    await room.clock.set(EXPIRY + 1)
    await desk.tidy()
    assert await own(room) == [3, 9]
    statuses = [coupon.status for coupon in await desk.all_coupons()]
    assert statuses[3] is CouponStatus.REDEEMED
    assert statuses[9] is CouponStatus.ISSUED
    assert statuses.count(CouponStatus.EXPIRED) == ROW - 2
    assert (await desk.recount()).adds_up


async def test_those_of_one_part_may_differ_for_a_while(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "COUPONS_PER_CALL", 3)
    desk = await room.open()
    await desk.issue_batch([(f"user {number}", "first") for number in range(ROW)])
    await room.clock.set(EXPIRY)
    await room.extensions.expire(desk.campaign, 0)
    counters = await desk.counters()
    assert (counters.expired, counters.outstanding) == (3, ROW - 3)
    assert (await desk.recount()).adds_up
    await desk.tidy()
    assert (await desk.counters()).expired == ROW
    assert (await desk.recount()).adds_up


SMALL_ROWS = [SMALL + number for number in range(4)]
AFTER_130_COUPONS = {
    **{"tokens": (UNLIMITED.burst - 130) * 1_000_000, "tokens_at": LAUNCH, "committed": 130 * 2500},
    **{"issued": 130, "outstanding": 129, "reserved": 0, "redeemed": 1, "expired": 0, "deactivated": 0},
}


async def test_the_ledger_of_a_shard_is_one_field(room: Room) -> None:
    desk = await room.open()
    await desk.issue_batch([(f"user {number}", "first") for number in range(130)])
    await desk.redeem(129)
    state: Any = await room.client.hgetall(STATE)
    assert state.keys() == {b"config", FIELD}
    assert read_ledger(state[FIELD]) == AFTER_130_COUPONS


async def test_the_ledger_counts_further_than_any_campaign_and_below_nothing(room: Room) -> None:
    desk = await room.open(max_coupons=2**34 - 1, budget=None)
    await desk.issue()
    far = dict.fromkeys(COUNTERS, 2**33) | {"committed": 2**52, "expired": -1}
    await drift(room.client, STATE, far)
    assert isinstance(await desk.issue("bob"), Issued)
    packed: Any = await room.client.hget(STATE, FIELD)
    issued_twice = {"issued": 2, "outstanding": 2, "committed": 5000}
    assert {name: read_ledger(packed)[name] for name in COUNTERS} == {
        name: far[name] + issued_twice.get(name, 0) for name in COUNTERS
    }
    assert (await room.catalogue.ledger(desk.campaign)).counters.expired == -1


async def test_whose_name_is_lost_is_nobodys_and_keeps_nobody_from_looking(room: Room) -> None:
    desk = await room.open()
    for user in ("ann", "bob"):
        await desk.issue(user)
    await room.client.hdel(rows_key("spring"), str(NAMES))
    page = await room.coupons.page(desk.known, 0, 0)
    assert [(coupon.user_id, coupon.status) for coupon, _ in page.coupons] == [("", CouponStatus.ISSUED)] * 2


@pytest.mark.parametrize(("layout", "lost"), [(3, "ledger"), (2, "ledger"), (1, "issued"), (0, "committed")])
async def test_nothing_is_given_out_without_a_ledger(room: Room, layout: int, lost: str) -> None:
    desk = await room.open()
    if layout < 3:
        await desk.as_of_layout(layout)
    await desk.issue()
    await room.client.hdel(STATE, lost)
    _, before = await room.everything()
    for attempt in (desk.issue("bob"), desk.issue(), desk.redeem(), desk.deactivate(0)):
        with pytest.raises(StoreRefused):
            await attempt
    assert (await room.everything())[1] == before


@pytest.mark.parametrize(
    ("layout", "places"),
    [(0, [[*range(128)], [0, 1], []]), (1, [SMALL_ROWS] * 3), (2, [SMALL_ROWS] * 3)],
    ids=["without rows", "without one ledger", "in small hashes"],
)
async def test_shards_of_earlier_versions_lie_on_as_they_did(room: Room, layout: int, places: list[list[int]]) -> None:
    desk = await room.open()
    await desk.as_of_layout(layout)
    for _ in range(2):
        await desk.issue_batch([(f"user {number}", "first") for number in range(130)])
        await desk.change(max_coupons=200)
    await desk.redeem(129)
    blocks = [await room.client.hgetall(f"tg:{{spring:0}}:coupons:{number}") for number in range(3)]
    assert [sorted(map(int, block)) for block in blocks] == places
    state: Any = await room.client.hgetall(STATE)
    told = {name.decode(): int(figure) for name, figure in state.items() if name not in (b"config", FIELD)}
    assert (told if layout < 2 else read_ledger(state[FIELD])) == AFTER_130_COUPONS
    assert len(await desk.all_coupons()) == 130
    assert await room.client.object("encoding", records_key("spring")) == b"listpack"


@pytest.mark.parametrize("layout", [0, 1, 2])
async def test_an_earlier_version_can_do_nothing_with_a_later_layout(room: Room, layout: int) -> None:
    desk = await room.open()
    await desk.change(max_coupons=200)
    read = f"return cmsgpack.unpack(string.sub(redis.call('HGET', KEYS[1], 'config'), {layout + 1})).version"
    with pytest.raises(ResponseError, match="Bad data format"):
        await room.client.eval(read, 1, STATE)


async def test_a_later_layout_is_left_alone(room: Room) -> None:
    desk = await room.open()
    await desk.issue()
    config: Any = await room.client.hget(STATE, "config")
    await room.client.hset(STATE, "config", b"\xc1" + config)
    _, before = await room.everything()
    for attempt in (desk.issue("bob"), desk.issue(), desk.redeem(), desk.deactivate(0), desk.change(max_coupons=200)):
        with pytest.raises(StoreRefused):
            await attempt
    assert (await room.everything())[1] == before
