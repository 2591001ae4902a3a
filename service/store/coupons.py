"""Coupons: packs a batch of requests for one script call and reads its words back as outcomes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from secrets import token_bytes
from typing import Any, Final, Literal

import msgpack

from service.domain.benefit import RedEnvelope
from service.domain.campaign import CampaignStatus
from service.domain.codes import CouponAddress, RedemptionAddress
from service.domain.coupon import MAX_ATTEMPTS, Coupon, CouponStatus, Redemption, RedemptionStatus
from service.domain.outcomes import (
    AlreadyRedeemed,
    BudgetExhausted,
    CampaignNotRunning,
    DailyLimit,
    Deactivated,
    Expired,
    IssuancePaused,
    Issued,
    IssueOutcome,
    MerchantBusy,
    NotYetValid,
    OrderAmountRequired,
    OrderTooSmall,
    PerMerchantLimit,
    PerOrderLimit,
    PerUserDailyLimit,
    PerUserLimit,
    RateLimited,
    Redeemed,
    RedeemOutcome,
    RedemptionReplayed,
    Replayed,
    ReservedElsewhere,
    SettleOutcome,
    SoldOut,
    StoreUnavailable,
    TooManyAttempts,
    UnknownCampaign,
    UnknownCode,
    WrongRedemptionStatus,
)
from service.domain.validity import Validity, usable_at
from service.store.catalogue import KnownCampaign
from service.store.scripts import Scripts

OPERATOR_PAUSE_RETRY_S = 30
"""What a caller is told to wait while an operator has paused the campaign: nobody knows when he resumes it."""
SEED_BYTES: Final = 16
MOST_FIRST_ANSWERS: Final = 4096
"""As in first_answer.lua; no batch may be larger, which `max_batch` in the settings heeds."""
FIRST_ANSWER_NUMBERS: Final = 4
"""Of each: when the coupon was issued, when it starts and expires, and the amount drawn or 0."""
FIRST_ATTEMPT: Final = 1
"""Nearly every redemption is its coupon's first, so that one is told by nothing but its discount."""
MOST_REFUSALS: Final = 256
"""So many different refusals are kept, each as it was read."""

COUPONS_PER_PAGE: Final = 256
"""How many coupons one call reads: a millisecond or two of the store's time and of the reader's."""

SettleVerb = Literal["commit", "release", "rollback"]


@dataclass(slots=True)
class IssueRequest:
    """One user's wish for one coupon; `key_digest` is 8 bytes of the idempotency key's hash.

    Requests are not frozen: one is made for each call, and freezing quadruples its cost.
    """

    user_id: str
    user_bucket: int
    key_digest: bytes


@dataclass(slots=True)
class RedeemRequest:
    """One merchant's wish to redeem one coupon; `hold_ms` above 0 reserves it for so long instead."""

    sequence: int
    merchant_id: str
    order_id: str
    order_amount: int | None
    hold_ms: int


def random_seed() -> bytes:
    """A seed for one batch's draws from a pot: nobody can guess it, and nobody is told."""
    return token_bytes(SEED_BYTES)


@dataclass(frozen=True, slots=True)
class CouponPage:
    """Coupons of one shard in their order, each with its latest redemption, and where the next page begins if any."""

    coupons: Sequence[tuple[Coupon, Redemption | None]]
    next_sequence: int | None


