"""A red envelope's pot is paid out to the last unit, whatever chance says, and no place in the line is a better one."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from statistics import fmean, pstdev
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from service.domain.benefit import RedEnvelope
from service.domain.coupon import Amounts, Coupon
from service.domain.money import Money
from service.domain.outcomes import Issued, Redeemed, Replayed, SoldOut
from service.store.coupons import CouponStore
from service.store.scripts import behind_fragments
from tests.store.desk import EXPIRY, Desk, Room
from tests.store.records import read_records

pytestmark = pytest.mark.anyio

SIGMAS: Final = 4.5
"""Seeds are fixed, so that the figures are always the same; further off than this they would speak of a bias."""
MOST: Final = 10**14
DRAW_ALL: Final = """
local config = { pot = tonumber(ARGV[1]), max_coupons = tonumber(ARGV[2]), min_share = tonumber(ARGV[3]) }
local pot, amounts = open_pot('no state', config, ARGV[4]), {}
for sequence = 0, config.max_coupons - 1 do
  amounts[sequence + 1] = integer(pot.draw(sequence))
end
return amounts
"""


def of_pot(pot: int, shares: int, least: int = 1, **more: object) -> dict[str, object]:
    """What a campaign's terms are for such a red envelope."""
    budget = Money(pot, "CNY")
    return {"benefit": RedEnvelope(pot, shares, least, "CNY"), "max_coupons": shares, "budget": budget, **more}


def amount_of(outcome: object) -> int:
    """What a wish has drawn."""
    assert isinstance(outcome, Issued | Replayed)
    assert outcome.drawn_amount is not None
    return outcome.drawn_amount


async def drawn(desk: Desk, shares: int, batch: int = 256) -> list[int]:
    """Everything that one shard's pot gives, in order."""
    wishes = [(f"user {number}", "key") for number in range(shares)]
    batches = [wishes[first : first + batch] for first in range(0, shares, batch)]
    return [amount_of(outcome) for batch in batches for outcome in await desk.issue_batch(batch)]


@contextmanager
def drawing(store_url: str) -> Iterator[object]:
    """The script's own draw, as often as a test asks for a whole pot."""
    with Redis.from_url(store_url) as client:
        yield client.register_script(behind_fragments(f"-- Uses     draw\n{DRAW_ALL}"))


pots = st.integers(1, 40).flatmap(
    lambda shares: st.integers(1, MOST // shares).flatmap(
        lambda least: st.tuples(
            st.integers(0, 3) | st.integers(0, MOST - shares * least), st.just(shares), st.just(least)
        )
    )
)


def test_every_seed_pays_out_every_pot_to_the_last_unit(store_url: str) -> None:
    with drawing(store_url) as draw:

        @settings(max_examples=300, deadline=None)
        @given(pots, st.binary(min_size=1, max_size=16))
        def pays_out(terms: tuple[int, int, int], seed: bytes) -> None:
            spare, shares, least = terms
            amounts = [int(amount) for amount in draw(args=[shares * least + spare, shares, least, seed])]  # type: ignore[operator]
            assert sum(amounts) == shares * least + spare
            assert min(amounts) >= least

        pays_out()


@pytest.mark.parametrize(("pot", "shares", "least"), [(20_000, 20, 1), (25, 20, 1), (MOST, 10, 1), (61, 7, 8)])
def test_early_and_late_shares_have_the_same_mean(store_url: str, pot: int, shares: int, least: int) -> None:
    rounds = 3_000
    with drawing(store_url) as draw:
        drawn = [[int(a) for a in draw(args=[pot, shares, least, f"seed {n}"])] for n in range(rounds)]  # type: ignore[operator]
    for place in range(shares):
        amounts = [amounts[place] for amounts in drawn]
        error = (pstdev(amounts) or 1) / rounds**0.5
        assert abs(fmean(amounts) - pot / shares) < SIGMAS * error, place


async def test_the_shards_together_pay_out_the_pot_and_each_its_own_part(room: Room) -> None:
    desk = await room.open(**of_pot(10_007, 61, least=3), shards=4, max_coupons_per_user=1)
    amounts, sold_out = [], 0
    for number in count():
        outcome = await desk.issue(f"user {number}")
        if isinstance(outcome, SoldOut):
            sold_out += 1
        else:
            amounts.append(amount_of(outcome))
        if len(amounts) == 61:
            break
    assert sold_out > 0
    assert (sum(amounts), min(amounts) >= 3) == (10_007, True)
    ledger = await desk.ledger()
    assert (ledger.budget_remaining, ledger.amounts.liability) == (0, 10_007)


