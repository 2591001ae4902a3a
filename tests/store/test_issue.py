"""What a user gets who asks for a coupon, and what a repeat of the same request gets."""

from dataclasses import astuple, replace

import pytest

from service.domain.campaign import CampaignStatus, IssueWindow
from service.domain.money import Money, Rate
from service.domain.outcomes import (
    BudgetExhausted,
    CampaignNotRunning,
    IssuancePaused,
    Issued,
    PerUserLimit,
    RateLimited,
    Replayed,
    SoldOut,
    StoreUnavailable,
    UnknownCampaign,
)
from service.domain.validity import FixedValidity
from service.store.scripts import StoreRefused
from tests.store.desk import EXPIRY, LATER, LAUNCH, Room
from tests.store.records import lose_records

pytestmark = pytest.mark.anyio

FIRST = Issued(sequence=0, issued_at_ms=LAUNCH, starts_at_ms=LAUNCH, expires_at_ms=EXPIRY)
FIRST_AGAIN = Replayed(sequence=0, issued_at_ms=LAUNCH, starts_at_ms=LAUNCH, expires_at_ms=EXPIRY)


async def test_a_user_gets_a_coupon_that_the_ledger_and_the_user_know(room: Room) -> None:
    desk = await room.open()
    assert await desk.issue("ann") == FIRST
    counters = await desk.counters()
    assert (counters.issued, counters.outstanding, counters.budget_committed) == (1, 1, 2500)
    assert [coupon.sequence for coupon in await room.coupons.user_coupons(desk.known, "ann")] == [0]
    assert await room.coupons.user_coupons(desk.known, "bob") == []


async def test_coupons_are_numbered_in_the_order_of_their_requests(room: Room) -> None:
    desk = await room.open()
    outcomes = await desk.issue_batch([("ann", "1"), ("bob", "1"), ("ann", "2")])
    assert [outcome.sequence for outcome in outcomes if isinstance(outcome, Issued)] == [0, 1, 2]
    assert [coupon.user_id for coupon in await desk.all_coupons()] == ["ann", "bob", "ann"]
    assert [coupon.sequence for coupon in await room.coupons.user_coupons(desk.known, "ann")] == [0, 2]


async def test_a_coupon_of_a_campaign_that_is_valid_later_starts_then(room: Room) -> None:
    starts_at_ms = LAUNCH + 86_400_000
    desk = await room.open(validity=FixedValidity("Asia/Shanghai", starts_at_ms, EXPIRY))
    assert await desk.issue() == replace(FIRST, starts_at_ms=starts_at_ms)
    await room.clock.set(starts_at_ms + 5)
    assert await desk.issue("bob") == Issued(1, starts_at_ms + 5, starts_at_ms + 5, EXPIRY)


async def test_a_user_gets_as_many_coupons_as_the_cap_and_no_more(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=2)
    outcomes = await desk.issue_batch([("ann", str(number)) for number in range(4)])
    assert [type(outcome) for outcome in outcomes] == [Issued, Issued, PerUserLimit, PerUserLimit]
    assert await desk.issue("ann", "4") == PerUserLimit()
    assert isinstance(await desk.issue("bob"), Issued)


async def test_the_stock_is_issued_to_the_last_coupon(room: Room) -> None:
    desk = await room.open(max_coupons=3)
    outcomes = await desk.issue_batch([(f"user {number}", "first") for number in range(5)])
    assert [type(outcome) for outcome in outcomes] == [Issued, Issued, Issued, SoldOut, SoldOut]
    assert (await desk.counters()).issued == 3


async def test_money_that_does_not_cover_another_coupon_stays_where_it_is(room: Room) -> None:
    desk = await room.open(budget=Money(2 * 2500 + 2499, "CNY"))
    outcomes = await desk.issue_batch([(f"user {number}", "first") for number in range(4)])
    assert [type(outcome) for outcome in outcomes] == [Issued, Issued, BudgetExhausted, BudgetExhausted]
    assert (await desk.counters()).budget_committed == 5000


async def test_a_campaign_without_a_budget_counts_what_it_owes(room: Room) -> None:
    desk = await room.open(budget=None)
    await desk.issue()
    assert (await desk.counters()).budget_committed == 2500


