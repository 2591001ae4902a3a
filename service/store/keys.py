"""The names of all keys, in one place, so that every key of one decision provably lies in one cluster slot."""

from typing import Final

META: Final = "tg:meta"
CAMPAIGNS: Final = "tg:{catalogue}:campaigns"
PREVIOUS: Final = "tg:{catalogue}:previous"
PREFIXES: Final = "tg:{catalogue}:prefixes"
ROOMS: Final = "tg:{rooms}:live"


def state_key(campaign_id: str, shard: int) -> str:
    """A shard's state; the scripts derive the shard's other keys from it by its prefix."""
    return f"tg:{{{campaign_id}:{shard}}}:state"


def events_key(campaign_id: str, shard: int) -> str:
    """A shard's stream of events: audit trail and outbox."""
    return f"tg:{{{campaign_id}:{shard}}}:events"
