"""`tierwise train`: make a judge, and what serves beside it, from a shop's own data."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.catalogue import Product
from models.errors import ModelError
from models.manifest import load_manifest
from models.train.data.schema import read_training_rows
from models.train.stages.config import load_config
from retrieval.cards import make_cards
from retrieval.errors import KnowledgeError
from service.commands.embedder import embedder
from service.commands.knowledge import read_products

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import retrieval.catalogue
    from models.train.pairs import Card

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
_console: Final = Console(stderr=True)
STAGES: Final = {
    "sft": "Learn labelled pairs: the label first, then the rationale.",
    "dpo": "Learn from the model's own right and wrong answers.",
    "grpo": "Reinforce right answers; prompts that are too easy or too hard are left out.",
    "dyknow": "Reinforce with and without a chunk of knowledge, so that the judge learns when to use it.",
    "agrl": "Reinforce answers whose tier follows from their own verdicts; guide where all fail.",
    "srpo": "Reinforce every step of the rationale, easy pairs first.",
    "distill": "Teach a small judge a big one's probabilities, on unlabelled pairs.",
}
# What in a card's keys calls for it, by the kind of card.
_CALLING: Final = {"brand": "brand", "type": "type", "series": "series", "fits": "device", "takes": "device"}


@app.callback()
def train() -> None:
    """Make a relevance model from a catalogue."""


app.command()(embedder)


@app.command()
def bootstrap(
    catalogue: Annotated[Path, typer.Option(help="Products: .jsonl, .csv or .parquet, or a folder with `products.*`.")],
    output: Annotated[Path, typer.Option(help="Folder of the run: log, state to resume from, checkpoint.")],
    *,
    attributes: Annotated[
        Path | None, typer.Option(help="Long table with product_id, attribute, value; `attributes_long.*` if beside.")
    ] = None,
    columns: Annotated[str, typer.Option(help="Columns with other names: `title=product_name,brand=maker`.")] = "",
    pairs: Annotated[
        int, typer.Option(help="Training pairs in all. 250,000 take about an hour on two cores.")
    ] = 250_000,
    learning_rate: Annotated[float, typer.Option(help="Of the steady phase.")] = 2e-4,
    seed: Annotated[int, typer.Option(help="Equal seeds and settings give equal figures on one kind of machine.")] = 1,
    name: Annotated[str, typer.Option(help="Name of the checkpoint.")] = "tierwise-mini",
    fact_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the pairs whose deciding fact only a chunk tells; see docs.")
    ] = 0.0,
    keep: Annotated[
        float,
        typer.Option(min=0, max=1, help="Weight of the base's answers where a chunk tells nothing; see docs."),
    ] = 0.0,
    freeze_words: Annotated[
        bool, typer.Option("--freeze-words", help="Leave the vectors of words as they are; labels and markers learn.")
    ] = False,
    held_out_names: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the types' everyday names that only validation asks for.")
    ] = 0.0,
    base: Annotated[
        Path | None, typer.Option(help="Checkpoint of an earlier run to go on from, instead of the sentence encoder.")
    ] = None,
) -> None:
    """Give it your catalogue, get a relevance model. No human label is needed.

    Queries, tiers and rationales are generated from titles, types, brands and attributes; a sentence encoder softens
    the targets. Killed? The same command goes on where it was. A GPU is used when there is one.

    `tierwise train bootstrap --catalogue products.jsonl --output run`

    `tierwise calibrate --pairs run/held_out.jsonl --checkpoint run/checkpoint --write`

    `tierwise serve --checkpoint run/checkpoint`
    """
    try:
        products = read_products(catalogue, attributes, columns)
        own = load_manifest(base).checkpoint_id if base else ""
        settings = {
            "pairs": pairs,
            "learning_rate": learning_rate,
            "fact_share": fact_share,
            "keep": keep,
            "freeze_words": freeze_words,
            "held_out_names": held_out_names,
            "seed": seed,
            "name": name,
            "base": own,
        }
        _bootstrap(products, output, base, settings)
    except (ModelError, KnowledgeError) as error:
        typer.echo(f"tierwise train bootstrap: {error}", err=True)
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        typer.echo(f"tierwise train bootstrap: {error.name} is missing: pip install 'tierwise[train]'", err=True)
        raise typer.Exit(2) from error


@app.command()
def average(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoint folders that share an origin.")],
    *,
    pairs: Annotated[Path, typer.Option(help="Labelled pairs that none was trained on; canaries come from them.")],
    output: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    shares: Annotated[str, typer.Option(help="Share of each, `0.7,0.3`; equal ones if not given.")] = "",
    name: Annotated[str, typer.Option(help="Name of the checkpoint.")] = "tierwise-mini",
) -> None:
    """Put the mean of several checkpoints' weights into one: often better than each of them, at nobody's cost.

    With the base of a run among them, less of what it knew fades.

    `tierwise train average run/checkpoint base/checkpoint --shares 0.8,0.2 --pairs run/held_out.jsonl --output mean`

    `tierwise calibrate --pairs run/held_out.jsonl --checkpoint mean --write`
    """
    try:
        parts = [float(share) for share in shares.split(",")] if shares else [1 / len(checkpoints)] * len(checkpoints)
        manifest = load_manifest(checkpoints[0])
        from models.train.averaging import average as mean  # noqa: PLC0415 - torch is an extra

        rows = read_training_rows(pairs, manifest.tiers)
        with _console.status("Averaging, and looking for canaries"):
            made = mean(checkpoints, parts, output, rows, name=name)
    except (ModelError, OSError, ValueError) as error:
        typer.echo(f"tierwise train average: {error}", err=True)
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        typer.echo(f"tierwise train average: {error.name} is missing: pip install 'tierwise[train]'", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{output}: {made.checkpoint_id}")
    typer.echo(f"Next: tierwise calibrate --pairs {pairs} --checkpoint {output} --write")


def _stage(name: str, summary: str) -> None:
    """Add `tierwise train NAME --config FILE`."""

    def command(
        config: Annotated[Path, typer.Option(help="Settings of the run, YAML; paths in it are relative to the file.")],
        *,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Run a few steps, save nothing, and estimate time and memory.")
        ] = False,
    ) -> None:
        try:
            _run_stage(name, config, dry_run=dry_run)
        except (ModelError, OSError) as error:
            typer.echo(f"tierwise train {name}: {error}", err=True)
            raise typer.Exit(2) from error
        except ModuleNotFoundError as error:
            typer.echo(f"tierwise train {name}: {error.name} is missing: pip install 'tierwise[train]'", err=True)
            raise typer.Exit(2) from error

    told = f"{summary}\n\nKilled? The same command goes on where it was. Settings and recipes: docs/training.md."
    app.command(name, help=told)(command)


for _name, _summary in STAGES.items():
    _stage(_name, _summary)


def _run_stage(name: str, path: Path, *, dry_run: bool) -> None:
    config = load_config(name, path)
    from models.train.stages.finish import CHECKPOINT  # noqa: PLC0415
    from models.train.stages.registry import estimate_stage, run_stage  # noqa: PLC0415 - torch is an extra
    from models.train.stages.run import shown  # noqa: PLC0415

    with _bars() as progress:
        if dry_run:
            estimate = estimate_stage(config, progress)
        else:
            figures = run_stage(name, config, progress)
    if dry_run:
        shown(estimate, typer.echo)
        return
    if figures is None:  # another process of this run writes the checkpoint
        return
    checkpoint = config.output / CHECKPOINT
    typer.echo(f"{checkpoint}: {figures or 'no validation rows, so no figures and no canaries'}")
    typer.echo(f"Next: tierwise calibrate --pairs {config.valid or 'HELD_OUT'} --checkpoint {checkpoint} --write")


def _bootstrap(
    read: Sequence[retrieval.catalogue.Product], output: Path, base: Path | None, settings: dict[str, Any]
) -> None:
    from models.train.bootstrap import Bootstrap, BootstrapConfig  # noqa: PLC0415 - torch is an extra
    from models.train.release import HELD_OUT, release, write_rows  # noqa: PLC0415

    config = BootstrapConfig(**settings)
    with _console.status("Deriving knowledge cards"):
        products, cards = training_catalogue(read)
    with _bars() as progress:
        run = Bootstrap(products, cards, output, config, progress, base=base)
        figures = run.run()
        rows = run.held_out(4 * config.validation_groups)
    write_rows(rows, output / HELD_OUT)
    record: dict[str, Any] = {"method": "bootstrap", "products": len(products), "cards": len(cards), **asdict(config)}
    asyncio.run(release(output / "checkpoint", run.manifest, rows, {**record, "validation": figures}))
    typer.echo(f"{output / 'checkpoint'}: {figures}")
    typer.echo(f"Next: tierwise calibrate --pairs {output / HELD_OUT} --checkpoint {output / 'checkpoint'} --write")


def training_catalogue(read: Sequence[retrieval.catalogue.Product]) -> tuple[list[Product], list[Card]]:
    """Products as the judge's training takes them, and the knowledge cards that they yield."""
    from models.train.queries import synonyms  # noqa: PLC0415 - torch is an extra

    products = [judged_product(product) for product in read]
    place = {product.id: n for n, product in enumerate(products)}
    return products, [_training_card(card, place) for card in make_cards(read, synonyms())]


def judged_product(product: retrieval.catalogue.Product) -> Product:
    """Retrieval's product, its category read from the title, as the judge's."""
    return Product(
        id=product.id,
        title=product.title,
        brand=product.brand,
        category=product.category,
        attributes=product.attributes,
        description=product.description,
        name=product.name,
    )


def _training_card(card: Any, place: dict[str, int]) -> Card:
    from models.train.pairs import Card  # noqa: PLC0415 - torch is an extra

    calling = card.keys.get(_CALLING[card.kind], "")
    products = frozenset(place[p] for p in card.products)
    return Card(card.text, card.kind, products, (calling,) if calling else ())


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each kind of work; the callable takes (what, done, total)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            kind, _, detail = what.partition(" (")
            if kind not in tasks:
                tasks[kind] = bars.add_task(kind, total=total)
            bars.update(tasks[kind], completed=done, total=total, description=f"{kind} ({detail}" if detail else kind)

        yield show
