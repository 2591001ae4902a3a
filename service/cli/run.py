"""Why: the commands that run Tidegate, all of it or one part, with options that win over the environment."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console

from service.cli.failures import CommandError, ExitCode
from service.cli.up import run_everything
from service.logs import configure_logs
from service.settings import Settings, read_settings, variable
from service.store.client import SchemaTooNew, check_schema, connect
from service.store.scripts import StoreRefused, StoreTimeout, StoreUnreachable

PANEL: Final = "Run"
STORE_TIMEOUT_MS: Final = 3000

Host = Annotated[str | None, typer.Option(help=f"Address to listen on.  [dim]{variable('host')}, 127.0.0.1[/dim]")]
Port = Annotated[int | None, typer.Option(help=f"Port to listen on.  [dim]{variable('port')}, 8000[/dim]")]
DataDir = Annotated[Path | None, typer.Option(help=f"Folder for data.  [dim]{variable('data_dir')}, .tidegate[/dim]")]
Workers = Annotated[int | None, typer.Option(help=f"API processes.  [dim]{variable('api_workers')}, 1[/dim]")]
Only = Annotated[
    str | None,
    typer.Option(help=f"Serve `issue` (all but redemption) or `redeem`.  [dim]{variable('serve_only')}, all[/dim]"),
]
RedeemWorkers = Annotated[
    int | None, typer.Option(help=f"API processes for redemption only.  [dim]{variable('redeem_workers')}, 0[/dim]")
]
RedeemPort = Annotated[int | None, typer.Option(help=f"Port of those.  [dim]{variable('redeem_port')}, 8001[/dim]")]
StoreUrl = Annotated[
    str | None, typer.Option(help=f"Another store.  [dim]{variable('store_url')}, the one of `tidegate up`[/dim]")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (up, serve, worker, scheduler):
        app.command(rich_help_panel=PANEL)(command)


def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    redeem_workers: RedeemWorkers = None,
    redeem_port: RedeemPort = None,
    demo: Annotated[bool, typer.Option(help="Open the Spring Festival campaign, to have something to try.")] = True,
) -> None:
    """Run everything on this machine: store, API, worker and scheduler.

    Ctrl-C stops all of it in order; a second Ctrl-C hurries. Data stay in the data folder.

    [dim]Examples[/dim]

    [cyan]tidegate up[/cyan]

    [cyan]tidegate up --port 8080 --data-dir /srv/tidegate --no-demo[/cyan]
    """
    settings, environment = _settle(
        host=host,
        port=port,
        data_dir=data_dir,
        api_workers=workers,
        redeem_workers=redeem_workers,
        redeem_port=redeem_port,
    )
    configure_logs(settings.log_level)
    if settings.store_url:
        _check_store(settings)
    run_everything(settings, environment, demo, Console(stderr=True))


def serve(
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    only: Only = None,
    data_dir: DataDir = None,
    store_url: StoreUrl = None,
) -> None:
    """Run the API only, where something else supervises.

    With `--only redeem` it is one of a group of processes that no stampede on issue reaches.

    [dim]Examples[/dim]

    [cyan]TIDEGATE_STORE_URL=redis://store:6379 tidegate serve --port 8000[/cyan]

    [cyan]TIDEGATE_STORE_URL=redis://store:6379 tidegate serve --port 8001 --only redeem[/cyan]
    """
    _become(
        "service.api",
        host=host,
        port=port,
        api_workers=workers,
        serve_only=only,
        data_dir=data_dir,
        store_url=store_url,
    )


def worker(data_dir: DataDir = None, store_url: StoreUrl = None) -> None:
    """Run one worker only: it takes jobs from the queue, such as extensions."""
    _become("worker", data_dir=data_dir, store_url=store_url)


def scheduler(data_dir: DataDir = None, store_url: StoreUrl = None) -> None:
    """Run the scheduler only: it opens and closes campaigns and tidies on time. One is enough."""
    _become("worker.schedule", data_dir=data_dir, store_url=store_url)


def _become(module: str, **options: Any) -> NoReturn:
    settings, environment = _settle(**options)
    _check_store(settings)
    os.execve(sys.executable, [sys.executable, "-m", module], environment)  # noqa: S606 - no shell is wanted


def _settle(**options: Any) -> tuple[Settings, dict[str, str]]:
    given = {name: value for name, value in options.items() if value is not None}
    settings = read_settings(**given)
    return settings, os.environ | {variable(name): str(value) for name, value in given.items()}


def _check_store(settings: Settings) -> None:
    try:
        asyncio.run(_ask_store(settings.effective_store_url))
    except (StoreUnreachable, StoreTimeout) as error:
        raise CommandError(
            f"no store answers: {error}; `tidegate up` brings one, {variable('store_url')} names another",
            ExitCode.UNREACHABLE,
        ) from error
    except (StoreRefused, SchemaTooNew) as error:
        raise CommandError(f"the store cannot be used: {error}", ExitCode.REFUSED) from error


async def _ask_store(url: str) -> None:
    client = connect(url, STORE_TIMEOUT_MS)
    try:
        await check_schema(client)
    finally:
        await client.aclose()
