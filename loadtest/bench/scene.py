"""Why: every load needs its people, its campaign, and the one outcome that they all should have; they stand here."""

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from loadtest.bench import people
from loadtest.bench.campaigns import NO_LIMIT, open_baseline_campaign, open_campaign
from loadtest.bench.samples import REFUSALS, Load
from loadtest.bench.store_room import KEY, StoreRoom
from loadtest.bench.systems import System, Tidegate
from service.cli.failures import CommandError, ExitCode

MOST_A_SECOND: Final = 80_000
"""More than any system here answers, so that no run uses up the users and codes that were set aside for it."""
SERVED: Final = 300_000
"""Users who have a coupon of a campaign from the beginning: what they ask again for is in no cache by chance."""
CALL_TIMEOUT_S: Final = 10.0
ISSUING_TIMEOUT_S: Final = 120.0
ISSUING_POLL_S: Final = 0.2

ISSUING: Final = "bench-issue"
REDEEMING: Final = "bench-redeem"
SOLD_OUT: Final = "bench-sold-out"
RATE_LIMITED: Final = "bench-rate-limited"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a load asks of which campaign, and the outcome of all its requests."""

    outcome: str
    campaign_id: str = ISSUING


KINDS: Final[Mapping[Load, Kind]] = {
    Load.ISSUE: Kind("issued"),
    Load.PLAIN_FASTAPI: Kind("issued"),
    Load.NGINX: Kind("issued"),
    Load.BARE: Kind("issued"),
    Load.REDEEM: Kind("redeemed", REDEEMING),
    Load.REPLAY: Kind("replayed"),
    Load.REPLAY_TOGETHER: Kind("replayed"),
    Load.SOLD_OUT: Kind("sold_out", SOLD_OUT),
    Load.PER_USER_LIMIT: Kind("per_user_limit"),
    Load.RATE_LIMITED: Kind("rate_limited", RATE_LIMITED),
    Load.PAUSED: Kind("issuance_paused"),
}


class Scene:
    """The campaigns, opened when it is made, and who comes next. Its methods raise CommandError or httpx.HTTPError."""

    def __init__(self, service: Tidegate, systems: Mapping[Load, System], room: StoreRoom, folder: Path) -> None:
        self._service = service
        self._room = room
        self._code_file = folder / "codes"
        self._next_user = SERVED
        self._next_code = 0
        open_campaign(service.remote, ISSUING)
        open_campaign(service.remote, REDEEMING, merchant_rate=NO_LIMIT)
        open_campaign(service.remote, SOLD_OUT, max_coupons=SERVED)
        open_campaign(service.remote, RATE_LIMITED, issue_rate={"per_second": 0.001, "burst": SERVED})
        for load in (Load.PLAIN_FASTAPI, Load.NGINX):
            if load in systems and (store := systems[load].store):
                open_baseline_campaign(store.client, ISSUING)
        for campaign_id in {KINDS[load].campaign_id for load in systems.keys() & REFUSALS}:
            room.issue(campaign_id, 0, SERVED)

    def wishes(self, load: Load, seconds: int) -> tuple[str, ...]:
        """What the people ask for in a run that is that long; no user or code comes twice unless that is the load."""
        most = MOST_A_SECOND * seconds
        campaign_id = KINDS[load].campaign_id
        match load:
            case Load.REDEEM:
                first, self._next_code = self._next_code, self._next_code + most
                self._room.issue(campaign_id, first, most)
                codes = self._room.codes(campaign_id, first, most)
                # Nobody redeems in the order in which he and others got their coupons.
                random.Random(first).shuffle(codes)
                self._code_file.write_text("".join(f"{code}\n" for code in codes))
                return people.redeem(self._code_file, f"order-{first}-")
            case Load.REPLAY:
                return people.issue_again(campaign_id, SERVED, KEY)
            case Load.REPLAY_TOGETHER:
                # Whoever lost an answer to a broken connection or a pause lost it with his neighbours.
                return people.issue(campaign_id, 0, SERVED, KEY)
            case Load.PER_USER_LIMIT:
                return people.issue_again(campaign_id, SERVED, f"another-{KEY}")
            case _:
                return people.issue(campaign_id, self._new_users(most), most, KEY)

    def requests(self, users: int) -> Iterator[bytes]:
        """Issue requests of that many new users."""
        for number in range(first := self._new_users(users), first + users):
            body = b'{"user_id":"%08d"}' % number
            yield (
                b"POST /v1/campaigns/%b/coupons HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Idempotency-Key: %b%08d\r\nContent-Length: %d\r\n\r\n%b"
                % (ISSUING.encode(), KEY.encode(), number, len(body), body)
            )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the breaker open."""
        self._override("forced_open")
        try:
            yield
        finally:
            # Closed by hand it needs no ramp to open again.
            self._override("forced_closed")
            self._override("auto")

    def wait_until_issuing(self) -> None:
        """Return when the breaker is closed: it may have paused issuance by itself. Raises CommandError."""
        deadline_s = time.monotonic() + ISSUING_TIMEOUT_S
        while not self._is_issuing():
            if time.monotonic() > deadline_s:
                raise CommandError("the breaker does not close any more", ExitCode.REFUSED)
            time.sleep(ISSUING_POLL_S)

    def _is_issuing(self) -> bool:
        return bool(self._service.remote.get("/v1/status")["issuance"] == "issuing")

    def _override(self, mode: str) -> None:
        url = f"{self._service.url}/v1/breaker"
        body = {"mode": mode, "reason": "bench"}
        httpx.put(url, json=body, timeout=CALL_TIMEOUT_S, trust_env=False).raise_for_status()

    def _new_users(self, users: int) -> int:
        self._next_user += users
        return self._next_user - users
