"""What comes off an order: percentages to the unit, never above their maximum, and only from the least order on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from service.domain.benefit import Amount, Benefit, Percent, RedEnvelope, pot_share
from service.domain.coupon import CouponStatus
from service.domain.money import MAX_AMOUNT, Money, share
from service.domain.outcomes import BudgetExhausted, Issued, OrderAmountRequired, OrderTooSmall, Redeemed
from service.store.scripts import behind_fragments
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

A_THIRD = Percent(33, 2500, "CNY")


@pytest.mark.parametrize(
    ("order_amount", "discount"), [(1, 0), (3, 0), (4, 1), (100, 33), (7575, 2499), (7576, 2500), (MAX_AMOUNT, 2500)]
)
async def test_a_percentage_is_rounded_down_and_has_a_maximum(room: Room, order_amount: int, discount: int) -> None:
    desk = await room.open(benefit=A_THIRD)
    await desk.issue()
    outcome = await desk.redeem(amount=order_amount)
    assert isinstance(outcome, Redeemed)
    assert outcome.redemption.discount_amount == discount == A_THIRD.discount(order_amount)


def test_every_discount_is_exact_to_the_unit(store_url: str) -> None:
    rule = """
    return string.format('%.0f', discount_of(tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])))
    """
    with Redis.from_url(store_url) as client:
        ask = client.register_script(behind_fragments(f"-- Uses     benefit\n{rule}"))

        @settings(max_examples=300, deadline=None)
        @given(st.integers(1, 100), st.integers(1, MAX_AMOUNT), st.integers(0, MAX_AMOUNT))
        def is_exact(percent: int, most: int, order_amount: int) -> None:
            discount = Percent(percent, most, "CNY").discount(order_amount)
            assert int(ask(args=[percent, most, order_amount])) == discount <= order_amount

        is_exact()


async def test_a_percentage_of_an_unknown_order_is_refused(room: Room) -> None:
    desk = await room.open(benefit=A_THIRD)
    await desk.issue()
    assert await desk.redeem() == OrderAmountRequired()
    assert isinstance(await desk.redeem(amount=100), Redeemed)


@pytest.mark.parametrize(
    "benefit", [Percent(33, 2500, "CNY", 300), Amount(2500, "CNY", 300), RedEnvelope(20_000, 10_000, 1, "CNY", 300)]
)
async def test_every_kind_may_ask_for_a_least_order(room: Room, benefit: Benefit) -> None:
    desk = await room.open(benefit=benefit)
    await desk.issue()
    assert await desk.redeem(amount=299) == OrderTooSmall(300)
    assert isinstance(await desk.redeem(amount=300), Redeemed)


async def test_a_percentage_commits_its_maximum(room: Room) -> None:
    desk = await room.open(benefit=A_THIRD, budget=Money(7499, "CNY"))
    outcomes = [await desk.issue(user) for user in ("ann", "bob", "eve")]
    assert [type(outcome) for outcome in outcomes] == [Issued, Issued, BudgetExhausted]
    ledger = await desk.ledger()
    assert (ledger.budget_remaining, ledger.amounts.liability) == (2499, 5000)
    await desk.deactivate()
    ledger = await desk.ledger()
    assert (ledger.budget_remaining, ledger.amounts.liability) == (4999, 2500)
    assert ledger.amounts.deactivated == 2500
    statuses = [coupon.status for coupon in await desk.all_coupons()]
    assert statuses == [CouponStatus.DEACTIVATED, CouponStatus.ISSUED]


@given(st.integers(1, 64), st.integers(64, 10**6), st.integers(1, 10**6), st.integers(0, 10**14))
def test_pot_and_shares_are_divided_exactly_and_every_part_can_pay_its_shares(
    shards: int, shares: int, least: int, spare: int
) -> None:
    envelope = RedEnvelope(shares * least + spare, shares, least, "CNY")
    counts = [share(shares, shards, shard) for shard in range(shards)]
    parts = [pot_share(envelope, sum(counts[:shard]), counts[shard]) for shard in range(shards)]
    assert sum(parts) == envelope.pot
    assert all(part >= number * least for part, number in zip(parts, counts, strict=True))
    assert all(abs(part * shares - envelope.pot * number) <= shares for part, number in zip(parts, counts, strict=True))
