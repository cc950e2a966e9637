"""`tierwise knowledge`: documents for an index, derived from what a shop has already."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from models.catalogue import read_catalogue
from models.errors import ModelError
from models.train.queries import synonyms
from retrieval.cards import make_cards
from retrieval.catalogue import Product
from retrieval.categories import with_categories
from retrieval.encyclopedia import taxonomy_cards
from retrieval.errors import KnowledgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrieval.cards import Card

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
_console: Final = Console(stderr=True)


def read_products(catalogue: Path, attributes: Path | None, columns: str) -> list[Product]:
    """The products of a catalogue file, with the categories that their titles tell where it has no such column."""
    mapping = dict(part.split("=", 1) for part in columns.split(",") if "=" in part)
    products = read_catalogue(catalogue, attributes=attributes, columns=mapping)
    return with_categories(
        [
            Product(
                id=p.id,
                title=p.title,
                brand=p.brand,
                name=p.name,
                category=p.category,
                description=p.description,
                attributes={name.lower(): value for name, value in p.attributes.items()},
            )
            for p in products.values()
        ]
    )


@app.command("from-catalogue")
def from_catalogue(
    catalogue: Annotated[Path, typer.Option(help="Products: .jsonl, .csv or .parquet, or a folder with `products.*`.")],
    output: Annotated[Path, typer.Option(help="Documents to write, .jsonl.")],
    *,
    attributes: Annotated[
        Path | None, typer.Option(help="Long table with product_id, attribute, value; `attributes_long.*` if beside.")
    ] = None,
    columns: Annotated[str, typer.Option(help="Columns with other names: `title=product_name,brand=maker`.")] = "",
    source: Annotated[str, typer.Option(help="What every chunk names as its source, licence included.")] = "catalogue",
) -> None:
    """Derive knowledge cards from a product catalogue.

    Brand, series and product type cards, and which supplies fit which devices: plain sentences made by rule from titles
    and attributes, no language model. Without a category column the category is read from the titles.

    Then: `tierwise index build --input cards.jsonl --output knowledge`
    """
    try:
        with _console.status("Reading the catalogue"):
            products = read_products(catalogue, attributes, columns)
        with _console.status(f"Deriving cards from {len(products):,} products"):
            cards = make_cards(products, synonyms())
    except (KnowledgeError, ModelError) as error:
        typer.echo(f"No cards: {error}", err=True)
        raise typer.Exit(2) from error
    write_cards(cards, output, source)


@app.command("from-taxonomy")
def from_taxonomy(
    categories: Annotated[Path, typer.Option(help="Rows with id, full_name (`A > B > C`) and attribute handles.")],
    attributes: Annotated[Path, typer.Option(help="Rows with name, handle, description and values.")],
    output: Annotated[Path, typer.Option(help="Documents to write, .jsonl.")],
    *,
    under: Annotated[list[str] | None, typer.Option(help="Only this top category; may be given several times.")] = None,
    source: Annotated[str, typer.Option(help="What every chunk names as its source.")] = "taxonomy",
) -> None:
    """Derive an encyclopedia of categories and attributes from a product taxonomy in Shopify's shape."""
    try:
        cards = taxonomy_cards(categories, attributes, under or ())
    except KnowledgeError as error:
        typer.echo(f"No cards: {error}", err=True)
        raise typer.Exit(2) from error
    write_cards(cards, output, source)


def write_cards(cards: Sequence[Card], output: Path, source: str) -> None:
    """Write cards as documents for `tierwise index build`, atomically."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        for card in cards:
            document = {"id": card.id, "kind": card.kind, "title": card.title, "text": card.text, "source": source}
            file.write(json.dumps({**document, "names": card.names, "keys": card.keys}, ensure_ascii=False) + "\n")
    temporary.replace(output)
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in Counter(c.kind for c in cards).items())
    typer.echo(f"{output}: {len(cards):,} cards ({kinds})")
