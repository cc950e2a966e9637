"""`tierwise data`: look at training data, split it, and make more of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from models.errors import DataError, ModelError
from models.evaluation.pairs import LabelledPair
from models.evaluation.scoring import score_pairs
from models.manifest import SHIPPED, load_manifest
from models.rows import read_rows
from models.tiers import softmax
from models.tokenizer import FieldTokenizer
from models.train.data.check import check as check_files
from models.train.data.held_out import split_products
from models.train.data.mining import MiningConfig, mine, read_clicks
from models.train.data.probes import probes as make_probes
from models.train.data.relabel import suspects
from models.train.data.schema import gold_column, placed_rows, read_training_rows, write_training_rows
from models.train.data.split import split as split_rows
from retrieval.errors import KnowledgeError
from service.commands.data_rationales import rationales
from service.commands.knowledge import read_products
from service.commands.train import judged_product
from service.measuring import opened, progress_bars
from service.settings import EngineName, SettingsError, load_settings

if TYPE_CHECKING:
    from models.catalogue import Product
    from models.train.data.check import Report
    from service.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
_console: Final = Console(stderr=True)
_EXPECTED: Final = (ModelError, KnowledgeError, SettingsError, OSError)

Files = Annotated[list[Path], typer.Argument(help="Training data: .jsonl, .csv or .parquet.")]
Catalogue = Annotated[Path, typer.Option(help="Products: .jsonl, .csv or .parquet, or a folder with `products.*`.")]
Attributes = Annotated[
    Path | None, typer.Option(help="Long table with product_id, attribute, value; `attributes_long.*` if beside.")
]
Columns = Annotated[str, typer.Option(help="Columns with other names: `title=product_name,brand=maker`.")]
Output = Annotated[Path, typer.Option(help="File of rows to write, .jsonl.")]


@app.callback()
def data() -> None:
    """Check, split, explain, mine and probe training data. The rows' schema is in docs/training.md."""


app.command()(rationales)


def _stop(command: str, error: Exception) -> NoReturn:
    typer.echo(f"tierwise data {command}: {error}", err=True)
    raise typer.Exit(2) from error


@app.command()
def check(
    files: Files,
    *,
    checkpoint: Annotated[Path, typer.Option(help="Its tiers and field budgets are what rows are held to.")] = SHIPPED,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure and finding here.")] = None,
) -> None:
    """Say what is wrong with training data: bad rows by line, duplicates, disagreements, leaks, balance, lengths.

    `tierwise data check train.jsonl valid.jsonl`

    Give the sides of a split together, so that a query cluster on both sides is found. Exit status 1 when something
    must not be trained on: a bad row, an unknown tier, a leak.
    """
    try:
        manifest = load_manifest(checkpoint)
        report = check_files(files, manifest=manifest, tokenizer=FieldTokenizer(checkpoint))
        if json_file is not None:
            json_file.write_text(json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n")
    except _EXPECTED as error:
        _stop("check", error)
    _show(report)
    raise typer.Exit(int(report.fatal))


def _show(report: Report) -> None:
    console = Console()
    files = ", ".join(f"{name} {count:,}" for name, count in report.rows.items())
    console.print(f"rows: {files}", highlight=False, markup=False)
    console.print(
        f"{report.clusters:,} query clusters; {report.unlabelled:,} rows without a tier, "
        f"{report.with_context:,} with a context, {report.with_verdicts:,} with step verdicts"
    )
    tiers = Table("tier", "rows", title=f"balance (coefficient of variation {report.variation:.2f})")
    for name, count in report.tiers.items():
        tiers.add_row(name, f"{count:,}")
    console.print(tiers)
    lengths = Table("field", "median", "p95", "longest", "cut", title=f"lengths in {report.unit}")
    for name, length in report.lengths.items():
        cut = "" if length.cut is None else f"{length.cut:.1%}"
        lengths.add_row(name, f"{length.median:.0f}", f"{length.p95:.0f}", str(length.longest), cut)
    console.print(lengths)
    for finding in report.findings:
        sign = "error" if finding.fatal else "note"
        console.print(f"{sign}: {finding.kind}: {finding.place}: {finding.message}", markup=False, highlight=False)
    for kind, count in report.counts.items():
        console.print(f"{kind}: {count:,}", markup=False)


@app.command()
def split(
    file: Annotated[Path, typer.Argument(help="Training data: .jsonl, .csv or .parquet.")],
    *,
    output: Annotated[Path, typer.Option(help="Folder for train.jsonl, valid.jsonl and test.jsonl.")],
    valid: Annotated[float, typer.Option(help="Share of the rows for validation.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the rows for testing; 0 for none.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal sides.")] = 1,
) -> None:
    """Split rows by query cluster, so that no query, nor a near-duplicate of it, is on two sides.

    `tierwise data split rows.jsonl --output data`
    """
    try:
        rows = [row for _, row in placed_rows(file)]
        if not rows:
            raise DataError(f"{file.name} holds no rows")
        shares = {"train": 1 - valid - test, "valid": valid, "test": test}
        sides = split_rows(rows, {name: share for name, share in shares.items() if share}, seed)
        output.mkdir(parents=True, exist_ok=True)
        for name, numbers in sides.items():
            write_training_rows((rows[n] for n in numbers), output / f"{name}.jsonl")
            typer.echo(f"{output / f'{name}.jsonl'}: {len(numbers):,} rows")
    except _EXPECTED as error:
        _stop("split", error)


@app.command("mine")
def mine_pairs(
    *,
    catalogue: Catalogue,
    clicks: Annotated[Path, typer.Option(help="Click log: query, product_id, and clicked or clicks + impressions.")],
    output: Output,
    attributes: Attributes = None,
    columns: Columns = "",
    least_clicks: Annotated[int, typer.Option(help="Clicks from which a pair counts as clicked.")] = 3,
    least_rate: Annotated[float, typer.Option(help="Click rate from which a pair counts as clicked.")] = 0.1,
    least_shows: Annotated[int, typer.Option(help="Impressions without a click that make a negative.")] = 20,
    near: Annotated[int, typer.Option(help="Hard negatives of a query: same words, other category.")] = 4,
    strangers: Annotated[int, typer.Option(help="Easy negatives of a query.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the easy negatives.")] = 1,
) -> None:
    """Mine pairs from a catalogue and a click log, with hard negatives.

    `tierwise data mine --catalogue products.parquet --clicks clicks.csv --output mined.jsonl`

    Clicks are noisy: treat these rows as a first draft, and look at them with `tierwise data suspects`.
    """
    try:
        products = {p.id: p for p in _products(catalogue, attributes, columns)}
        config = MiningConfig(
            clicks=least_clicks, rate=least_rate, shows=least_shows, near=near, random=strangers, seed=seed
        )
        count = write_training_rows(mine(products, read_clicks(clicks), config), output)
    except _EXPECTED as error:
        _stop("mine", error)
    typer.echo(f"{output}: {count:,} rows")


@app.command()
def probes(
    *,
    catalogue: Catalogue,
    output: Output,
    attributes: Attributes = None,
    columns: Columns = "",
    count: Annotated[int, typer.Option(help="Probes; each is four rows. 800 show differences of 4 points.")] = 200,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal probes.")] = 1,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only of the products that `tierwise train bootstrap` never sees.")
    ] = False,
    to_learn: Annotated[
        bool,
        typer.Option("--to-learn", help="For training: a coin decides whether another product's value is the same."),
    ] = False,
) -> None:
    """Make a context test set: facts withheld from the item, and the right, no, a useless or a misleading chunk.

    `tierwise data probes --catalogue products.parquet --held-out --output probes.jsonl`

    `tierwise eval --probes probes.jsonl`

    Rows to train on are made with --to-learn: a chunk that misleads every time teaches to believe its opposite.
    """
    try:
        products = _products(catalogue, attributes, columns)
        if held_out:
            products = [products[n] for n in split_products(products)[1]]
        written = write_training_rows(make_probes(products, count, seed, to_learn=to_learn), output)
    except _EXPECTED as error:
        _stop("probes", error)
    typer.echo(f"{output}: {written:,} rows")


