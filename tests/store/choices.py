"""Why: what may happen in a campaign's life, and how often, is said in one place."""

from typing import Final

from hypothesis import strategies as st

from service.domain.benefit import Amount, Percent, RedEnvelope
from service.domain.campaign import IssueWindow, StatusVerb
from service.domain.extension import Scope
from service.domain.limits import DailyLimits, HolderLimits
from service.domain.money import Money, Rate
from service.domain.opening import Hours, Opening
from service.domain.validity import (
    DAY_MS,
    Duration,
    FixedValidity,
    FixedWaves,
    RelativeValidity,
    RelativeWaves,
    zone_offsets,
)
from service.store.coupons import RedeemRequest, SettleVerb
from tests.store.desk import LAUNCH

ZONE: Final = "Asia/Shanghai"
OFFSETS: Final = zone_offsets(ZONE, LAUNCH)
WORTH: Final = 2500
MOST_COUPONS: Final = 20
UNKNOWN: Final = MOST_COUPONS
MOST_EXTENSIONS: Final = 6
"""The model asks about each of them by all those before it."""

users = st.sampled_from(["ann", "bob", "eve", "zoe"])
losers = st.sampled_from(["ann", "zoe", *["nobody"] * 4])
wish = st.tuples(users, st.sampled_from("123456"))
wishes = st.lists(wish, min_size=3, max_size=8)
first_wishes = st.lists(wish, min_size=4, max_size=8, unique=True)
sequences = st.integers(0, UNKNOWN)
kill_moments = st.integers(0, 12).map(lambda doublings: 2**doublings)
"""How often others get their turn until the store is killed: from before it is asked until it has answered."""
victims = st.sampled_from([0, 3, *[UNKNOWN] * 4])
numbers = st.integers(0, MOST_EXTENSIONS)
shards = st.integers(0, 1)
merchants = st.sampled_from(["tea house", "book shop"])
holds = st.sampled_from([0, 0, 1_000, DAY_MS // 2, 3 * DAY_MS])
order_amounts = st.sampled_from([5_000, 5_000, None, 0, 100])
orders = st.sampled_from(["order 1", "order 2", "order 3"])
requests = st.builds(RedeemRequest, sequences, merchants, orders, order_amounts, holds)
verbs: st.SearchStrategy[SettleVerb] = st.sampled_from(["commit", "release", "rollback"])
operations: st.SearchStrategy[StatusVerb] = st.sampled_from(["pause", "resume", "resume", "resume", "stop"])

caps = st.integers(5, MOST_COUPONS)
budgets = st.integers(4, 20).map(lambda coupons: Money(coupons * WORTH + 1, "CNY"))
rates = st.sampled_from([Rate(50, 5), Rate(999_999, 4)])
few = st.sampled_from([None, 2, 3])
limits = st.one_of(
    *(st.fixed_dictionaries({name: rates}) for name in ("issue_rate", "user_rate", "merchant_rate")),
    *[st.fixed_dictionaries({"budget": budgets})] * 3,
    st.just({"max_quota_per_user": 8}),
    st.fixed_dictionaries(
        {"daily_limits": st.builds(DailyLimits, st.sampled_from([None, 8, 12]), few, st.just(OFFSETS))}
    ),
    st.fixed_dictionaries({"holder_limits": st.builds(HolderLimits, st.sampled_from([None, 1, 2]), few)}),
    st.fixed_dictionaries(
        {"issue_window": st.sampled_from([IssueWindow(LAUNCH + begins, LAUNCH + 2 * DAY_MS) for begins in (0, 1)])}
    ),
)
benefits = st.sampled_from([Amount(WORTH, "CNY"), Amount(WORTH, "CNY", 100), Percent(33, WORTH, "CNY")])
red_envelopes = st.builds(
    lambda shares, spare: {"benefit": RedEnvelope(shares * 10 + spare, shares, 10, "CNY"), "max_coupons": shares},
    caps,
    st.integers(0, 500),
)
promises = red_envelopes | st.fixed_dictionaries({"benefit": benefits, "max_coupons": caps})
validities = st.sampled_from(
    [
        FixedValidity(ZONE, None, LAUNCH + DAY_MS),
        FixedValidity(ZONE, LAUNCH + 1_000, LAUNCH + 2 * DAY_MS),
        FixedValidity(
            ZONE,
            LAUNCH,
            LAUNCH + 2 * DAY_MS,
            waves=FixedWaves(Duration(exact_ms=1_000), (LAUNCH, LAUNCH + 1_000, LAUNCH + 2_000)),
        ),
        *(
            RelativeValidity(ZONE, wait, Duration(days=1), OFFSETS)
            for wait in (Duration(), Duration(), Duration(exact_ms=1_000))
        ),
        RelativeValidity(
            ZONE,
            Duration(),
            Duration(days=1),
            OFFSETS,
            opening=Opening((Hours(("fri", "sat"), 466, 1_200),)),
            waves=RelativeWaves(3, Duration(exact_ms=30_000)),
        ),
    ]
)

days = st.integers(0, 6).map(lambda day: LAUNCH + day * DAY_MS // 2)
moments = st.none() | days
scopes = st.none() | st.one_of(
    st.builds(Scope, issued_from_ms=moments, issued_to_ms=moments, expiring_before_ms=moments),
    st.builds(Scope, user_ids=st.sets(users, min_size=1).map(lambda found: tuple(sorted(found)))),
    st.builds(Scope, merchant_id=merchants),
)
