"""Why: a Cluster fails in its own ways, so what Tidegate promises on one is tried on a real one: of a single server."""

import subprocess
import time
from pathlib import Path
from typing import Final

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from service.store.embedded import EmbeddedStore
from tests.story.running import free_port

PATIENCE_S: Final = 10.0
POLL_S: Final = 0.02


class ClusterServer:
    """A server that is a whole Cluster by itself, ready when it is made."""

    def __init__(self, folder: Path) -> None:
        program, _ = EmbeddedStore(folder, folder / "socket").command
        port, bus_port = free_port(), str(free_port())
        options = ["--port", str(port), "--cluster-enabled", "yes", "--cluster-port", bus_port, "--dir", str(folder)]
        self.address = f"127.0.0.1:{port}"
        self._process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        with Redis(port=port, retry=Retry(ConstantBackoff(POLL_S), round(PATIENCE_S / POLL_S))) as server:
            server.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            deadline = time.monotonic() + PATIENCE_S
            while server.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline, "the Cluster did not get ready in time"
                time.sleep(POLL_S)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()
