"""Why: Locust plays the customers. It patches the standard library for gevent, so it has a process to itself.

Run as `python -m loadtest.customers`: one line of JSON on stdin says what to do, answers go to stdout, one a line.
Customers do not loop as fast as they can. Whoever is free takes the next errand that is due, so the service meets the
curve's rate, however slowly it answers; a customer who is asked to come back does so when told.
"""

# Locust comes first: it patches the standard library before anything else reads it. Threads are greenlets from here on.
from locust import FastHttpUser, LoadTestShape, task  # isort: skip
from locust.contrib.fasthttp import FastResponse  # isort: skip
from locust.env import Environment  # isort: skip

import json
import sys
import threading
import time
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from math import ceil
from queue import Empty, SimpleQueue
from random import uniform
from typing import Any, Final, Literal, assert_never

from loadtest.messages import NO_ANSWER, Answer, Task, Verb
from loadtest.plan import Order, Plan

CALL_TIMEOUT_S: Final = 10.0
HAND_OUT_S: Final = 0.01
IDLE_S: Final = 0.2
MAX_ATTEMPTS: Final = 40
COME_BACK_S: Final = 1.0
LONGEST_RETURN_S: Final = 30.0
LONGEST_RETURN_SHARE: Final = 0.2
"""Time is compressed, and so is patience: nobody stays away for longer than this share of the rehearsal."""
FEWEST_CUSTOMERS: Final = 16
MOST_CUSTOMERS: Final = 128
COMING_PER_SECOND: Final = 100
CUSTOMER_TIME_S: Final = 0.2
"""How long one order may keep a customer before more customers than Locust has at hand would be needed."""
COMES_BACK_AFTER: Final = frozenset({NO_ANSWER, 429, 503})


@dataclass(frozen=True, slots=True)
class Errand:
    """Something a customer wants; `code` is of the coupon to redeem."""

    verb: Literal[Verb.ISSUE, Verb.REDEEM]
    order: Order
    due_s: float
    code: str = ""
    attempts: int = 1


class Agenda:
    """Everything that is still wanted, by the time at which it falls due."""

    def __init__(self, orders: list[Order], deadline_s: float) -> None:
        self._later: list[tuple[float, int, Errand]] = []
        self._deadline_s = deadline_s
        self._begun_at = time.monotonic()
        self._numbered = 0
        self.open = 0
        self.ready: SimpleQueue[Errand] = SimpleQueue()
        for order in orders:
            self.add(Errand(Verb.ISSUE, order, order.due_s))

    def begin(self) -> float:
        """Start the clock and hand out errands from now on; return the beginning by the machine's monotonic clock."""
        self._begun_at = time.monotonic()
        threading.Thread(target=self._hand_out, daemon=True).start()
        return self._begun_at

    def now_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun_at

    def add(self, errand: Errand) -> None:
        """Put an errand down for its time."""
        self._numbered += 1
        self.open += 1
        heappush(self._later, (errand.due_s, self._numbered, errand))

    def close(self) -> None:
        """Strike one errand off."""
        self.open -= 1

    def is_over(self) -> bool:
        """Whether nothing is wanted any more, or time is up."""
        return self.open == 0 or self.now_s() >= self._deadline_s

    def _hand_out(self) -> None:
        while not self.is_over():
            while self._later and self._later[0][0] <= self.now_s():
                self.ready.put(heappop(self._later)[2])
            time.sleep(HAND_OUT_S)