@app.command("suspects")
def find_suspects(
    file: Annotated[Path, typer.Argument(help="Labelled rows that the checkpoint was not trained on.")],
    *,
    output: Annotated[Path, typer.Option(help="Suspects to write, .jsonl, surest first.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder; the shipped one if not given.")] = None,
    engine: Annotated[EngineName | None, typer.Option(help="Engine behind the port.")] = None,
    confidence: Annotated[float, typer.Option(help="Least probability of the model's own tier.")] = 0.9,
) -> None:
    """List labelled pairs that a model confidently disagrees with: candidates for a second look by a person.

    `tierwise data suspects rows.jsonl --output suspects.jsonl`
    """
    try:
        settings = load_settings(checkpoint=checkpoint, engine=engine)
        count, total = asyncio.run(_suspects(settings, file, output, confidence))
    except _EXPECTED as error:
        _stop("suspects", error)
    typer.echo(f"{output}: {count:,} of {total:,} rows")


async def _suspects(settings: Settings, file: Path, output: Path, confidence: float) -> tuple[int, int]:
    async with opened(settings) as judge:
        manifest = judge.manifest
        places = [place for place, _ in read_rows(file)]
        rows = read_training_rows(file, manifest.tiers)
        given = [gold_column(row, manifest.tiers) for row in rows]
        pairs = [
            LabelledPair(row.query, place, row.item.item(), tier, row.group, row.context)
            for place, row, tier in zip(places, rows, given, strict=True)
        ]
        done = 0
        with progress_bars() as progress:

            def advance(count: int) -> None:
                nonlocal done
                done += count
                progress("score", done, len(pairs))

            scored = await score_pairs(judge, pairs, advance)
        probabilities = softmax(scored.logprobs, manifest.temperature)
        found = suspects(probabilities, given, confidence=confidence)
        with output.open("w", encoding="utf-8") as out:
            for suspect in found:
                told = {
                    "place": places[suspect.row],
                    "tier": manifest.tiers[suspect.given].name,
                    "proposed": manifest.tiers[suspect.proposed].name,
                    "confidence": round(suspect.confidence, 4),
                    "row": rows[suspect.row].model_dump(mode="json", exclude_defaults=True),
                }
                out.write(json.dumps(told, ensure_ascii=False) + "\n")
    return len(found), len(rows)


def _products(catalogue: Path, attributes: Path | None, columns: str) -> list[Product]:
    with _console.status("Reading the catalogue"):
        return [judged_product(product) for product in read_products(catalogue, attributes, columns)]
