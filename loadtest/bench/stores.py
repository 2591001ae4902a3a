"""Why: all that is compared keeps its coupons in the same kind of store: Tidegate's own, every write on disk first."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis import Redis

from loadtest.bench.processes import Cores, plain_environment, running, wait_until_ready
from service.cli.failures import CommandError, ExitCode
from service.cli.processes import POLL_S
from service.store.embedded import EmbeddedStore, EmbeddedStoreError

CALL_TIMEOUT_S: Final = 30.0
REWRITES: Final = "auto-aof-rewrite-percentage"
REWRITE_TIMEOUT_S: Final = 300.0
REWRITE_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Store:
    """A running Valkey."""

    socket: Path
    pid: int
    client: Redis

    @property
    def url(self) -> str:
        """How to connect."""
        return f"unix://{self.socket}"

    def script_calls(self) -> int:
        """How many scripts it has run."""
        calls = self.client.info("commandstats")
        return sum(int(calls[name]["calls"]) for name in ("cmdstat_eval", "cmdstat_evalsha") if name in calls)

    def calls(self) -> int:
        """How many commands all who are connected now, but this bench, have sent since they connected."""
        own_id = self.client.client_id()
        clients = self.client.client_list()
        return sum(int(client["tot-cmds"]) for client in clients if int(client["id"]) != own_id)

    def cpu_us(self) -> float:
        """The CPU time that it has taken, in microseconds, by its own account."""
        used = self.client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6

    @contextmanager
    def without_rewrites(self) -> Iterator[None]:
        """Let no rewrite of the log fall on a run by chance: it is due at a size, and so mostly in the same one.

        Raises CommandError.
        """
        percentage = self.client.config_get(REWRITES)[REWRITES] or 0
        self.client.config_set(REWRITES, 0)
        try:
            self.await_rewrite()
            yield
        finally:
            self.client.config_set(REWRITES, percentage)

    def await_rewrite(self) -> None:
        """Wait until the log is not being rewritten. Raises CommandError."""
        deadline_s = time.monotonic() + REWRITE_TIMEOUT_S
        while self.client.info("persistence")["aof_rewrite_in_progress"]:
            if time.monotonic() > deadline_s:
                raise CommandError("the store does not finish rewriting its log", ExitCode.REFUSED)
            time.sleep(REWRITE_POLL_S)

    def memory_bytes(self) -> int:
        """The memory that it has allocated, all in."""
        return int(self.client.info("memory")["used_memory"])

    def resident_bytes(self) -> int:
        """The memory that the system has given it."""
        return int(self.client.info("memory")["used_memory_rss"])


@contextmanager
def running_store(folder: Path, cores: Cores) -> Iterator[Store]:
    """Run a store with data of its own in `folder`. Raises CommandError."""
    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "store.sock"
    store = EmbeddedStore(folder / "store", socket)
    try:
        store.prepare()
        command = store.command
    except EmbeddedStoreError as error:
        raise CommandError(str(error), ExitCode.REFUSED) from error
    said = folder / "store.said"
    try:
        environment = store.environment(plain_environment())
        with running(command, cores.load, said, environment, store.inherited) as process:
            wait_until_ready("the store", process, said, lambda: store.loaded_percent() == 100)
            with (
                Redis(unix_socket_path=str(socket), socket_timeout=CALL_TIMEOUT_S, decode_responses=True) as client,
                _tended(store),
            ):
                yield Store(socket, process.pid, client)
    finally:
        store.release()


@contextmanager
def _tended(store: EmbeddedStore) -> Iterator[None]:
    """Do for the store, beside what is measured, what `tidegate up` does."""
    over = threading.Event()

    def tend() -> None:
        while not over.wait(POLL_S):
            store.tend()

    tending = threading.Thread(target=tend)
    tending.start()
    try:
        yield
    finally:
        over.set()
        tending.join()
