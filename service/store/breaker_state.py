"""Why: all replicas must pause and reopen as one, so the breakers' records live where each of them can see them.

A record changes by compare-and-set on its epoch; a replica's pulse leaves its ballot and reads what is in force. The
whole's record has no name, a campaign's has the campaign's id.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis

from service.domain.breaker import NEVER_CHANGED, BreakerRecord
from service.store import keys
from service.store.scripts import STORE_CLOCK, Scripts, StoreError, StoreTimeout, StoreUnreachable, store_errors
from service.store.vitals import Vitals

CHANNEL: Final = "tg:breaker"
CAMPAIGNS_CHANNEL: Final = "tg:breaker:campaigns"
WHOLE: Final = ""
MOST_CAMPAIGNS: Final = 64
"""How many campaigns may have a record of their own; one more is guarded by each replica for itself."""
MOST_ENTRIES: Final = 10_000
CALL_TIMEOUT_S: Final = 0.4
SUBSCRIBE_TIMEOUT_S: Final = 2.0
LINK_CHECKED_AFTER_S: Final = 1.0
BALLOT_RENEWED_AFTER_MS: Final = 1_000
BALLOT_SILENT_AFTER_MS: Final = 3_000
VITALS_DUE_AFTER_MS: Final = 1_000

OnRecord = Callable[[str, BreakerRecord], None]


class TooManyBreakers(StoreError):
    """As many campaigns as may have a breaker's record have one."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """What a replica says: why it is sick, of the whole and of campaigns, and about how many redemptions wait."""

    sick: Mapping[str, str] = field(default_factory=dict)
    backlog: int = 0

    def to_json(self) -> str:
        """Return the ballot as one line of JSON, the same for the same ballot."""
        return json.dumps({"sick": self.sick, "backlog": self.backlog}, separators=(",", ":"), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Ballot":
        """Read what `to_json` wrote, and what a newer version may have added. Raises StoreError if it is no ballot."""
        try:
            fields = json.loads(text)
            return Ballot(dict(fields["sick"]), int(fields["backlog"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"no ballot: {error}") from error


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a replica learns: the store's time, the records in force, and every live replica's ballot, its own included.

    `vitals` is what was read last, if anything; if `vitals_due`, it is this replica's turn to read them for all.
    """

    now_ms: int
    records: Mapping[str, BreakerRecord]
    ballots: Mapping[str, Ballot]
    vitals: Vitals | None = None
    vitals_due: bool = False


@dataclass(frozen=True, slots=True)
class Proposal:
    """A record for the whole or a campaign, the epoch it was built on, and why, for the history.

    Without a record the campaign's is to be forgotten.
    """

    campaign_id: str
    built_on: int
    record: BreakerRecord | None
    entry: Mapping[str, Any]


class SharedBreakerState:
    """The breakers' records in the store.

    A call ends within CALL_TIMEOUT_S. Clients must not retry by themselves. `clock` is the scripts' fragment.
    """

    def __init__(self, commands: Redis, subscription: Redis | None = None, clock: str = STORE_CLOCK) -> None:
        self._scripts = Scripts(commands, clock)
        self._subscription = subscription or commands

    async def pulse(self, replica_id: str, ballot: Ballot, vitals: Vitals | None = None) -> Pulse:
        """Leave this replica's ballot, and the vital signs it has read, and return what is in force.

        Raises StoreError.
        """
        now_ms, vitals_due, signs, state, ballots = await self._run(
            "breaker_pulse",
            [keys.BREAKER_STATE, keys.BREAKER_BALLOTS, keys.BREAKER_VITALS],
            *(replica_id, ballot.to_json(), BALLOT_RENEWED_AFTER_MS, BALLOT_SILENT_AFTER_MS),
            *(vitals.to_json() if vitals else "", VITALS_DUE_AFTER_MS),
        )
        return Pulse(
            int(now_ms),
            _records(_pairs(state)),
            {replica: Ballot.from_json(cast) for replica, cast in _pairs(ballots).items()},
            Vitals.from_json(_text(signs)),
            vitals_due == 1,
        )

    async def change(self, proposal: Proposal) -> BreakerRecord:
        """Put the proposal in force unless another came first, and return the record in force, whoever's it is.

        Raises TooManyBreakers and StoreError; after a StoreTimeout nobody knows whose it is.
        """
        campaign_id, record = proposal.campaign_id, proposal.record
        text = record.to_json() if record else ""
        word, in_force = await self._run(
            "breaker_change",
            [keys.BREAKER_STATE, keys.BREAKER_EVENTS],
            *(f":{campaign_id}" if campaign_id else "", proposal.built_on, record.epoch if record else 0, text),
            *(CAMPAIGNS_CHANNEL, f"{campaign_id} {text}") if campaign_id else (CHANNEL, text),
            *(json.dumps(proposal.entry, separators=(",", ":")), MOST_ENTRIES, 2 * (MOST_CAMPAIGNS + 1)),
        )
        if word == b"full":
            raise TooManyBreakers(f"{MOST_CAMPAIGNS} campaigns have a breaker of their own, and no more may")
        return _record(_text(in_force))

    async def follow(self, heard: OnRecord) -> None:
        """Call `heard` with every record put in force from now on, until the link breaks: then raise StoreError.

        A link that says nothing is asked, so that one that died silently is noticed.
        """
        with store_errors():
            async with self._subscription.pubsub() as subscriber:
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
                    await subscriber.subscribe(CHANNEL, CAMPAIGNS_CHANNEL)
                _end_if_cancelled()
                asked = False
                while True:
                    message = await subscriber.get_message(timeout=LINK_CHECKED_AFTER_S)
                    _end_if_cancelled()
                    if message is None and asked:
                        raise StoreUnreachable(f"the link has not answered for {LINK_CHECKED_AFTER_S} s")
                    if message is None:
                        await subscriber.ping()
                    elif message["type"] == "message":
                        _tell(heard, _text(message["channel"]), _text(message["data"]))
                    asked = message is None

    async def _run(self, name: str, keys: list[str], *arguments: str | int) -> list[Any]:
        _end_if_cancelled()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                answer: list[Any] = await self._scripts.run(name, keys, *arguments)
        except TimeoutError as error:
            raise StoreTimeout(f"no answer in {CALL_TIMEOUT_S} s") from error
        return answer


def _tell(heard: OnRecord, channel: str, text: str) -> None:
    campaign_id, _, record = text.partition(" ") if channel == CAMPAIGNS_CHANNEL else (WHOLE, "", text)
    heard(campaign_id, _record(record))


def _end_if_cancelled() -> None:
    # Before Python 3.12 asyncio.wait_for, with which redis-py sends, may swallow a cancellation.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _records(fields: Mapping[str, str]) -> dict[str, BreakerRecord]:
    """The records by campaign, out of fields such as `record` and `record:spring`."""
    split = ((name.partition(":"), text) for name, text in fields.items())
    return {campaign_id: _record(text) for (kind, _, campaign_id), text in split if kind == "record"}


def _record(text: str) -> BreakerRecord:
    if not text:
        return NEVER_CHANGED
    try:
        return BreakerRecord.from_json(text)
    except ValueError as error:
        raise StoreError(str(error)) from error


def _pairs(flat: list[Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _text(item: Any) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)