class CouponStore:
    """The verbs on coupons. Every method raises StoreError when the store does not answer.

    `seed` is asked for every batch of a red envelope; tests give one that they know. `issue_held_s` is for how long
    the batch issued last held the store, by the CPU time that its script took.
    """

    def __init__(self, scripts: Scripts, seed: Callable[[], bytes] = random_seed) -> None:
        self._scripts = scripts
        self._seed = seed
        # Packers are dear to make, and keep nothing between batches. A digest goes as a string: Lua knows no bytes.
        self._wishes = msgpack.Packer(use_bin_type=False)
        self._redemptions = msgpack.Packer()
        self.issue_held_s = 0.0

    async def issue(self, campaign: KnownCampaign, shard: int, batch: Sequence[IssueRequest]) -> list[IssueOutcome]:
        """Issue a batch of one shard, in order; the outcomes stand in the order of the requests."""
        # The bucket goes as text, since Lua is slow at writing numbers.
        users = [asked.user_id for asked in batch]
        buckets = [str(asked.user_bucket) for asked in batch]
        packed = self._wishes.pack((users, buckets, [asked.key_digest for asked in batch]))
        seed = [self._seed()] if isinstance(campaign.campaign.benefit, RedEnvelope) else []
        reply = await self._scripts.run("issue", [campaign.state_keys[shard]], packed, *seed)
        if reply is None:
            return [UnknownCampaign()] * len(batch)
        answer = msgpack.unpackb(reply, raw=True, use_list=False)
        now_ms, starts_at_ms, expires_at_ms, results, first_answers, took_us = answer
        self.issue_held_s = took_us / 1e6
        return [
            (Issued(result, now_ms, starts_at_ms, expires_at_ms) if result >= 0 else _replayed(~result, first_answers))
            if isinstance(result, int)
            else _issue_outcome(result)
            for result in results
        ]

    async def redeem(self, campaign: KnownCampaign, shard: int, batch: Sequence[RedeemRequest]) -> list[RedeemOutcome]:
        """Redeem or reserve a batch of one shard, in order; the outcomes stand in the order of the requests."""
        columns = (
            [asked.sequence for asked in batch],
            [asked.merchant_id for asked in batch],
            [asked.order_id for asked in batch],
            [-1 if asked.order_amount is None else asked.order_amount for asked in batch],
            [asked.hold_ms for asked in batch],
        )
        packed = self._redemptions.pack(columns)
        reply = await self._scripts.run("redeem", [campaign.state_keys[shard]], packed, MAX_ATTEMPTS)
        if reply is None:
            return [UnknownCode()] * len(batch)
        now_ms, results = msgpack.unpackb(reply, raw=True)
        validity = campaign.campaign.validity
        return [
            Redeemed(_redemption_now(shard, request, FIRST_ATTEMPT, result, now_ms))
            if isinstance(result, int)
            else _other_redeem_outcome(shard, request, validity, result, now_ms)
            for request, result in zip(batch, results, strict=True)
        ]

    async def settle(
        self, campaign: KnownCampaign, verb: SettleVerb, address: RedemptionAddress, reason: str
    ) -> SettleOutcome:
        """`commit`, `release` or `rollback` one redemption."""
        coupon = address.coupon
        state_key = campaign.state_keys[coupon.shard]
        reply = await self._scripts.run(verb, [state_key], coupon.sequence, address.attempt, reason)
        match reply:
            case [b"settled", *described]:
                return Redeemed(_redemption(coupon, described))
            case [b"replayed", *described]:
                return RedemptionReplayed(_redemption(coupon, described))
            case [b"wrong_status", status]:
                return WrongRedemptionStatus(status.decode())
            case _:
                return UnknownCode()

    async def coupon(self, campaign: KnownCampaign, address: CouponAddress) -> Coupon | UnknownCode:
        """The coupon as it stands now."""
        match await self._scripts.run("read_coupon", [campaign.state_keys[address.shard]], address.sequence):
            case [b"coupon", *described]:
                return coupon_of(address, described)
            case _:
                return UnknownCode()

    async def page(self, campaign: KnownCampaign, shard: int, first: int) -> CouponPage:
        """The shard's next coupons from that sequence on, as they stand now."""
        reply = await self._scripts.run("read_page", [campaign.state_keys[shard]], first, COUPONS_PER_PAGE)
        last, issued, rows = reply or (0, 0, [])
        coupons = []
        for sequence, coupon, redemption in rows:
            address = CouponAddress(shard, sequence)
            found = _redemption(address, redemption[1:]) if redemption else None
            coupons.append((coupon_of(address, coupon[1:]), found))
        return CouponPage(coupons, last if last < issued else None)

    async def user_coupons(self, campaign: KnownCampaign, user_id: str) -> list[Coupon]:
        """The user's coupons of one campaign, the oldest first."""
        shard, bucket = campaign.place(user_id)
        reply = await self._scripts.run("read_user", [campaign.state_keys[shard]], bucket, user_id) or []
        return [
            coupon_of(CouponAddress(shard, sequence), described[1:])
            for sequence, described in zip(reply[::2], reply[1::2], strict=True)
        ]