class Customer(FastHttpUser):
    """One of the people at the gate."""

    network_timeout = CALL_TIMEOUT_S
    connection_timeout = CALL_TIMEOUT_S
    insecure = False
    concurrency = 1
    max_redirects = 0
    agenda: Agenda
    assigned: Task

    @task
    def take_the_next_errand(self) -> None:
        """Do what is due next, if anything is."""
        try:
            errand = self.agenda.ready.get(timeout=IDLE_S)
        except Empty:
            return
        match errand.verb:
            case Verb.ISSUE:
                self._issue(errand)
            case Verb.REDEEM:
                self._redeem(errand)
            case _:
                assert_never(errand.verb)
        self.agenda.close()

    def _issue(self, errand: Errand) -> None:
        order = errand.order
        path = f"/v1/campaigns/{self.assigned.campaign_id}/coupons"
        body = {"user_id": order.user_id}
        key = {"Idempotency-Key": f"{self.assigned.campaign_id}.{order.number}"}
        answer, content = self._ask(errand, Verb.ISSUE, path, body, key)
        if not answer.granted:
            return
        if order.sends_twice:
            self._ask(errand, Verb.ISSUE_AGAIN, path, body, key, first=content)
        if order.looks:
            self._ask(errand, Verb.LOOK, f"/v1/coupons/{answer.code}")
        if order.redeem_s is not None:
            due_s = max(order.redeem_s, self.agenda.now_s())
            self.agenda.add(Errand(Verb.REDEEM, order, due_s, answer.code))

    def _redeem(self, errand: Errand) -> None:
        order = errand.order
        path = f"/v1/coupons/{errand.code}/redemptions"
        body = {"merchant_id": order.merchant_id, "order_id": f"order-{order.number}"}
        answer, content = self._ask(errand, Verb.REDEEM, path, body)
        if answer.granted and order.redeems_twice:
            self._ask(errand, Verb.REDEEM_AGAIN, path, body, first=content)
            self._ask(errand, Verb.REDEEM_ELSEWHERE, path, body | {"order_id": f"second-order-{order.number}"})

    def _ask(
        self,
        errand: Errand,
        verb: Verb,
        path: str,
        body: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        first: bytes | None = None,
    ) -> tuple[Answer, bytes]:
        started_s = self.agenda.now_s()
        method = "GET" if body is None else "POST"
        response = self.client.request(method, path, name=verb.value, json=body, headers=headers)
        content: bytes = response.content or b""
        coupon = _read(content)
        answer = Answer(
            verb=verb,
            order=errand.order.number,
            due_s=errand.due_s,
            started_s=started_s,
            answered_s=self.agenda.now_s(),
            status=response.status_code or NO_ANSWER,
            reason=coupon.get("reason", ""),
            replayed=_header(response, "Idempotency-Replayed") == "true",
            identical=content == first,
            code=coupon.get("code", ""),
            user_id=coupon.get("user_id", ""),
            coupon_status=coupon.get("status", "") if response.status_code == 200 else "",
            expires_at=coupon.get("expires_at") or "",
        )
        sys.stdout.write(answer.to_line() + "\n")
        if verb is errand.verb and answer.status in COMES_BACK_AFTER and errand.attempts < MAX_ATTEMPTS:
            due_s = answer.answered_s + self._stays_away_s(_header(response, "Retry-After"))
            self.agenda.add(replace(errand, due_s=due_s, attempts=errand.attempts + 1))
        return answer, content

    def _stays_away_s(self, retry_after: str) -> float:
        told_s = float(retry_after) if retry_after.isdecimal() else COME_BACK_S
        longest_s = min(LONGEST_RETURN_S, self.assigned.plan.into_s * LONGEST_RETURN_SHARE)
        # Where patience is cut short, the spread that the service gave its answers is given back.
        return told_s if told_s <= longest_s else longest_s * uniform(0.5, 1)


class Demand(LoadTestShape):
    """As many customers at hand as the curve's rate asks for. Nobody is sent home early: to wait costs nothing."""

    def __init__(self, plan: Plan, agenda: Agenda) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Locust has no types here
        self._plan = plan
        self._agenda = agenda
        self._customers = FEWEST_CUSTOMERS

    def tick(self) -> tuple[int, float] | None:
        """Return the number of customers and how many of them may come in a second; None at the end."""
        sys.stdout.flush()
        if self._agenda.is_over():
            return None
        now_s = self._agenda.now_s()
        wanted = self._plan.orders_by(now_s + 1) - self._plan.orders_by(now_s) + self._agenda.ready.qsize()
        self._customers = min(max(self._customers, ceil(wanted * CUSTOMER_TIME_S)), MOST_CUSTOMERS)
        return self._customers, COMING_PER_SECOND


def _header(response: FastResponse, name: str) -> str:
    return str(response.headers.get(name, "")) if response.headers else ""


def _read(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def main() -> None:
    """Play all customers of one rehearsal."""
    assigned = Task.from_line(sys.stdin.readline())
    agenda = Agenda(assigned.plan.make_orders(), assigned.deadline_s)
    Customer.agenda, Customer.assigned, Customer.host = agenda, assigned, assigned.url
    if assigned.api_key:
        Customer.default_headers = {"Authorization": f"Bearer {assigned.api_key}"}
    environment = Environment(
        user_classes=[Customer],
        shape_class=Demand(assigned.plan, agenda),
        stop_timeout=CALL_TIMEOUT_S,
    )
    runner = environment.create_local_runner()
    sys.stdout.write(json.dumps({"begun_at": agenda.begin()}) + "\n")
    runner.start_shape()
    assert runner.shape_greenlet is not None
    runner.shape_greenlet.join()
    runner.quit()
    sys.stdout.write(json.dumps({"left": agenda.open}) + "\n")


if __name__ == "__main__":
    main()
