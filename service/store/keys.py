"""The names of all keys, in one place, so that every key of one decision provably lies in one cluster slot."""

from typing import Final

META: Final = "tg:meta"
CAMPAIGNS: Final = "tg:{catalogue}:campaigns"
PREVIOUS: Final = "tg:{catalogue}:previous"
PREFIXES: Final = "tg:{catalogue}:prefixes"
OUTAGES: Final = "tg:{catalogue}:outages"
WEBHOOKS: Final = "tg:{webhooks}:registered"
WEBHOOKS_HEALTH: Final = "tg:{webhooks}:health"
IMPORTED_PREFIXES: Final = "tg:{catalogue}:imported"
OPEN_JOBS: Final = "tg:{jobs}:open"
SCHEDULER_SEEN: Final = "tg:{jobs}:scheduler"
ROOMS: Final = "tg:{rooms}:live"
BREAKER_STATE: Final = "tg:{breaker}:state"
BREAKER_BALLOTS: Final = "tg:{breaker}:ballots"
BREAKER_VITALS: Final = "tg:{breaker}:vitals"
BREAKER_EVENTS: Final = "tg:{breaker}:events"


def state_key(campaign_id: str, shard: int) -> str:
    """A shard's state; the scripts derive the shard's other keys from it by its prefix."""
    return f"tg:{{{campaign_id}:{shard}}}:state"


def events_key(campaign_id: str, shard: int) -> str:
    """A shard's stream of events: audit trail and outbox."""
    return f"tg:{{{campaign_id}:{shard}}}:events"


def export_key(campaign_id: str, shard: int) -> str:
    """How far a shard's events were exported to day files, and how far trimmed."""
    return f"tg:{{{campaign_id}:{shard}}}:export"


def webhook_cursors_key(webhook_id: str) -> str:
    """How far a webhook has been told the events of every shard."""
    return f"tg:{{webhooks}}:cursors:{webhook_id}"


def webhook_lease_key(webhook_id: str) -> str:
    """Which process tells a webhook its events at the moment."""
    return f"tg:{{webhooks}}:lease:{webhook_id}"


def job_key(job_id: str) -> str:
    """The record of a long job."""
    return f"tg:{{jobs}}:job:{job_id}"


def ended_jobs(kind: str) -> str:
    """The long jobs of one kind that have ended and are remembered, by when they did."""
    return f"tg:{{jobs}}:ended:{kind}"


def codes_key(campaign_id: str) -> str:
    """The codes that were imported for a campaign."""
    return f"tg:{{{campaign_id}:0}}:codes"


def import_key(campaign_id: str, import_id: str) -> str:
    """An import that is being checked."""
    return f"tg:{{{campaign_id}:0}}:import:{import_id}"