def _replayed(word: int, first_answers: Sequence[int]) -> Replayed:
    at = FIRST_ANSWER_NUMBERS * (word & MOST_FIRST_ANSWERS - 1)
    issued_at_ms, starts_at_ms, expires_at_ms, amount = first_answers[at : at + FIRST_ANSWER_NUMBERS]
    return Replayed(word // MOST_FIRST_ANSWERS, issued_at_ms, starts_at_ms, expires_at_ms, amount or None)


def _issue_outcome(result: tuple[Any, ...]) -> IssueOutcome:
    match result:
        case [b"issued", *described]:
            return Issued(*described)
        case _:
            return _issue_refusal(result)


@lru_cache(maxsize=MOST_REFUSALS)
def _issue_refusal(result: tuple[Any, ...]) -> IssueOutcome:
    """Those of one batch who are refused for the same reason are told the same."""
    match result:
        case [b"per_user_limit"]:
            return PerUserLimit()
        case [b"per_user_daily_limit", next_day_in_ms]:
            return PerUserDailyLimit(next_day_in_ms)
        case [b"daily_limit", next_day_in_ms]:
            return DailyLimit(next_day_in_ms)
        case [b"sold_out"]:
            return SoldOut()
        case [b"budget_exhausted"]:
            return BudgetExhausted()
        case [b"issuance_paused"]:
            return IssuancePaused("operator", OPERATOR_PAUSE_RETRY_S)
        case [b"campaign_not_running", status, starts_in_ms]:
            return CampaignNotRunning(CampaignStatus(status.decode()), starts_in_ms if starts_in_ms >= 0 else None)
        case [b"record_lost"]:
            return StoreUnavailable()
        case _:
            return _rate_limited(result)


def _redemption_now(shard: int, request: RedeemRequest, attempt: int, discount_amount: int, now_ms: int) -> Redemption:
    status, hold_expires_at_ms = RedemptionStatus.COMMITTED, None
    if request.hold_ms:
        status, hold_expires_at_ms = RedemptionStatus.RESERVED, now_ms + request.hold_ms
    return Redemption(
        shard,
        request.sequence,
        attempt,
        request.merchant_id,
        request.order_id,
        status,
        discount_amount,
        now_ms,
        hold_expires_at_ms,
    )


def _other_redeem_outcome(
    shard: int, request: RedeemRequest, validity: Validity, result: list[Any], now_ms: int
) -> RedeemOutcome:
    match result:
        case [b"redeemed", attempt, discount_amount]:
            return Redeemed(_redemption_now(shard, request, attempt, discount_amount, now_ms))
        case [b"replayed", *described]:
            return RedemptionReplayed(_redemption(CouponAddress(shard, request.sequence), described))
        case [b"already_redeemed"]:
            return AlreadyRedeemed()
        case [b"reserved_elsewhere", retry_after_ms]:
            return ReservedElsewhere(retry_after_ms)
        case [b"not_yet_valid", starts_at_ms, expires_at_ms]:
            usable_at_ms = usable_at(validity, max(starts_at_ms, now_ms), expires_at_ms)
            retry_after_ms = None if usable_at_ms is None else usable_at_ms - now_ms
            return NotYetValid(starts_at_ms, expires_at_ms, usable_at_ms, retry_after_ms)
        case [b"expired", at_ms]:
            return Expired(at_ms)
        case [b"deactivated"]:
            return Deactivated()
        case [b"order_too_small", min_order_amount]:
            return OrderTooSmall(min_order_amount)
        case [b"order_amount_required"]:
            return OrderAmountRequired()
        case [b"per_order_limit"]:
            return PerOrderLimit()
        case [b"per_merchant_limit"]:
            return PerMerchantLimit()
        case [b"too_many_attempts"]:
            return TooManyAttempts()
        case [b"unknown_code"]:
            return UnknownCode()
        case [b"merchant_busy", retry_after_ms]:
            return MerchantBusy(retry_after_ms)
        case _:
            return _rate_limited(result)


def _rate_limited(result: Sequence[Any]) -> RateLimited:
    word, bucket, burst, per_second_milli, retry_after_ms = result
    assert word == b"rate_limited", word
    return RateLimited(bucket.decode(), burst, per_second_milli, retry_after_ms)


def _redemption(coupon: CouponAddress, described: list[Any]) -> Redemption:
    attempt, status, at_ms, discount_amount, hold_until_ms, merchant_id, order_id = described
    return Redemption(
        coupon.shard,
        coupon.sequence,
        attempt,
        merchant_id.decode(),
        order_id.decode(),
        RedemptionStatus(status.decode()),
        discount_amount,
        at_ms,
        hold_until_ms or None,
    )


def coupon_of(address: CouponAddress, described: list[Any]) -> Coupon:
    """The coupon that a script has described: `describe_coupon` in coupon.lua."""
    status, user_id, issued_at_ms, starts_at_ms, expires_at_ms, *drawn_amount = described
    return Coupon(
        address.shard,
        address.sequence,
        user_id.decode(),
        CouponStatus(status.decode()),
        issued_at_ms,
        starts_at_ms,
        expires_at_ms,
        *drawn_amount,
    )
