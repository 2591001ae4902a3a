"""Webhooks on the wire: where events are to be told, and how that went."""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from service.api.vocabulary import CampaignId, Moment, Wire
from service.domain.events import STATUS_AFTER
from service.domain.webhooks import LONGEST_URL, WebhookStatus


def _event_type(name: str) -> str:
    if name not in STATUS_AFTER:
        raise ValueError(f"must be one of {', '.join(STATUS_AFTER)}")
    return name


EventType = Annotated[str, AfterValidator(_event_type), Field(examples=["coupon.redeemed"])]


class WebhookRequest(Wire):
    """Where events are to be told, and which; of one campaign or of all."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)] = Field(
        examples=["https://shop.example/coupons"]
    )
    types: Annotated[list[EventType], Field(min_length=1, max_length=len(STATUS_AFTER))]
    campaign_id: CampaignId | None = None


class Webhook(Wire):
    """A webhook, and how its last deliveries went; one that kept failing is disabled and told no more."""

    id: str
    url: str
    types: list[str]
    campaign_id: str | None
    created_at: Moment
    status: WebhookStatus
    failures: int
    last_failure: str | None
    retry_at: Moment | None


class NewWebhook(Webhook):
    """A webhook with the secret that signs its messages. It is shown this once."""

    secret: str


class WebhookList(Wire):
    """All webhooks, the oldest first."""

    webhooks: list[Webhook]
