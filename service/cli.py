"""The command `tierwise`. A command's module is imported when the command is called: `tierwise --help` loads none."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

# name: (module:attribute, one line of help). The attribute is a function or a typer.Typer with commands of its own.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("service.commands.demo:demo", "Serve a real catalogue and show scored queries."),
    "serve": ("service.commands.serve:app", "Serve a checkpoint over HTTP."),
    "top": ("service.commands.top:top", "Watch a running service in the terminal."),
    "score": ("service.commands.score:score", "Score a file of query-item pairs offline."),
    "index": ("service.commands.index:app", "Build and check knowledge snapshots."),
    "knowledge": ("service.commands.knowledge:app", "Derive knowledge from a catalogue."),
    "data": ("service.commands.data:app", "Check, split, mine and probe training data."),
    "train": ("service.commands.train:app", "Make a relevance model from a catalogue."),
    "eval": ("service.commands.eval:evaluate", "Measure a checkpoint on human judgements."),
    "calibrate": ("service.commands.calibrate:calibrate", "Choose beta and temperature of a checkpoint."),
    "compare": ("service.commands.compare:compare", "Set one checkpoint beside another on the same judgements."),
    "key": ("service.commands.key:app", "Make keys for callers."),
    "export": ("service.commands.export:export", "Build an engine's graphs ahead of the first start."),
}

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


def _version(asked: bool) -> None:  # noqa: FBT001 # typer calls it with the option's value
    if asked:
        typer.echo(f"tierwise {version('tierwise')}")
        raise typer.Exit


@app.callback()
def main(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """How relevant is each item to the query? Scores items with a label-first model, within a deadline."""
    del show_version


def load_command(target: str) -> typer.Typer:
    """Import `module:attribute` as a typer app."""
    module, _, attribute = target.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return found
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    single.command()(found)
    return single


def _forward(name: str, target: str) -> Callable[[typer.Context], None]:
    def forward(ctx: typer.Context) -> None:
        load_command(target)(args=ctx.args, prog_name=f"tierwise {name}")

    return forward


for _name, (_target, _summary) in COMMANDS.items():
    # Every argument, --help included, is for the command's own parser.
    app.command(
        _name,
        help=_summary,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(_forward(_name, _target))
