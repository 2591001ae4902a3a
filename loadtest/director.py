"""Why: while customers come, somebody runs the campaign as an operator would: pauses, resumes, extends, watches."""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest import incident
from loadtest.crowd import Crowd
from loadtest.evidence import Evidence, Extension, Pause, Promise, Stand
from loadtest.messages import Task, Verb
from loadtest.plan import Order, Plan
from service.cli.failures import CommandError
from service.cli.remote import Remote

ALLOWANCE_S: Final = 60.0
"""How long after the last order customers may still come back; then the rehearsal stops and says so."""
WATCH_S: Final = 0.5
POLL_S: Final = 0.05
FIRST_LOOKS: Final = 20
EXTENSION_TIMEOUT_S: Final = 120.0
METRICS_TIMEOUT_S: Final = 5.0
STATES: Final = ("outstanding", "reserved", "redeemed", "expired", "deactivated")
SETTLED: Final = ("completed", "failed")

Progress = Callable[[float, int], None]
"""Told seconds since the beginning and coupons issued."""


class Director:
    """One rehearsal against the service at `url`."""

    def __init__(self, plan: Plan, url: str, api_key: str | None, progress: Progress) -> None:
        self._plan = plan
        self._url = url
        self._api_key = api_key
        self._service = Remote(url, api_key)
        self._progress = progress
        token = secrets.token_hex(4)
        self._campaign_id = f"rehearsal-{token}"
        self._code_prefix = f"R{token[:7].upper()}"
        self._path = f"/v1/campaigns/{self._campaign_id}"
        self._conservation_errors: list[int] = []
        self._issuance: list[Stand] = []
        self._watched_s = float("-inf")

    def rehearse(self, orders: list[Order]) -> Evidence:
        """Play the plan and return what was seen. Raises CommandError if the service or the customers fail to."""
        launch = datetime.now(UTC)
        campaign = self._plan.campaign(self._campaign_id, self._code_prefix, launch)
        self._service.post("/v1/campaigns", campaign)
        try:
            self._command("start")
            instructions = Task(
                self._plan, self._url, self._campaign_id, self._plan.into_s + ALLOWANCE_S, self._api_key
            ).to_line()
            with Crowd(instructions) as crowd:
                pause = self._pause_and_resume(crowd)
                extension = self._extend(crowd, orders, launch)
                self._watch_while(crowd, crowd.is_busy)
                left = crowd.finish()
            return Evidence(
                demanded=self._plan.orders,
                left=left,
                answers=crowd.answers(),
                promise=Promise(
                    max_coupons=campaign["max_coupons"],
                    max_coupons_per_user=campaign["max_coupons_per_user"],
                    budget=campaign["budget"]["amount"],
                    coupon_amount=campaign["benefit"]["amount"],
                ),
                counters=self._count(),
                conservation_errors=tuple(self._conservation_errors),
                conservation_metric=self._conservation_metric(),
                issuance=tuple(self._issuance),
                pause=pause,
                extension=self._written_through(extension),
            )
        finally:
            # Good manners towards a running service; one that is gone needs none.
            with suppress(CommandError):
                self._command("stop")

    def _pause_and_resume(self, crowd: Crowd) -> Pause:
        pause_s, resume_s = self._plan.pause_s
        self._watch_until(crowd, pause_s)
        self._command("pause")
        confirmed_s = crowd.now_s()
        self._watch_until(crowd, resume_s)
        lifted_s = crowd.now_s()
        self._command("resume")
        return Pause(confirmed_s, lifted_s)

    def _extend(self, crowd: Crowd, orders: list[Order], launch: datetime) -> Extension:
        self._watch_until(crowd, self._plan.extension_s)
        issued = [answer for answer in crowd.answers() if answer.verb is Verb.ISSUE and answer.granted]
        kept = [answer.code for answer in issued if orders[answer.order].redeem_s is None][:FIRST_LOOKS]
        expires_at = incident.last_valid_second(incident.EXTENDED_LAST_DAY, launch).isoformat()
        body = {"expires_at": expires_at, "reason": "too many participants right now"}
        made = self._service.post(f"{self._path}/extensions", body)
        return Extension(
            id=made["id"],
            accepted_s=crowd.now_s(),
            expires_at=expires_at,
            first_looks=tuple(self._service.get(f"/v1/coupons/{code}")["expires_at"] for code in kept),
            status=made["status"],
            total=made["total"],
            changed=made["changed"],
        )

    def _written_through(self, extension: Extension) -> Extension:
        deadline_s = time.monotonic() + EXTENSION_TIMEOUT_S
        while extension.status not in SETTLED and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
            seen = self._service.get(f"/v1/extensions/{extension.id}")
            extension = replace(extension, status=seen["status"], total=seen["total"], changed=seen["changed"])
        return extension

    def _watch_until(self, crowd: Crowd, at_s: float) -> None:
        self._watch_while(crowd, lambda: crowd.is_busy() and crowd.now_s() < at_s)

    def _watch_while(self, crowd: Crowd, goes_on: Callable[[], bool]) -> None:
        while goes_on():
            if crowd.now_s() - self._watched_s >= WATCH_S:
                self._watched_s = crowd.now_s()
                # A look that finds the service busy says nothing about its ledger; the last look must succeed.
                with suppress(CommandError):
                    self._look_at_issuance(crowd.now_s())
                    self._progress(crowd.now_s(), self._count()["issued"])
            time.sleep(POLL_S)

    def _look_at_issuance(self, now_s: float) -> None:
        told = self._service.get(f"/v1/status?campaign_id={self._campaign_id}")
        if not self._issuance or self._issuance[-1][1:] != (told["issuance"], told["reason"]):
            self._issuance.append(Stand(now_s, told["issuance"], told["reason"]))

    def _count(self) -> dict[str, int]:
        counters: dict[str, int] = self._service.get(self._path)["counters"]
        self._conservation_errors.append(counters["issued"] - sum(counters[state] for state in STATES))
        return counters

    def _conservation_metric(self) -> float | None:
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        answer = httpx.get(f"{self._url}/metrics", headers=headers, timeout=METRICS_TIMEOUT_S, trust_env=False)
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                is_ours = sample.labels.get("campaign") == self._campaign_id
                if sample.name == "tidegate_coupon_conservation_error" and is_ours:
                    return float(sample.value)
        return None

    def _command(self, verb: str) -> None:
        self._service.post(f"{self._path}/{verb}", {"reason": "rehearsal"})
