"""Act: the operator's word, and how long it takes until every process acts by it."""

import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Final

from loadtest.bench.figures import Bound
from loadtest.overload.findings import Finding
from loadtest.overload.site import Site
from service.domain.breaker import Mode

CHANGES: Final = 20
PATIENCE_S: Final = 2.0
POLL_S: Final = 0.002
UNREAD: Final = "/v1/campaigns/overload-nobody/coupons"
"""While paused this is refused with a 503 before it is read, else for its missing key: nothing else is asked."""


def rehearse(site: Site) -> Iterator[Finding]:
    """Force the breaker open and closed in turn, and ask every process whether it acts by it."""
    times_ms = [_change_ms(site, number % 2 == 0) for number in range(CHANGES)]
    seen = [time_ms for time_ms in times_ms if time_ms is not None]
    slowest = max(seen) if len(seen) == CHANGES else None
    how = f"the slowest of {CHANGES} changes, from the operator's call to the last of {len(site.issuing)} processes"
    yield Finding("An operator's change holds in every process", Bound(50, "ms"), slowest, how)


def _change_ms(site: Site, paused: bool) -> float | None:
    """How long after the operator's call the last process acted by it; None if one did not."""
    acted_s: list[float] = []
    connections = [HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S) for port in site.ports]
    for connection in connections:
        connection.connect()
    began_s = time.monotonic()
    threads = [threading.Thread(target=_wait, args=(one, paused, began_s, acted_s)) for one in connections]
    for thread in threads:
        thread.start()
    site.override(Mode.FORCED_OPEN if paused else Mode.FORCED_CLOSED)
    for thread in threads:
        thread.join()
    return (max(acted_s) - began_s) * 1000 if len(acted_s) == len(connections) else None


def _wait(connection: HTTPConnection, paused: bool, began_s: float, acted_s: list[float]) -> None:
    while time.monotonic() < began_s + PATIENCE_S:
        connection.request("POST", UNREAD, "{}")
        answer = connection.getresponse()
        answer.read()
        if (answer.status == 503) is paused:
            acted_s.append(time.monotonic())
            break
        time.sleep(POLL_S)
    connection.close()
