"""Why: the commands that steer a running Tidegate take the same options, said once."""

from typing import Annotated, Final

import typer

PANEL: Final = "Operate"
LOCAL: Final = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option(envvar="TIDEGATE_URL", help="The running service.")]
ApiKey = Annotated[str | None, typer.Option(envvar="TIDEGATE_API_KEY", help="Key that the service asks for.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
