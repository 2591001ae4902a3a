"""Why: every load needs its people, its campaign, and the one outcome that they all should have; they stand here."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import httpx

from loadtest.bench import people
from loadtest.bench.campaigns import open_baseline_campaign, open_campaign
from loadtest.bench.pace import ask_at_pace
from loadtest.bench.samples import Load
from loadtest.bench.store_room import StoreRoom
from loadtest.bench.systems import System, Tidegate
from service.cli.failures import CommandError, ExitCode

MOST_A_SECOND: Final = 80_000
"""More than any system here answers, so that no run uses up the users and codes that were set aside for it."""
SERVED: Final = 2_000
"""Users who have a coupon from the beginning, and ask again."""
SERVED_A_SECOND: Final = 2_000
SERVING_CONNECTIONS: Final = 16
MOST_SERVINGS: Final = 3
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
        for campaign_id in (ISSUING, REDEEMING):
            open_campaign(service.remote, campaign_id)
        open_campaign(service.remote, SOLD_OUT, max_coupons=1)
        open_campaign(service.remote, RATE_LIMITED, issue_rate={"per_second": 0.001, "burst": 1})
        for load in (Load.PLAIN_FASTAPI, Load.NGINX):
            if load in systems and (store := systems[load].store):
                open_baseline_campaign(store.client, ISSUING)
        for campaign_id, users in ((ISSUING, SERVED), (SOLD_OUT, 1), (RATE_LIMITED, 1)):
            self._serve(campaign_id, users)

    def wishes(self, load: Load, seconds: int) -> tuple[str, ...]:
        """What the people ask for in a run that is that long; no user or code comes twice unless that is the load."""
        most = MOST_A_SECOND * seconds
        campaign_id = KINDS[load].campaign_id
        match load:
            case Load.REDEEM:
                first, self._next_code = self._next_code, self._next_code + most
                self._room.issue(campaign_id, first, most)
                self._code_file.write_text("".join(f"{code}\n" for code in self._room.codes(campaign_id, first, most)))
                return people.redeem(self._code_file, f"order-{first}-")
            case Load.REPLAY:
                return people.issue(campaign_id, 0, SERVED, "key-")
            case Load.PER_USER_LIMIT:
                return people.issue(campaign_id, 0, SERVED, "another-key-")
            case _:
                return people.issue(campaign_id, self._new_users(most), most, "key-")

    def requests(self, users: int) -> Iterator[bytes]:
        """Issue requests of that many new users."""
        return self._requests(ISSUING, self._new_users(users))

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

    def _serve(self, campaign_id: str, users: int) -> None:
        """Everybody asks again if somebody got none: on a busy machine the breaker may pause in the midst of it."""
        port, seconds = self._service.system.port, users / SERVED_A_SECOND
        for _ in range(MOST_SERVINGS):
            self.wait_until_issuing()
            requests = self._requests(campaign_id, 0)
            answers, _ = ask_at_pace(port, requests, SERVING_CONNECTIONS, SERVED_A_SECOND, seconds)
            unserved = users - answers.requests + answers.refused
            if not unserved:
                return
        raise CommandError(f"{unserved} users got no coupon", ExitCode.REFUSED)

    def _requests(self, campaign_id: str, first_user: int) -> Iterator[bytes]:
        for number in count(first_user):
            body = b'{"user_id":"%08d"}' % number
            yield (
                b"POST /v1/campaigns/%b/coupons HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Idempotency-Key: key-%08d\r\nContent-Length: %d\r\n\r\n%b"
                % (campaign_id.encode(), number, len(body), body)
            )