async def test_the_users_bucket_is_named_when_both_are_empty(room: Room) -> None:
    desk = await room.open(issue_rate=Rate(1000, 1), user_rate=Rate(500, 1))
    outcomes = await desk.issue_batch([("ann", "1"), ("ann", "2"), ("bob", "1")])
    assert outcomes[1:] == [RateLimited("user", 1, 500, 2000), RateLimited("campaign", 1, 1000, 1000)]


async def test_a_refused_request_in_a_batch_leaves_its_tokens_to_the_next(room: Room) -> None:
    desk = await room.open(issue_rate=Rate(1, 2), max_coupons_per_user=1)
    outcomes = await desk.issue_batch([("ann", "1"), ("ann", "2"), ("ann", "3"), ("bob", "1"), ("eve", "1")])
    assert [type(outcome) for outcome in outcomes] == [Issued, PerUserLimit, PerUserLimit, Issued, RateLimited]


async def test_the_issue_window_opens_and_closes_to_the_millisecond(room: Room) -> None:
    desk = await room.open(status=CampaignStatus.SCHEDULED, issue_window=IssueWindow(LAUNCH + 1000, LAUNCH + 2000))
    assert await desk.issue("ann") == CampaignNotRunning(CampaignStatus.SCHEDULED, starts_in_ms=1000)
    await room.clock.advance(999)
    assert await desk.issue("ann") == CampaignNotRunning(CampaignStatus.SCHEDULED, starts_in_ms=1)
    await room.clock.advance(1)
    assert isinstance(await desk.issue("ann"), Issued)
    await room.clock.advance(999)
    assert isinstance(await desk.issue("bob"), Issued)
    await room.clock.advance(1)
    assert await desk.issue("eve") == CampaignNotRunning(CampaignStatus.ENDED, starts_in_ms=None)


async def test_nobody_gets_a_coupon_that_has_expired_already(room: Room) -> None:
    desk = await room.open()
    await room.clock.set(EXPIRY - 1)
    assert isinstance(await desk.issue("ann"), Issued)
    await room.clock.set(EXPIRY)
    assert await desk.issue("bob") == CampaignNotRunning(CampaignStatus.ENDED, starts_in_ms=None)


@pytest.mark.parametrize("status", [CampaignStatus.DRAFT, CampaignStatus.STOPPED, CampaignStatus.ENDED])
async def test_a_campaign_that_does_not_run_says_so(room: Room, status: CampaignStatus) -> None:
    desk = await room.open(status=status)
    assert await desk.issue() == CampaignNotRunning(status, starts_in_ms=None)


async def test_a_paused_campaign_issues_again_when_it_is_resumed(room: Room) -> None:
    desk = await room.open()
    await desk.change(status=CampaignStatus.PAUSED)
    assert await desk.issue() == IssuancePaused("operator", 30)
    await desk.change(status=CampaignStatus.RUNNING)
    assert await desk.issue() == FIRST


async def test_a_shard_that_was_never_configured_is_an_unknown_campaign(room: Room) -> None:
    desk = await room.open()
    await room.client.flushall()
    await room.clock.set(LAUNCH)
    assert await desk.issue_batch([("ann", "1"), ("bob", "1")]) == [UnknownCampaign(), UnknownCampaign()]


async def test_the_same_key_again_is_the_same_coupon(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=2)
    assert await desk.issue("ann", "first") == FIRST
    await room.clock.advance(60_000)
    assert await desk.issue("ann", "first") == FIRST_AGAIN
    assert isinstance(await desk.issue("ann", "second"), Issued)
    assert isinstance(await desk.issue("bob", "first"), Issued)


async def test_the_same_key_twice_in_one_batch_is_one_coupon(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=1)
    assert await desk.issue_batch([("ann", "first"), ("ann", "first"), ("bob", "x"), ("ann", "first")]) == [
        FIRST,
        FIRST_AGAIN,
        replace(FIRST, sequence=1),
        FIRST_AGAIN,
    ]
    assert (await desk.counters()).issued == 2


async def test_whoever_comes_twice_behind_a_repeat_gets_one_coupon(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=1)
    await desk.issue("ann")
    outcomes = await desk.issue_batch([("ann", "first"), ("bob", "1"), ("bob", "1"), ("bob", "2"), ("cid", "1")])
    assert [type(outcome) for outcome in outcomes] == [Replayed, Issued, Replayed, PerUserLimit, Issued]
    assert (await desk.counters()).issued == 3
    assert [coupon.user_id for coupon in await desk.all_coupons()] == ["ann", "bob", "cid"]


