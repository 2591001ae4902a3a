"""Outcomes as metric labels: the same words as a problem's `reason`; the type checker misses none."""

from typing import assert_never

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
    Overloaded,
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
    SoldOut,
    StoreUnavailable,
    TooManyAttempts,
    UnknownCampaign,
    UnknownCode,
)


def outcome_label(outcome: IssueOutcome | RedeemOutcome) -> str:
    """The outcome as a metric label."""
    match outcome:
        case Issued():
            return "issued"
        case Replayed():
            return "replayed"
        case Redeemed():
            return "redeemed" if outcome.redemption.hold_expires_at_ms is None else "reserved"
        case RedemptionReplayed():
            return "replayed"
        case IssuancePaused():
            return "issuance_paused"
        case RateLimited(bucket="merchant") | MerchantBusy():
            return "merchant_busy"
        case RateLimited():
            return "rate_limited"
        case PerUserLimit():
            return "per_user_limit"
        case PerUserDailyLimit():
            return "per_user_daily_limit"
        case DailyLimit():
            return "daily_limit"
        case SoldOut():
            return "sold_out"
        case BudgetExhausted():
            return "budget_exhausted"
        case CampaignNotRunning():
            return "campaign_not_running"
        case Overloaded():
            return "overloaded"
        case StoreUnavailable():
            return "store_unavailable"
        case UnknownCampaign() | UnknownCode():
            return "not_found"
        case AlreadyRedeemed():
            return "already_redeemed"
        case ReservedElsewhere():
            return "reserved_elsewhere"
        case NotYetValid():
            return "not_yet_valid"
        case Expired():
            return "expired"
        case Deactivated():
            return "deactivated"
        case OrderTooSmall():
            return "order_too_small"
        case OrderAmountRequired():
            return "order_amount_required"
        case PerOrderLimit():
            return "per_order_limit"
        case PerMerchantLimit():
            return "per_merchant_limit"
        case TooManyAttempts():
            return "too_many_attempts"
        case _:
            assert_never(outcome)
