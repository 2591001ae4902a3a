"""Why: one command brings up a whole Tidegate on one machine: store, API, worker, scheduler, in that order."""

import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

import httpx
import structlog
from rich.console import Console

from service.cli.banner import show_banner
from service.cli.demo import open_demo
from service.cli.failures import CommandError, ExitCode
from service.cli.processes import Part, Supervisor, always
from service.cli.remote import Remote
from service.settings import Settings, variable
from service.store.client import without_credentials
from service.store.embedded import EmbeddedStore

LOAD_TIMEOUT_S: Final = 600.0
"""How long the store may take to read its data: about 1 GB for every 10 s."""
READY_TIMEOUT_S: Final = 1.0
STOP_TIMEOUT_S: Final = 15.0
"""How long a part may take to finish what it has begun: an answer, or one chunk of a job."""

log = structlog.get_logger("tidegate")


def run_everything(settings: Settings, environment: Mapping[str, str], with_demo: bool, console: Console) -> None:
    """Run all parts until asked to stop.

    Raises EmbeddedStoreError, SettingsError, CommandError or PartError, with all parts stopped.
    """
    store = None if settings.store_url else EmbeddedStore(settings.data_dir, settings.store_socket)
    try:
        if store is not None:
            store.prepare()
        settings.read_code_key()
        _check_port(settings.host, settings.port, "port")
        if settings.redeem_workers:
            _check_port(settings.host, settings.redeem_port, "redeem_port")
        parts = [] if store is None else [_store_part(store, environment)]
        parts += _parts_on(parts[0].is_ready if parts else always, settings, environment)
        Supervisor(parts).run(when_ready=lambda: _welcome(settings, with_demo, console))
    finally:
        if store is not None:
            store.release()


def local_url(host: str, port: int) -> str:
    """Return where a program on this machine reaches what listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is being replaced
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _check_port(host: str, port: int, setting: str) -> None:
    try:
        choices = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = choices[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise CommandError(
            f"cannot listen on {host} port {port}: {(error.strerror or str(error)).lower()}; "
            f"choose another with --{setting.replace('_', '-')} or {variable(setting)}",
            ExitCode.REFUSED,
        ) from error


def _store_part(store: EmbeddedStore, environment: Mapping[str, str]) -> Part:
    told_tenths = 0

    def is_ready() -> bool:
        nonlocal told_tenths
        percent = store.loaded_percent()
        tenths = 0 if percent is None else int(percent // 10)
        if percent is not None and tenths > told_tenths:
            if percent < 100:
                log.info("store is reading its data", percent=round(percent))
            elif repairs := store.repairs():
                log.warning("store mended its data", what=repairs)
        told_tenths = tenths
        return percent == 100

    return Part(
        name="store",
        command=store.command,
        environment=store.environment(environment),
        inherited=store.inherited,
        is_ready=is_ready,
        clear=store.clear,
        tend=store.tend,
        explain=store.last_words,
        start_within_s=LOAD_TIMEOUT_S,
        stop_within_s=2 * STOP_TIMEOUT_S,
    )


def _parts_on(store_is_ready: Callable[[], bool], settings: Settings, environment: Mapping[str, str]) -> Iterator[Part]:
    parts = [("API", "service.api", _answers(settings.host, settings.port), environment)]
    if settings.redeem_workers:
        redeeming = {
            variable("serve_only"): "redeem",
            variable("port"): str(settings.redeem_port),
            variable("api_workers"): str(settings.redeem_workers),
            variable("redeem_workers"): "0",
        }
        is_ready = _answers(settings.host, settings.redeem_port)
        parts.append(("redemption", "service.api", is_ready, {**environment, **redeeming}))
    parts += [("worker", "worker", always, environment), ("scheduler", "worker.schedule", always, environment)]
    for name, module, is_ready, variables in parts:
        yield Part(
            name=name,
            command=(sys.executable, "-m", module),
            environment=variables,
            is_ready=is_ready,
            may_restart=store_is_ready,
            stop_within_s=STOP_TIMEOUT_S,
        )


def _answers(host: str, port: int) -> Callable[[], bool]:
    ready_url = f"{local_url(host, port)}/readyz"

    def is_ready() -> bool:
        try:
            return httpx.get(ready_url, timeout=READY_TIMEOUT_S, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    return is_ready


def _welcome(settings: Settings, with_demo: bool, console: Console) -> None:
    url = local_url(settings.host, settings.port)
    campaign = None
    if with_demo:
        key = settings.api_keys[0].get_secret_value() if settings.api_keys else None
        try:
            campaign = open_demo(Remote(url, key), datetime.now(UTC))
        except CommandError as error:
            log.error("demo campaign could not be opened", reason=str(error))
    redeem_url = local_url(settings.host, settings.redeem_port) if settings.redeem_workers else None
    data = without_credentials(settings.store_url) if settings.store_url else settings.data_dir
    show_banner(console, url, redeem_url, data, campaign, needs_key=bool(settings.api_keys))
