"""`tierwise serve`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from pydantic import BaseModel

from models.errors import ModelError
from service.logs import configure_logging
from service.server import serve as run_server
from service.settings import EngineName, Settings, SettingsError, load_settings
from service.workers import supervise


def settings_help(model: type[BaseModel] = Settings, prefix: str = "") -> str:
    """Every setting with its default and meaning, as a list."""
    lines = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            lines.append(settings_help(field.annotation, f"{prefix}{name}."))
        else:
            default = "" if field.default in (None, (), {}) else f" Default: {field.default}."
            lines.append(f"- `{prefix}{name}`: {field.description}.{default}")
    return "\n".join(lines)


app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command(
    epilog=f"Settings, as in `tierwise.yaml`; in the environment `TIERWISE_LIMITS__ITEMS`:\n\n{settings_help()}"
)
def serve(
    *,
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder; the shipped one if not given.")] = None,
    engine: Annotated[EngineName | None, typer.Option(help="Engine behind the port.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the port, each with an engine of its own.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Compute threads of an embedded engine, workers share them; all cores if not given."),
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option(help="Knowledge snapshot folder; no retrieval if not given.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address of the doors for callers.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of the HTTP door.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of the gRPC door.")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Port of the admin door with /metrics.")] = None,
) -> None:
    """Serve a checkpoint over HTTP and gRPC until SIGTERM or Ctrl-C.

    Every setting can come from `TIERWISE_*` variables or from `tierwise.yaml` in the current folder (another path:
    `TIERWISE_CONFIG`); options win over variables, variables over the file. A wrong or misspelt one stops the start.
    """
    try:
        settings = load_settings(
            checkpoint=checkpoint,
            engine=engine,
            workers=workers,
            threads=threads,
            knowledge=knowledge,
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            admin_port=admin_port,
        )
        configure_logging(settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(supervise(settings) if settings.workers > 1 else run_server(settings))
    except (SettingsError, ModelError) as error:
        typer.echo(f"tierwise cannot start: {error}", err=True)
        raise typer.Exit(2) from error
