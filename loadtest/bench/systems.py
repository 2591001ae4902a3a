"""Why: what is compared must differ in its programs only: each has one process, one core, and a store of its own."""

import getpass
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from loadtest.bench.processes import Cores, free_port, plain_environment, running, wait_until_ready
from loadtest.bench.stores import Store, running_store
from loadtest.bench.tally import Tally, baseline_tally, tidegate_tally
from service.cli.remote import Remote

HERE: Final = Path(__file__).parent
CONNECT_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class System:
    """What answers issue requests at `port`; `tally` counts up a campaign, where there is one."""

    port: int
    pid: int
    store: Store | None = None
    tally: Callable[[str], Tally] | None = None


@dataclass(frozen=True, slots=True)
class Tidegate:
    """One API process with the settings it has by default; whoever has the secret can compute its codes."""

    url: str
    system: System
    store: Store
    remote: Remote
    code_secret: str


@contextmanager
def tidegate(folder: Path, cores: Cores) -> Iterator[Tidegate]:
    """Tidegate's API, as `python -m service.api` runs it."""
    secret, port = secrets.token_hex(32), free_port()
    with running_store(folder, cores) as store:
        environment = plain_environment(
            TIDEGATE_STORE_URL=store.url,
            TIDEGATE_CODE_SECRET=secret,
            TIDEGATE_PORT=str(port),
            TIDEGATE_DATA_DIR=str(folder / "data"),
        )
        with _serving("Tidegate", (sys.executable, "-m", "service.api"), port, folder, cores, environment) as process:
            url = f"http://127.0.0.1:{port}"
            remote = Remote(url, None)
            tally = partial(tidegate_tally, remote, f"{url}/metrics", store.client)
            yield Tidegate(url, System(port, process.pid, store, tally), store, remote, secret)


@contextmanager
def plain_fastapi(folder: Path, cores: Cores) -> Iterator[System]:
    """The first baseline."""
    port = free_port()
    command = (
        *(sys.executable, "-m", "uvicorn", "loadtest.bench.plain_fastapi:app", "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
        *("--no-proxy-headers", "--no-server-header"),
    )
    with running_store(folder, cores) as store:
        environment = plain_environment(STORE_URL=store.url)
        with _serving("the FastAPI baseline", command, port, folder, cores, environment) as process:
            yield System(port, process.pid, store, partial(baseline_tally, store.client))


@contextmanager
def nginx(folder: Path, cores: Cores) -> Iterator[System]:
    """The second baseline. Raises CommandError, also where nginx or what it needs is not installed."""
    port = free_port()
    with running_store(folder, cores) as store:
        facts = {
            "folder": folder,
            "handler": HERE / "nginx",
            "port": port,
            "user": getpass.getuser(),
            "store": store.socket,
            "script": HERE / "one_script.lua",
        }
        text = (HERE / "nginx" / "nginx.conf").read_text()
        for name, value in facts.items():
            text = text.replace(f"@{name}@", str(value))
        configuration = folder / "nginx.conf"
        configuration.write_text(text)
        command = ("nginx", "-p", str(folder), "-c", str(configuration))
        with _serving("nginx", command, port, folder, cores, plain_environment()) as process:
            yield System(port, process.pid, store, partial(baseline_tally, store.client))


@contextmanager
def bare(folder: Path, cores: Cores) -> Iterator[System]:
    """The ceiling: an application that does nothing, on Tidegate's server."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = (sys.executable, "-m", "loadtest.bench.bare", str(port))
    with _serving("the bare application", command, port, folder, cores, plain_environment()) as process:
        yield System(port, process.pid)


@contextmanager
def _serving(
    name: str, command: tuple[str, ...], port: int, folder: Path, cores: Cores, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    said = folder / "said"
    with running(command, cores.service, said, environment) as process:
        wait_until_ready(name, process, said, lambda: _accepts(port))
        yield process


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True
