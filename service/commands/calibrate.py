"""`tierwise calibrate`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.catalogue import read_catalogue
from models.errors import CheckpointError
from models.evaluation.calibration import check_canaries
from models.evaluation.pairs import read_labelled
from models.evaluation.runs import calibrate as run_calibration
from models.evaluation.runs import data_of
from models.manifest import file_hash, load_manifest, save_manifest
from service.measuring import EXPECTED, columns_of, judgements, opened, progress_bars, publish, stop, with_chunks
from service.settings import EngineName, SettingsError, load_settings

if TYPE_CHECKING:
    from models.catalogue import Product
    from models.evaluation.progress import Progress
    from models.evaluation.reports import Calibration
    from service.settings import Settings


def calibrate(
    *,
    pairs: Annotated[
        Path,
        typer.Option(
            help="Labelled pairs that the model was not trained on: query, item fields, tier, context. .jsonl or .csv."
        ),
    ],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder; the shipped one if not given.")] = None,
    engine: Annotated[EngineName | None, typer.Option(help="Engine behind the port.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put beta and temperature into the manifest.")] = False,
    adapter: Annotated[
        Path | None, typer.Option(help="Adapter whose merged weights the checkpoint holds: --write sets it too.")
    ] = None,
    judgements_file: Annotated[
        Path | None, typer.Option("--judgements", help="Human grades; reported beside, never chosen on.")
    ] = None,
    catalogue: Annotated[Path | None, typer.Option(help="Products that the judgements name.")] = None,
    attributes: Annotated[
        Path | None, typer.Option(help="Long table with product_id, attribute, value; `attributes_long.*` if beside.")
    ] = None,
    columns: Annotated[str, typer.Option(help="Catalogue columns: `title=product_name,brand=maker`.")] = "",
    knowledge: Annotated[Path | None, typer.Option(help="Knowledge snapshot for pairs without a chunk.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure here.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a self-contained page here.")] = None,
) -> None:
    """Choose beta and a temperature for a checkpoint on labelled pairs.

    `tierwise calibrate --pairs held_out.jsonl --checkpoint my-judge --write`

    Beta is the share of probability that a tier and the better ones must hold together; raising it only demotes.
    Temperature is kept at 1 unless it lowers the log-loss. Refuses when neighbouring tiers do not separate. With
    --judgements it also tells what human grades would have chosen, cross-fitted over query clusters. Only --write
    changes the checkpoint: two numbers of tierwise.json, atomically, and not when a canary would change its tier.
    """
    try:
        settings = load_settings(checkpoint=checkpoint, engine=engine, knowledge=knowledge)
        if (judgements_file is None) != (catalogue is None):
            raise SettingsError("--judgements and --catalogue go together")
        products = read_catalogue(catalogue, attributes=attributes, columns=columns_of(columns)) if catalogue else None
        with progress_bars() as progress:
            report = asyncio.run(_calibrate(settings, pairs, judgements_file, products, progress, write=write))
        if adapter is not None and write:
            _set_adapter(adapter, settings.checkpoint)
        publish(report, json_file, html_file)
        if not write:
            typer.echo("Nothing was changed; --write puts the chosen setting into the manifest.")
    except EXPECTED as error:
        stop("calibrate", error)


async def _calibrate(
    settings: Settings,
    file: Path,
    judgements_file: Path | None,
    products: dict[str, Product] | None,
    progress: Progress,
    *,
    write: bool,
) -> Calibration:
    async with opened(settings) as judge:
        manifest = judge.manifest
        labelled, index = with_chunks(settings, read_labelled(file, manifest.tiers))
        data = data_of(file.name, file_hash(file), labelled, len(manifest.tiers))
        human = None
        if judgements_file is not None and products is not None:
            graded, graded_data = judgements(judgements_file, products, len(manifest.tiers))
            human = (with_chunks(settings, graded)[0], graded_data)
        report = await run_calibration(judge, labelled, data, progress, human=human, index=index)
        if not write:
            return report
        setting = {"beta": report.chosen.beta, "temperature": report.chosen.temperature}
        figures = {**manifest.figures, "calibration": _summary(report)}
        calibrated = manifest.model_copy(update={**setting, "figures": figures})
        await check_canaries(replace(judge, manifest=calibrated))
        save_manifest(calibrated, settings.checkpoint)
        return report.model_copy(update={"written": True})


def _set_adapter(folder: Path, merged: Path) -> None:
    """Give an adapter the thresholds that were just chosen with its merged weights.

    Raises:
        CheckpointError: no adapter, or not that of these weights.
    """
    adapter, calibrated = load_manifest(folder), load_manifest(merged)
    if adapter.base is None or adapter.training != calibrated.training:
        raise CheckpointError(f"{folder} is not the adapter whose merged weights {merged} holds; it was not changed")
    chosen = {"beta": calibrated.beta, "temperature": calibrated.temperature, "figures": calibrated.figures}
    save_manifest(adapter.model_copy(update=chosen), folder)


def _summary(report: Calibration) -> dict[str, object]:
    """What the manifest keeps of a calibration."""
    return {
        "data": report.data.model_dump(include={"name", "sha256", "pairs", "clusters"}),
        "macro_f1": round(report.chosen.macro_f1, 4),
        "accuracy": round(report.chosen.accuracy, 4),
        "calibration_error": round(report.chosen.calibration_error, 4),
    }
