"""Why: all that is compared keeps its coupons in the same kind of store: Tidegate's own, every write on disk first."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis import Redis

from loadtest.bench.processes import Cores, plain_environment, running, wait_until_ready
from service.cli.failures import CommandError, ExitCode
from service.store.embedded import EmbeddedStore, EmbeddedStoreError

CALL_TIMEOUT_S: Final = 30.0


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

    def cpu_us(self) -> float:
        """The CPU time that it has taken, in microseconds, by its own account."""
        used = self.client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6

    def memory_bytes(self) -> int:
        """The memory that it uses, all in."""
        return int(self.client.info("memory")["used_memory"])


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
            with Redis(unix_socket_path=str(socket), socket_timeout=CALL_TIMEOUT_S, decode_responses=True) as client:
                yield Store(socket, process.pid, client)
    finally:
        store.release()
