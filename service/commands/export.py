"""`tierwise export`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from models.errors import ModelError
from service.canary import failing_canaries
from service.engines import EMBEDDED
from service.gateway import open_judge
from service.settings import EngineName, SettingsError, load_settings

if TYPE_CHECKING:
    from service.settings import Settings

console = Console(stderr=True)


def export(
    *,
    output: Annotated[Path, typer.Option(help="Folder for the graphs, to be named in TIERWISE_CACHE_DIR.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder; the shipped one if not given.")] = None,
    engine: Annotated[
        EngineName | None, typer.Option(help="onnx-int8 or onnx-float32; the configured one if not given.")
    ] = None,
) -> None:
    """Build an engine's graphs ahead of the first start, for an image whose file system is read-only.

    A start finds them by the checkpoint's hash, so other checkpoints may share the folder. They fit this kind of
    processor; on one that needs others, a start builds its own. Known pairs must score right with them, or this fails.

        tierwise export --output graphs
        TIERWISE_CACHE_DIR=graphs tierwise serve
    """
    try:
        settings = load_settings(checkpoint=checkpoint, engine=engine, cache_dir=output)
        built = asyncio.run(_build(settings))
    except (SettingsError, ModelError, OSError) as error:
        console.print(f"tierwise export: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    console.print(f"{output} holds the graphs of {built} for {settings.engine}.", markup=False, soft_wrap=True)


async def _build(settings: Settings) -> str:
    if settings.engine not in EMBEDDED - {EngineName.VLLM}:
        raise SettingsError(f"engine (TIERWISE_ENGINE): {settings.engine} has no graphs to build; choose onnx-int8")
    judge = open_judge(settings)
    try:
        await judge.engine.warm_up()
        if problems := await failing_canaries(judge):
            raise ModelError(f"self-test: {'; '.join(problems)}")
        return judge.manifest.checkpoint_id
    finally:
        await judge.engine.close()