async def test_a_repeat_is_answered_whatever_has_become_of_the_campaign(room: Room) -> None:
    desk = await room.open(max_coupons=1, budget=Money(2500, "CNY"), issue_rate=Rate(1, 1), user_rate=Rate(1, 1))
    assert await desk.issue("ann") == FIRST
    assert isinstance(await desk.issue("bob"), SoldOut)
    assert await desk.issue("ann") == FIRST_AGAIN
    for status in (CampaignStatus.PAUSED, CampaignStatus.STOPPED):
        await desk.change(status=status)
        assert await desk.issue("ann") == FIRST_AGAIN
    await room.clock.set(LATER)
    await desk.tidy()
    assert await desk.issue("ann") == FIRST_AGAIN


async def test_a_repeat_is_answered_over_the_users_limit_and_rate(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=1, user_rate=Rate(1, 1))
    assert await desk.issue("ann") == FIRST
    assert await desk.issue("ann", "second") == PerUserLimit()
    assert await desk.issue("ann") == FIRST_AGAIN


async def test_a_store_that_takes_no_writes_answers_repeats_and_issues_nothing(room: Room) -> None:
    desk = await room.open()
    assert await desk.issue("ann") == FIRST
    before = await room.everything()
    await room.client.config_set("maxmemory", 1)
    try:
        assert await desk.issue("ann") == FIRST_AGAIN
        with pytest.raises(StoreRefused):
            await desk.issue_batch([("bob", "first"), ("ann", "first")])
    finally:
        await room.client.config_set("maxmemory", 0)
    assert await room.everything() == before


async def test_repeats_and_first_requests_mix_in_one_batch(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=2)
    served = [f"user {number}" for number in range(0, 40, 2)]
    first = await desk.issue_batch([(user, "first") for user in served])
    outcomes = await desk.issue_batch([(f"user {number}", "first") for number in range(40)])
    repeats, others = outcomes[::2], outcomes[1::2]
    assert [Issued(*astuple(outcome)) for outcome in repeats if isinstance(outcome, Replayed)] == first
    assert [outcome.sequence for outcome in others if isinstance(outcome, Issued)] == [*range(20, 40)]
    assert (await desk.counters()).issued == 40


@pytest.mark.parametrize("fate", ["redeem", "deactivate"])
async def test_a_repeat_is_answered_whatever_has_become_of_the_coupon(room: Room, fate: str) -> None:
    desk = await room.open()
    await desk.issue("ann")
    await (desk.redeem() if fate == "redeem" else desk.deactivate())
    assert await desk.issue("ann") == FIRST_AGAIN


async def test_a_repeat_shows_the_times_of_the_first_answer_after_an_extension(room: Room) -> None:
    desk = await room.open()
    await desk.issue("ann")
    progress = await desk.extend(LATER)
    assert await desk.issue("ann") == FIRST_AGAIN
    assert await desk.issue("bob") == replace(FIRST, sequence=1, expires_at_ms=LATER)
    await desk.write_through(progress.number)
    await desk.extend(LATER + 86_400_000)
    assert await desk.issue("ann") == FIRST_AGAIN
    assert await desk.issue("bob") == replace(FIRST_AGAIN, sequence=1, expires_at_ms=LATER)


async def test_a_key_inside_another_claim_is_not_taken_for_a_repeat(room: Room) -> None:
    """Claims lie back to back, so a digest may occur across two of them by chance."""
    desk = await room.open()
    first = replace(desk.wish("ann", "1"), key_digest=b"\x01\x02\x03\x04\x05\x06\x07\x08")
    across = replace(first, key_digest=b"\x04\x05\x06\x07\x08\x00\x00\x00")
    outcomes = await room.coupons.issue(desk.known, 0, [first, across, across])
    assert [type(outcome) for outcome in outcomes] == [Issued, Issued, Replayed]


async def test_who_repeats_a_request_for_a_coupon_whose_record_is_lost_spoils_it_for_nobody_else(room: Room) -> None:
    desk = await room.open()
    await desk.issue("ann")
    await lose_records(room.client, "spring", 0)
    batch = [("ann", "first"), ("bob", "first"), ("ann", "second")]
    first = await desk.issue_batch(batch)
    assert [type(outcome) for outcome in first] == [StoreUnavailable, Issued, Issued]
    again = await desk.issue_batch(batch)
    assert [type(outcome) for outcome in again] == [StoreUnavailable, Replayed, Replayed]
