"""Why: overload is rehearsed where it may break: two API processes, one for redemption only, a store of their own."""

import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Final

import httpx

from loadtest.bench.processes import Cores, free_port, plain_environment, running, wait_until_ready
from loadtest.bench.store_room import store_room
from loadtest.bench.stores import Store
from loadtest.bench.systems import System, Tidegate
from loadtest.bench.tally import tidegate_tally
from loadtest.overload.store import UnsteadyStore
from service.cli.failures import CommandError, ExitCode
from service.cli.remote import Remote
from service.domain.breaker import Mode

ISSUING: Final = 2
CALL_TIMEOUT_S: Final = 10.0
ISSUING_TIMEOUT_S: Final = 120.0
ISSUING_POLL_S: Final = 0.2
BYTES_A_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Api:
    """One API process."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def memory_mib(self) -> float:
        """The memory that it has resident."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / BYTES_A_MIB


class Site:
    """A Tidegate to overload: `issuing` processes serve everything, `redeeming` redemption only."""

    def __init__(
        self, folder: Path, cores: Cores, store: UnsteadyStore, issuing: Sequence[Api], redeeming: Api, secret: str
    ) -> None:
        self._folder = folder
        self._secret = secret
        self._codes: Counter[str] = Counter()
        self._next_user = 0
        self.cores = cores
        self.store = store
        self.issuing = issuing
        self.redeeming = redeeming
        self.remote = Remote(issuing[0].url, None)
        self._operator = httpx.Client(base_url=issuing[0].url, timeout=CALL_TIMEOUT_S, trust_env=False)

    @property
    def ports(self) -> tuple[int, ...]:
        """Where coupons are issued."""
        return tuple(api.port for api in self.issuing)

    @property
    def service(self) -> Tidegate:
        """The first process and the store, as the bench's rooms know them."""
        first, store = self.issuing[0], self.store.now
        tally = partial(tidegate_tally, self.remote, f"{first.url}/metrics", store.client)
        return Tidegate(first.url, System(first.port, first.pid, store, tally), store, self.remote, self._secret)

    def new_users(self, number: int) -> int:
        """The first of so many users whom nobody has seen yet."""
        self._next_user += number
        return self._next_user - number

    def new_codes(self, campaign_id: str, number: int) -> Path:
        """A file of so many codes that nobody has redeemed yet."""
        with store_room(self.service) as room:
            room.issue(campaign_id, self._codes[campaign_id], number)
            codes = room.codes(campaign_id, self._codes[campaign_id], number)
        file = self._folder / f"{campaign_id}-{self._codes[campaign_id]}"
        file.write_text("\n".join(codes))
        self._codes[campaign_id] += number
        return file

    def reopen(self) -> None:
        """Return when every process issues. Raises CommandError if one never does, or httpx.HTTPError."""
        # Closed by hand it needs no ramp to open again, unless a process is sick by itself.
        self.override(Mode.FORCED_CLOSED)
        self.override(Mode.AUTO)
        deadline_s = time.monotonic() + ISSUING_TIMEOUT_S
        while any(Remote(api.url, None).get("/v1/status")["issuance"] != "issuing" for api in self.issuing):
            if time.monotonic() > deadline_s:
                raise CommandError("the breaker does not close any more", ExitCode.REFUSED)
            time.sleep(ISSUING_POLL_S)

    def override(self, mode: Mode, ttl_s: int | None = None) -> None:
        """Say the operator's word. Raises httpx.HTTPError."""
        body = {"mode": mode, "reason": "rehearsal"} | ({} if ttl_s is None else {"ttl_s": ttl_s})
        self._operator.put("/v1/breaker", json=body).raise_for_status()


@contextmanager
def open_site(folder: Path, cores: Cores) -> Iterator[Site]:
    """Everything at work, gone when the block ends. Raises CommandError."""
    secret = secrets.token_hex(32)
    with ExitStack() as parts:
        store = UnsteadyStore(folder, cores)
        parts.callback(store.close)
        start = partial(_start, parts, folder, store.now, secret)
        # As with `tidegate up`, whoever issues is told that there is a process for redemption.
        issue = partial(start, cores.service, TIDEGATE_REDEEM_WORKERS="1")
        starting = [issue(f"api-{number}") for number in range(ISSUING)]
        starting.append(start(cores.load, "redeem", TIDEGATE_SERVE_ONLY="redeem"))
        for api, process, said in starting:
            wait_until_ready("an API process", process, said, partial(_is_ready, f"{api.url}/readyz"))
        *issuing, redeeming = (api for api, _, _ in starting)
        yield Site(folder, cores, store, issuing, redeeming, secret)


def _start(
    parts: ExitStack, folder: Path, store: Store, secret: str, core: int, name: str, **variables: str
) -> tuple[Api, Popen[bytes], Path]:
    port, said = free_port(), folder / f"{name}.said"
    environment = plain_environment(
        TIDEGATE_STORE_URL=store.url,
        TIDEGATE_CODE_SECRET=secret,
        TIDEGATE_PORT=str(port),
        TIDEGATE_DATA_DIR=str(folder / "data"),
        TIDEGATE_LOG_LEVEL="warning",
        **variables,
    )
    process = parts.enter_context(running((sys.executable, "-m", "service.api"), core, said, environment))
    return Api(port, process.pid), process, said


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1, trust_env=False).is_success
    except httpx.HTTPError:
        return False
