"""Why: people and scripts run and steer Tidegate through one command, `tidegate`."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from service import __version__
from service.cli import audit, export, extend, imports, jobs, operate, outages, run, settings_table
from service.cli.failures import CommandError, ExitCode
from service.cli.processes import PartError
from service.settings import SettingsError
from service.store.embedded import EmbeddedStoreError

app = typer.Typer(
    name="tidegate",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Ends with 0: done · 1: refused by the service · 2: bad input · 3: no service or store answers.",
)
run.register(app)
operate.register(app)
extend.register(app)
outages.register(app)
audit.register(app)
export.register(app)
imports.register(app)
jobs.register(app)
settings_table.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tidegate {__version__}")
        raise typer.Exit


@app.callback()
def tidegate(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Coupons for campaigns that everybody joins in the same minute: never more than was promised.

    [cyan]tidegate up[/cyan] runs everything here; [cyan]tidegate campaign create FILE --start[/cyan] opens a campaign.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `tidegate` and leave with its exit code; what goes wrong is said in one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(arguments, prog_name="tidegate")
    except (CommandError, SettingsError, EmbeddedStoreError, PartError) as error:
        failure = _as_command_error(error)
        if "--json" in arguments:
            sys.stderr.write(json.dumps(failure.problem, ensure_ascii=False) + "\n")
        else:
            sys.stderr.writelines(f"tidegate: {line}\n" for line in str(failure).splitlines())
        sys.exit(failure.exit_code)


def _as_command_error(error: CommandError | SettingsError | EmbeddedStoreError | PartError) -> CommandError:
    match error:
        case CommandError():
            return error
        case SettingsError():
            return CommandError(str(error), ExitCode.BAD_INPUT)
        case EmbeddedStoreError() | PartError():
            return CommandError(str(error), ExitCode.REFUSED)
