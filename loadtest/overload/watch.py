"""Why: what every process says of issuance, and how much memory it takes, is noted from outside while things happen."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from itertools import groupby
from typing import Final

from loadtest.overload.site import Api, Site
from service.cli.failures import CommandError, ExitCode

POLL_S: Final = 0.02
CALL_TIMEOUT_S: Final = 2.0
FIRST_WORD_S: Final = 30.0


class Watch:
    """Notes by process what it said, and when; times are the machine's monotonic seconds."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.said: dict[int, list[tuple[float, str]]] = defaultdict(list)
        self.memory_mib: dict[int, list[float]] = defaultdict(list)

    def follow(self, api: Api) -> None:
        """Ask one process over and over until stopped."""
        connection = HTTPConnection("127.0.0.1", api.port, timeout=CALL_TIMEOUT_S)
        while not self.stopped.wait(POLL_S):
            try:
                connection.request("GET", "/v1/status")
                issuance = json.loads(connection.getresponse().read())["issuance"]
            except (OSError, HTTPException, ValueError):
                connection.close()
                continue
            self.said[api.port].append((time.monotonic(), issuance))
            self.memory_mib[api.port].append(api.memory_mib())
        connection.close()

    def all_say(self, issuance: str) -> bool:
        """Whether that is the last that each process said."""
        return all(words and words[-1][1] == issuance for words in self.said.values())

    def first_ms(self, issuance: str, after_s: float) -> float | None:
        """How long after a moment the last of the processes said so first; None where one never did."""
        firsts = [
            next((at_s for at_s, said in words if at_s >= after_s and said == issuance), None)
            for words in self.said.values()
        ]
        known = [first for first in firsts if first is not None]
        return (max(known) - after_s) * 1000 if len(known) == len(firsts) else None

    def most_pauses(self, after_s: float) -> int:
        """How often the process that paused most often did so after a moment."""
        return max(
            sum(said == "paused" for said, _ in groupby(said for at_s, said in words if at_s >= after_s))
            for words in self.said.values()
        )

    def growth_mib(self) -> float:
        """How much more memory a process took at its most than in the beginning."""
        return max(max(taken) - taken[0] for taken in self.memory_mib.values())


@contextmanager
def watching(site: Site) -> Iterator[Watch]:
    """Watch the processes that issue while the block lasts. Raises CommandError if one says nothing."""
    watch = Watch()
    threads = [threading.Thread(target=watch.follow, args=(api,), daemon=True) for api in site.issuing]
    for thread in threads:
        thread.start()
    try:
        deadline_s = time.monotonic() + FIRST_WORD_S
        while len(watch.said) < len(threads):
            if time.monotonic() > deadline_s:
                raise CommandError("a process does not say whether it issues", ExitCode.UNREACHABLE)
            time.sleep(POLL_S)
        yield watch
    finally:
        watch.stopped.set()
        for thread in threads:
            thread.join()
