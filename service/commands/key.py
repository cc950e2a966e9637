"""`tierwise key`: make keys for callers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError

from service.access.keys import key_hash, key_id, new_key
from service.access.roster import KeyRecord
from service.request import Priority

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def keys() -> None:
    """Make keys for callers."""


@app.command()
def new(
    *,
    tenant: Annotated[str, typer.Option(help="Whose key it is. Keys of one tenant share everything that is its own.")],
    scopes: Annotated[str, typer.Option(help="What it may do: score, explain, admin, with commas between.")] = "score",
    priority: Annotated[Priority, typer.Option(help="The highest that its calls may ask for.")] = Priority.DEFAULT,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day, in UTC, on which it is refused.")
    ] = None,
) -> None:
    """Print a new key, which nobody can print again, and the line of the keys file that makes it known.

    The key goes to its holder, the line under `keys:` in the file that `access.keys_file` names; it holds a hash only.
    """
    key = new_key()
    record: dict[str, Any] = {"id": key_id(key), "sha256": key_hash(key), "tenant": tenant}
    record["scopes"] = [scope.strip() for scope in scopes.split(",")]
    if priority is not Priority.DEFAULT:
        record["priority"] = str(priority)
    if expires is not None:
        record["expires"] = expires.date()
        if expires.replace(tzinfo=UTC) <= datetime.now(UTC):
            raise typer.BadParameter("choose a day to come", param_hint="--expires")
    try:
        KeyRecord.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise typer.BadParameter(first["msg"], param_hint=f"--{first['loc'][0]}") from error
    typer.echo("The key, shown this once:", err=True)
    typer.echo(key)
    typer.echo("Its line in the keys file:", err=True)
    typer.echo("- " + yaml.safe_dump(record, default_flow_style=True, sort_keys=False, width=10_000).strip())
