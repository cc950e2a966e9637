"""`tierwise train embedder`: the small sentence embedder of knowledge search, from a catalogue."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from models.errors import ModelError
from models.train.queries import synonyms
from retrieval.cards import Card, make_cards
from retrieval.chunks import leading_title
from retrieval.documents import BadLine, read_documents
from retrieval.errors import InputError, KnowledgeError
from retrieval.queries import generate
from retrieval.rows import read_rows
from service.commands.knowledge import read_products

if TYPE_CHECKING:
    from retrieval.catalogue import Product
    from retrieval.embedding import Vectors

ENCYCLOPEDIA: Final = Path(__file__).parents[2] / "retrieval" / "demo" / "encyclopedia.jsonl"
CARD_FIELDS: Final = ("id", "kind", "title", "text", "keys", "names")
SEEDS: Final = 3  # each generates other spellings of the same facts
TITLES: Final = 6000
DESCRIPTIONS: Final = 2000
LONGEST: Final = 120  # characters; what a teacher sees of a text


def embedder(
    catalogue: Annotated[Path, typer.Option(help="Products: .jsonl, .csv or .parquet, or a folder with `products.*`.")],
    output: Annotated[Path, typer.Option(help="Folder of the embedder to write.")],
    *,
    work: Annotated[Path, typer.Option(help="Folder of the run; a run that was stopped goes on from it.")],
    attributes: Annotated[Path | None, typer.Option(help="Long table with product_id, attribute, value.")] = None,
    columns: Annotated[str, typer.Option(help="Columns with other names: `title=product_name,brand=maker`.")] = "",
    encyclopedia: Annotated[Path, typer.Option(help="Cards of `tierwise knowledge from-taxonomy`.")] = ENCYCLOPEDIA,
    texts: Annotated[
        Path | None, typer.Option(help="More documents whose titles the teacher explains, for a wider vocabulary.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of Adam; a hundred take some ten seconds.", min=1)] = 600,
    seed: Annotated[int, typer.Option(help="Equal seeds and data give equal vectors on one machine.")] = 0,
    tau: Annotated[float, typer.Option(help="Gate to write beside the vectors; bench/knowledge.py chooses it.")] = 0.5,
) -> None:
    """Train the static embedder: token vectors that a query and the card that answers it agree on.

    Learned from queries generated from the catalogue and from all-MiniLM-L6-v2 as a teacher. Needs the extra `train`.
    Afterwards build indexes with `tierwise index build --embedder OUTPUT`.
    """
    try:
        _train(
            read_products(catalogue, attributes, columns),
            read_cards(encyclopedia),
            _titles(texts) if texts else [],
            output,
            work,
            steps=steps,
            seed=seed,
            tau=tau,
        )
    except (KnowledgeError, ModelError) as error:
        typer.echo(f"No embedder was trained: {error}", err=True)
        raise typer.Exit(2) from error


def _train(
    products: Sequence[Product],
    encyclopedia: Sequence[Card],
    more: Sequence[str],
    output: Path,
    work: Path,
    *,
    steps: int,
    seed: int,
    tau: float,
) -> None:
    from models.train.minilm import encoder_folder  # noqa: PLC0415 - torch is an extra
    from models.train.teacher import SentenceEncoder  # noqa: PLC0415
    from retrieval.distill import DistillConfig, DistillData, train_embedder  # noqa: PLC0415

    class Teacher:
        """all-MiniLM-L6-v2 as the port that distillation asks."""

        def __init__(self) -> None:
            self._encoder = SentenceEncoder(encoder_folder())

        def encode(self, texts: Sequence[str]) -> Vectors:
            vectors = np.zeros((len(texts), 384), np.float32)
            for rows, block in self._encoder.encode(texts):
                vectors[rows] = block
            return vectors

    rng = random.Random(seed)
    everyday = synonyms()
    cards = [*make_cards(products, everyday), *encyclopedia]
    generated = [generate(products, cards, everyday, seed=seed + n, per_card=12) for n in range(SEEDS)]
    held_out = {p.query for pairs in generated for p in pairs if p.split != "train"}
    pairs = {p.query: p for pairs in generated for p in pairs if p.split != "train" or p.query not in held_out}
    titles = sorted({p.title[:LONGEST] for p in products})
    descriptions = sorted({p.description[:LONGEST] for p in products if p.description})
    texts = [
        *rng.sample(titles, min(TITLES, len(titles))),
        *rng.sample(descriptions, min(DESCRIPTIONS, len(descriptions))),
        *(c.title for c in encyclopedia),
        *more,
    ]
    data = DistillData(
        pairs=list(pairs.values()),
        cards={c.id: leading_title(c.title, c.text) for c in cards},
        texts=list(dict.fromkeys(texts)),
        tokenizer=(encoder_folder() / "tokenizer.json").read_text(encoding="utf-8"),
    )
    config = DistillConfig(steps=steps, seed=seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        trained = train_embedder(data, Teacher(), output, work, config=config, tau=tau, progress=_shown(bars))
    typer.echo(f"{output}: {trained.id}, {trained.dimension} dimensions")


def _shown(bars: Progress) -> Callable[[int, int, str], None]:
    tasks: dict[str, TaskID] = {}

    def show(done: int, total: int, what: str) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    return show


def read_cards(path: Path) -> list[Card]:
    """Cards as `tierwise knowledge` writes them; they name no products.

    Raises:
        KnowledgeError: the file cannot be read, or a line is no card.
    """
    cards = []
    for row in read_rows(path):
        if row.problem or not row.values.keys() >= set(CARD_FIELDS):
            raise InputError(f"{path}: line {row.line}: {row.problem or 'a card has ' + ', '.join(CARD_FIELDS)}")
        v = row.values
        cards.append(Card(v["id"], v["kind"], v["title"], v["text"], v["keys"], (), tuple(v["names"])))
    return cards


def _titles(path: Path) -> list[str]:
    return [d.title or d.text[:LONGEST] for d in read_documents(path) if not isinstance(d, BadLine)]