async def test_a_share_stays_what_it_was_however_often_it_is_asked_for(room: Room) -> None:
    desk = await room.open(**of_pot(1_000, 10))
    first, again = await desk.issue_batch([("ann", "first"), ("ann", "first")])
    room.seed = b"another seed"
    later = await desk.issue("ann", "first")
    assert amount_of(first) == amount_of(again) == amount_of(later)
    (coupon,) = await room.coupons.user_coupons(desk.known, "ann")
    assert coupon.drawn_amount == amount_of(first)
    assert await desk.coupon() == coupon


async def test_neighbours_who_ask_again_together_are_told_their_own_shares(room: Room) -> None:
    desk = await room.open(**of_pot(10**9, 20))
    first = await drawn(desk, 20)
    assert len(set(first)) == 20
    assert await drawn(desk, 20) == first


async def test_nobody_can_know_his_share_without_the_seed_and_every_batch_has_one_of_its_own(room: Room) -> None:
    shares = set()
    for number in range(20):
        desk = await room.open(**of_pot(10**9, 2, id=f"c{number}", code_prefix=f"C{number:02}"))
        coupons = CouponStore(room.scripts)
        (outcome,) = await coupons.issue(desk.known, 0, [desk.wish("ann", "first")])
        shares.add(amount_of(outcome))
    assert len(shares) == 20


async def test_a_refused_wish_draws_nothing(room: Room) -> None:
    desk = await room.open(**of_pot(1_000, 3), max_coupons_per_user=1)
    outcomes = await desk.issue_batch(
        [("ann", "1"), ("ann", "2"), ("bob", "1"), ("bob", "2"), ("eve", "1"), ("zoe", "1")]
    )
    granted = [amount_of(outcome) for outcome in outcomes if isinstance(outcome, Issued)]
    assert (len(granted), sum(granted)) == (3, 1_000)


async def test_money_follows_a_share_through_its_whole_life(room: Room) -> None:
    desk = await room.open(**of_pot(1_000, 5))
    amounts = await drawn(desk, 5)
    await desk.redeem(0)
    await desk.redeem(1, hold_ms=EXPIRY)
    await desk.deactivate(2)
    ledger = await desk.ledger()
    spoken = Amounts(1_000, amounts[3] + amounts[4], amounts[1], amounts[0], 0, amounts[2])
    assert (ledger.amounts, ledger.budget_remaining) == (spoken, amounts[2])
    assert ledger.amounts.liability == amounts[1] + amounts[3] + amounts[4]
    await desk.settle("release", 1)
    await room.clock.set(EXPIRY)
    await desk.tidy()
    await desk.settle("rollback", 0)
    gone = Amounts(1_000, 0, 0, 0, 1_000 - amounts[2], amounts[2])
    ledger = await desk.ledger()
    assert (ledger.amounts, ledger.budget_remaining) == (gone, 1_000)


async def test_a_share_comes_off_an_order_up_to_the_order_itself(room: Room) -> None:
    desk = await room.open(**of_pot(1_000, 2))
    amounts = await drawn(desk, 2)
    for sequence, (order_amount, discount) in enumerate(((None, amounts[0]), (1, 1))):
        outcome = await desk.redeem(sequence, amount=order_amount)
        assert isinstance(outcome, Redeemed)
        assert outcome.redemption.discount_amount == discount


async def test_only_a_drawn_amount_makes_a_record_longer(room: Room) -> None:
    lengths = []
    for prefix, terms in (("PL", {}), ("EN", of_pot(1_000, 2))):
        desk = await room.open(id=prefix.lower(), code_prefix=prefix, **terms)
        await desk.issue("ann")
        lengths.append(len((await read_records(room.client, prefix.lower()))[0]))
    assert lengths == [26, 32]
    coupon = await desk.coupon()
    assert isinstance(coupon, Coupon)
    assert coupon.user_id == "ann"


async def test_the_event_of_a_batch_tells_its_shares(room: Room) -> None:
    desk = await room.open(**of_pot(1_000, 3))
    amounts = await drawn(desk, 3)
    (event,) = await room.events()
    assert (event.type, event.data) == ("coupon.issued", {"coupons": [0, 3], "amounts": amounts})
