"""Why: the store tests are worth nothing without the real server, started, killed and restarted as it is in earnest."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.store.embedded import EmbeddedStore

PATIENCE_S: Final = 10.0
POLL_S: Final = 0.01


class StoreServer:
    """One server on one folder: the embedded Valkey, or `program` with the very same configuration."""

    def __init__(self, folder: Path, program: str | None = None) -> None:
        self._program = program
        self._socket = folder / "socket" / "s"
        self._store = EmbeddedStore(folder / "data", self._socket)
        self.url = f"unix://{self._socket}"

    def start(self) -> None:
        """Start the server and wait until it has read its data."""
        self._store.prepare()
        valkey, configuration = self._store.command
        self._process = subprocess.Popen([self._program or valkey, configuration], pass_fds=self._store.inherited)
        deadline = time.monotonic() + PATIENCE_S
        while self._store.loaded_percent() != 100:
            assert self._process.poll() is None, self._store.last_words()
            assert time.monotonic() < deadline, "the store did not start in time"
            time.sleep(POLL_S)

    def kill(self) -> None:
        """End the server as a power cut would."""
        self._process.kill()
        self._process.wait()
        self._store.release()


@contextmanager
def running_store(program: str | None = None) -> Iterator[StoreServer]:
    """A server for as long as the block lasts, in a folder whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        server = StoreServer(Path(folder), program)
        server.start()
        try:
            yield server
        finally:
            server.kill()
