"""A campaign's life follows its verbs, and what is divided over shards sums to the whole."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from service.domain.benefit import Amount, Percent, RedEnvelope
from service.domain.campaign import (
    MAX_SHARDS,
    Campaign,
    CampaignStatus,
    IllegalTransition,
    IssueWindow,
    StatusVerb,
    change_status,
    scheduled_status,
    shard_limits,
    shards_for,
    user_buckets_for,
)
from service.domain.limits import DailyLimits, HolderLimits
from service.domain.money import Money, Rate, share
from tests.store.desk import a_campaign

DRAFT, SCHEDULED, RUNNING, PAUSED, STOPPED, ENDED = CampaignStatus
WINDOW = IssueWindow(1_000, 2_000)
rates = st.builds(Rate, st.integers(1, 10**9), st.integers(1, 10**8))


@pytest.mark.parametrize(
    ("before", "verb", "after"),
    [
        (DRAFT, "start", RUNNING),
        (RUNNING, "start", RUNNING),
        (RUNNING, "pause", PAUSED),
        (SCHEDULED, "pause", PAUSED),
        (PAUSED, "resume", RUNNING),
        (RUNNING, "resume", RUNNING),
        (DRAFT, "stop", STOPPED),
        (SCHEDULED, "stop", STOPPED),
        (RUNNING, "stop", STOPPED),
        (PAUSED, "stop", STOPPED),
        (STOPPED, "stop", STOPPED),
    ],
)
def test_a_verb_leads_on_one_version_later_or_changes_nothing(
    before: CampaignStatus, verb: StatusVerb, after: CampaignStatus
) -> None:
    campaign = a_campaign(status=before)
    changed = change_status(campaign, verb, "as asked", now_ms=1_500)
    expected = replace(campaign, status=after, status_reason="as asked", status_since_ms=1_500, version=2)
    assert changed == (campaign if before is after else expected)


@pytest.mark.parametrize(
    ("before", "verb"),
    [
        (STOPPED, "start"),
        (STOPPED, "resume"),
        (STOPPED, "pause"),
        (ENDED, "start"),
        (ENDED, "pause"),
        (ENDED, "stop"),
        (DRAFT, "pause"),
        (DRAFT, "resume"),
        (PAUSED, "start"),
    ],
)
def test_a_verb_that_the_life_of_a_campaign_forbids_is_refused(before: CampaignStatus, verb: StatusVerb) -> None:
    with pytest.raises(IllegalTransition, match=f"{before} does not {verb}"):
        change_status(a_campaign(status=before), verb, "as asked", now_ms=1_500)


@pytest.mark.parametrize(("now_ms", "status"), [(999, SCHEDULED), (1_000, RUNNING), (1_999, RUNNING), (2_000, ENDED)])
def test_the_window_opens_and_closes_a_campaign_to_the_millisecond(now_ms: int, status: CampaignStatus) -> None:
    for before in (SCHEDULED, RUNNING):
        assert scheduled_status(a_campaign(status=before, issue_window=WINDOW), now_ms) is status
    draft = a_campaign(status=DRAFT, issue_window=WINDOW)
    assert change_status(draft, "start", "as asked", now_ms).status is status


@pytest.mark.parametrize("status", [DRAFT, PAUSED, STOPPED, ENDED])
def test_the_window_moves_nobody_who_was_paused_or_stopped(status: CampaignStatus) -> None:
    assert scheduled_status(a_campaign(status=status, issue_window=WINDOW), 1_500) is status


@given(total=st.integers(0, 10**14), parts=st.integers(1, MAX_SHARDS))
def test_the_parts_sum_to_the_whole_and_differ_by_one_at_most(total: int, parts: int) -> None:
    shares = [share(total, parts, index) for index in range(parts)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


@given(
    wanted=st.integers(1, 100),
    max_coupons=st.integers(1, 10**6),
    budget=st.none() | st.integers(1, 10**14),
    amount=st.integers(1, 10**6),
    issue_rate=rates,
    merchant_rate=st.none() | rates,
    redemptions=st.none() | st.integers(1, 10**9),
)
def test_the_shards_promise_together_what_the_campaign_promises(
    wanted: int,
    max_coupons: int,
    budget: int | None,
    amount: int,
    issue_rate: Rate,
    merchant_rate: Rate | None,
    redemptions: int | None,
) -> None:
    campaign = a_campaign(
        max_coupons=max_coupons,
        budget=None if budget is None else Money(budget, "CNY"),
        benefit=Amount(amount, "CNY"),
        issue_rate=issue_rate,
        merchant_rate=merchant_rate,
        redemptions_per_second_milli=redemptions,
    )
    shards = shards_for(wanted, campaign)
    assert 1 <= shards <= min(wanted, MAX_SHARDS)
    limits = [shard_limits(replace(campaign, shards=shards), shard) for shard in range(shards)]
    assert sum(limit.max_coupons for limit in limits) == max_coupons
    assert sum(limit.issue_rate.per_second_milli for limit in limits) == issue_rate.per_second_milli
    assert sum(limit.issue_rate.burst for limit in limits) == issue_rate.burst
    assert all(limit.max_coupons and limit.issue_rate.per_second_milli and limit.issue_rate.burst for limit in limits)
    if budget is not None:
        assert sum(limit.budget or 0 for limit in limits) == budget
        assert sum((limit.budget or 0) // amount for limit in limits) == budget // amount
    if merchant_rate is not None:
        assert sum(limit.merchant_rate.burst for limit in limits if limit.merchant_rate) == merchant_rate.burst
        assert all(limit.merchant_rate and limit.merchant_rate.per_second_milli for limit in limits)
    if redemptions is not None:
        assert sum(limit.redemptions_per_second_milli or 0 for limit in limits) == redemptions
        assert all(limit.redemptions_per_second_milli for limit in limits)


@pytest.mark.parametrize(
    ("max_coupons", "shards", "buckets"),
    [(1, 1, 1), (3_500_000, 1, 1), (3_500_001, 1, 2), (3_500_001, 4, 1), (10**7, 1, 3)],
)
def test_there_are_buckets_enough_for_one_coupon_a_user(max_coupons: int, shards: int, buckets: int) -> None:
    assert user_buckets_for(max_coupons, shards) == buckets


@pytest.mark.parametrize(("order_amount", "discount"), [(None, 2500), (0, 0), (2499, 2499), (9999, 2500)])
def test_a_discount_is_never_more_than_the_order(order_amount: int | None, discount: int) -> None:
    assert Amount(2500, "CNY").discount(order_amount) == discount


def test_limits_that_are_divided_bound_the_shards_and_one_by_the_order_needs_a_single_one() -> None:
    assert shards_for(8, a_campaign(daily_limits=DailyLimits(3, 1, ()))) == 3
    assert shards_for(8, a_campaign(daily_limits=DailyLimits(None, 1, ()))) == 8
    assert shards_for(8, a_campaign(holder_limits=HolderLimits(None, 5))) == 5
    assert shards_for(8, a_campaign(holder_limits=HolderLimits(20, 5))) == 1


def test_a_campaign_of_before_is_read_as_it_was_written() -> None:
    definition = TypeAdapter(Campaign)
    for benefit in (Amount(1, "CNY", 2), Percent(1, 2, "CNY"), RedEnvelope(3, 2, 1, "CNY")):
        campaign = a_campaign(benefit=benefit)
        assert definition.validate_json(definition.dump_json(campaign)) == campaign
    written = json.loads(definition.dump_json(a_campaign()))
    for unknown in ("max_quota_per_user", "daily_limits", "holder_limits"):
        del written[unknown]
    del written["benefit"]["kind"]
    assert definition.validate_json(json.dumps(written)) == a_campaign()
