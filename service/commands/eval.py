"""`tierwise eval`."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.catalogue import read_catalogue
from models.evaluation.attack_run import IRRELEVANT_PAIRS, run_attacks
from models.evaluation.baselines import BaselineMissingError, SentenceEncoder, bm25_scores, full_text, short_text
from models.evaluation.bootstrap import RESAMPLES
from models.evaluation.pairs import read_labelled
from models.evaluation.probes import probe, read_probes
from models.evaluation.reports import AttackReport
from models.evaluation.runs import data_of, subject_of
from models.evaluation.runs import evaluate as run_evaluation
from models.manifest import file_hash
from service.measuring import EXPECTED, columns_of, judgements, opened, progress_bars, publish, stop, with_chunks
from service.settings import EngineName, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.catalogue import Product
    from models.evaluation.pairs import LabelledPair
    from models.evaluation.progress import Progress
    from models.evaluation.reports import Evaluation, ProbeReport, Report
    from models.evaluation.runs import Ranking
    from models.prompt import Item
    from service.settings import Settings


def evaluate(
    *,
    judgements_file: Annotated[
        Path | None,
        typer.Option(
            "--judgements", help="Human grades: query, product_id, rating (0 worst), cluster. .csv, .jsonl or .parquet."
        ),
    ] = None,
    catalogue: Annotated[
        Path | None, typer.Option(help="Products: .jsonl, .csv or .parquet, or a folder with `products.*`.")
    ] = None,
    attributes: Annotated[
        Path | None, typer.Option(help="Long table with product_id, attribute, value; `attributes_long.*` if beside.")
    ] = None,
    columns: Annotated[str, typer.Option(help="Catalogue columns: `title=product_name,brand=maker`.")] = "",
    attacks: Annotated[
        bool, typer.Option("--attacks", help="Attack Irrelevant items through their text, instead of judgements.")
    ] = False,
    attack_pairs: Annotated[
        Path, typer.Option(help="Irrelevant pairs to attack: query and item fields. Real products if not given.")
    ] = IRRELEVANT_PAIRS,
    probes: Annotated[
        Path | None, typer.Option(help="Context test set of `tierwise data probes`, instead of judgements.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder; the shipped one if not given.")] = None,
    engine: Annotated[EngineName | None, typer.Option(help="Engine behind the port.")] = None,
    knowledge: Annotated[Path | None, typer.Option(help="Knowledge snapshot; no chunks if not given.")] = None,
    encoder: Annotated[
        bool, typer.Option(help="Set the sentence encoder beside the judge; needs the extra `train`.")
    ] = True,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples of the query clusters.")] = RESAMPLES,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure here.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a self-contained page here.")] = None,
) -> None:
    """Measure a checkpoint: on human judgements, under attack, or with chunks that help and mislead.

    `tierwise eval --judgements grades.csv --catalogue products.parquet --html report.html`

    Ranks the judged products of each query: nDCG@10, AUC, Goodrates; and judges their tiers: macro-F1 (cumulative and
    argmax), accuracy, F1 per tier, kappa, calibration error. All with 95 % intervals by bootstrap over query clusters,
    beside BM25 and a sentence encoder on the same pairs. Judgements are for measuring only: choose on other data
    (`tierwise calibrate`).

    `tierwise eval --attacks`

    Writes label names, instructions, markers, reserved tokens, invisible characters and 100 kB fields into items that
    are Irrelevant, and counts those lifted to a Good band. Exit status 1 when a limit is broken.

    `tierwise eval --probes probes.jsonl`

    Accuracy with the chunk that tells the withheld fact, with none, a useless and a misleading one, their paired
    differences, and how often a rationale's verdicts allow the tier that it explains.
    """
    try:
        settings = load_settings(checkpoint=checkpoint, engine=engine, knowledge=knowledge)
        report: Report
        with progress_bars() as progress:
            if attacks:
                report = asyncio.run(_attack(settings, attack_pairs, progress))
            elif probes is not None:
                report = asyncio.run(_probe(settings, probes, progress, resamples=resamples))
            elif judgements_file is None or catalogue is None:
                raise SettingsError("give --judgements with --catalogue, or --attacks, or --probes")
            else:
                products = read_catalogue(catalogue, attributes=attributes, columns=columns_of(columns))
                report = asyncio.run(
                    _evaluate(settings, judgements_file, products, progress, encoder=encoder, resamples=resamples)
                )
        publish(report, json_file, html_file)
    except EXPECTED as error:
        stop("eval", error)
    if isinstance(report, AttackReport) and not report.passed:
        raise typer.Exit(1)


async def _probe(settings: Settings, file: Path, progress: Progress, *, resamples: int) -> ProbeReport:
    async with opened(settings) as judge:
        tiers = judge.manifest.tiers
        pairs = read_probes(file, tiers)
        data = data_of(file.name, file_hash(file), pairs, len(tiers))
        return await probe(judge, pairs, data, subject_of(judge, None), resamples=resamples, progress=progress)


async def _attack(settings: Settings, file: Path, progress: Progress) -> AttackReport:
    async with opened(settings) as judge:
        tiers = judge.manifest.tiers
        worst = len(tiers) - 1
        irrelevant = [p for p in read_labelled(file, tiers, assume=worst) if p.tier == worst]
        pairs, index = with_chunks(settings, irrelevant)
        return await run_attacks(judge, pairs, subject_of(judge, index), partial(progress, "attacks"))


async def _evaluate(
    settings: Settings, file: Path, products: dict[str, Product], progress: Progress, *, encoder: bool, resamples: int
) -> Evaluation:
    async with opened(settings) as judge:
        pairs, data = judgements(file, products, len(judge.manifest.tiers))
        pairs, index = with_chunks(settings, pairs)
        data = data.model_copy(update={"with_chunk": sum(p.chunk is not None for p in pairs)})
        rankings: dict[str, Ranking] = {"BM25": bm25_scores(pairs, [p.item() for p in products.values()])}
        if encoder:
            rankings |= await asyncio.to_thread(_encoder_rankings, pairs, progress)
        return await run_evaluation(judge, pairs, data, rankings, progress, index=index, resamples=resamples)


def _encoder_rankings(pairs: Sequence[LabelledPair], progress: Progress) -> dict[str, Ranking]:
    """The encoder on title and brand, which is how it is usually used, and on all the text, which is its best."""
    views: dict[str, Callable[[Item], str]] = {"MiniLM, title + brand": short_text, "MiniLM, all text": full_text}
    try:
        encoder = SentenceEncoder()
    except BaselineMissingError as error:
        return {"MiniLM": str(error)}
    return {
        name: encoder.scores(pairs, view, partial(progress, f"encoder {n}"))
        for n, (name, view) in enumerate(views.items(), 1)
    }
