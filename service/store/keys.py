"""The names of all keys, in one place, so that every key of one decision provably lies in one cluster slot."""

from typing import Final

META: Final = "tg:meta"
CAMPAIGNS: Final = "tg:{catalogue}:campaigns"
PREVIOUS: Final = "tg:{catalogue}:previous"
PREFIXES: Final = "tg:{catalogue}:prefixes"
IMPORTED_PREFIXES: Final = "tg:{catalogue}:imported"
OPEN_JOBS: Final = "tg:{jobs}:open"


def state_key(campaign_id: str, shard: int) -> str:
    """A shard's state; the scripts derive the shard's other keys from it by its prefix."""
    return f"tg:{{{campaign_id}:{shard}}}:state"


def events_key(campaign_id: str, shard: int) -> str:
    """A shard's stream of events: audit trail and outbox."""
    return f"tg:{{{campaign_id}:{shard}}}:events"


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
