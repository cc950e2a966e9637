"""`tierwise compare`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.catalogue import read_catalogue
from models.errors import CheckpointError
from models.evaluation.bootstrap import RESAMPLES
from models.evaluation.runs import compare as run_comparison
from service.measuring import EXPECTED, columns_of, judgements, opened, progress_bars, publish, stop, with_chunks
from service.settings import EngineName, load_settings

if TYPE_CHECKING:
    from models.catalogue import Product
    from models.evaluation.progress import Progress
    from models.evaluation.reports import Comparison
    from service.settings import Settings


def compare(
    a: Annotated[Path, typer.Argument(help="Checkpoint in use.")],
    b: Annotated[Path, typer.Argument(help="Checkpoint that may follow it.")],
    *,
    judgements_file: Annotated[
        Path,
        typer.Option(
            "--judgements", help="Human grades: query, product_id, rating (0 worst), cluster. .csv, .jsonl or .parquet."
        ),
    ],
    catalogue: Annotated[Path, typer.Option(help="Products: .jsonl, .csv, .parquet, or a folder with `products.*`.")],
    attributes: Annotated[
        Path | None, typer.Option(help="Long table with product_id, attribute, value; `attributes_long.*` if beside.")
    ] = None,
    columns: Annotated[str, typer.Option(help="Catalogue columns: `title=product_name,brand=maker`.")] = "",
    engine: Annotated[EngineName | None, typer.Option(help="Engine behind the port, for A and B.")] = None,
    engine_b: Annotated[EngineName | None, typer.Option(help="Another engine for B.")] = None,
    knowledge: Annotated[Path | None, typer.Option(help="Knowledge snapshot; no chunks if not given.")] = None,
    knowledge_b: Annotated[Path | None, typer.Option(help="Another knowledge snapshot for B.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples of the query clusters.")] = RESAMPLES,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure here.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a self-contained page here.")] = None,
) -> None:
    """Set checkpoint B beside checkpoint A on the same human judgements.

    `tierwise compare old-checkpoint new-checkpoint --judgements grades.csv --catalogue products.parquet`

    Paired differences with 95 % intervals, first pages side by side (GSB), Goodrates, and every pair whose tier
    flipped, those that B made worse first. The same checkpoint twice with --engine and --engine-b shows what a
    precision costs; with --knowledge-b, what knowledge brings.
    """
    try:
        first = load_settings(checkpoint=a, engine=engine, knowledge=knowledge)
        second = load_settings(checkpoint=b, engine=engine_b or engine, knowledge=knowledge_b or knowledge)
        products = read_catalogue(catalogue, attributes=attributes, columns=columns_of(columns))
        with progress_bars() as progress:
            report = asyncio.run(_compare(first, second, judgements_file, products, progress, resamples=resamples))
        publish(report, json_file, html_file)
    except EXPECTED as error:
        stop("compare", error)


async def _compare(
    first: Settings, second: Settings, file: Path, products: dict[str, Product], progress: Progress, *, resamples: int
) -> Comparison:
    async with opened(first) as a, opened(second) as b:
        if a.manifest.tiers != b.manifest.tiers:
            names = [", ".join(t.name for t in j.manifest.tiers) for j in (a, b)]
            raise CheckpointError(f"A and B do not judge by the same tiers: {names[0]} against {names[1]}")
        pairs, data = judgements(file, products, len(a.manifest.tiers))
        seen, index = with_chunks(first, pairs)
        seen_b, index_b = with_chunks(second, pairs)
        data = data.model_copy(update={"with_chunk": sum(p.chunk is not None for p in seen_b)})
        return await run_comparison(a, b, (seen, seen_b), data, progress, indexes=(index, index_b), resamples=resamples)
