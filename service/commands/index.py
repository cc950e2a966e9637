"""`tierwise index`: documents to a knowledge snapshot, and a look into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from models.errors import ModelError
from models.manifest import SHIPPED as SHIPPED_CHECKPOINT
from models.manifest import load_manifest
from models.tokenizer import FieldTokenizer
from retrieval.build import build_snapshot
from retrieval.chunks import Chunker
from retrieval.embedding import SHIPPED as SHIPPED_EMBEDDER
from retrieval.embedding import StaticEmbedder
from retrieval.errors import KnowledgeError
from retrieval.rows import count_rows
from retrieval.search import KnowledgeBase
from retrieval.sentence import SentenceEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retrieval.build import Built
    from retrieval.embedding import Embedder

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
LONGEST = 1 << 20  # tokens; a count must not be cut


@app.command()
def build(
    source: Annotated[Path, typer.Option("--input", help="Documents: .jsonl, .csv or .parquet.")],
    output: Annotated[Path, typer.Option(help="Knowledge folder; a service that reads it takes the new version over.")],
    *,
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint whose tokenizer and chunk budget count.", show_default="the shipped one")
    ] = SHIPPED_CHECKPOINT,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="Folder of a static embedder, or name of a sentence-transformers model.", show_default="shipped"
        ),
    ] = None,
    tau: Annotated[
        float | None, typer.Option(help="Score below which a query gets no chunk.", show_default="the embedder's own")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Most tokens of a chunk.", show_default="the checkpoint's", min=8)
    ] = None,
    overlap: Annotated[int, typer.Option(help="Tokens that a chunk repeats from the one before.", min=0)] = 24,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out and name them.")] = False,
    keep: Annotated[int, typer.Option(help="Versions that stay on disk, the new one included.", min=1)] = 2,
) -> None:
    """Build a knowledge snapshot and put it in force.

    Documents have the columns **id**, **text** and **source**, optionally **title**, **url** and
    **names** (what else its subject is called; a list, or text with semicolons).
    They are cut at sentence bounds into chunks that fit the checkpoint's chunk budget, embedded, indexed and written to
    `OUTPUT/<version>`; then `OUTPUT/CURRENT` is switched in one step. Interrupted at any point, the old version stays.

        tierwise knowledge from-catalogue --catalogue products.jsonl --output cards.jsonl
        tierwise index build --input cards.jsonl --output knowledge
        tierwise serve --knowledge knowledge
    """
    try:
        built = run_build(
            source,
            output,
            checkpoint=checkpoint,
            embedder=load_embedder(embedder),
            tau=tau,
            budget=budget,
            overlap=overlap,
            skip_bad=skip_bad,
            keep=keep,
        )
    except (KnowledgeError, ModelError, ValueError) as error:
        typer.echo(f"No snapshot was built: {error}", err=True)
        raise typer.Exit(2) from error
    for bad in built.skipped:
        typer.echo(f"{source}: line {bad.line} skipped: {bad.problem}", err=True)
    facts = built.manifest
    typer.echo(f"{output}: version {facts.version} in force, {facts.documents:,} documents, {facts.chunks:,} chunks")


@app.command()
def check(folder: Annotated[Path, typer.Argument(help="Knowledge folder or one snapshot.")]) -> None:
    """Check every file of a snapshot against its manifest and say what is in it."""
    facts = _open(folder, None).manifest
    typer.echo(
        f"{folder}: version {facts.version} of {facts.created} is intact: {facts.documents:,} documents, "
        f"{facts.chunks:,} chunks of at most {facts.budget} tokens, embedder {facts.embedder}, tau {facts.tau}"
    )


@app.command()
def search(
    folder: Annotated[Path, typer.Argument(help="Knowledge folder or one snapshot.")],
    query: Annotated[str, typer.Argument(help="What a shopper would type.")],
    *,
    tau: Annotated[float | None, typer.Option(help="Another gate than the snapshot's.")] = None,
) -> None:
    """Show the chunk that a query gets, or the one that it misses."""
    knowledge = _open(folder, tau)
    best = knowledge.best(query)
    if best is None:
        typer.echo("No chunk: no word of the query is known.")
        return
    verdict = "used" if best.score >= knowledge.tau else f"not used, below tau {knowledge.tau}"
    typer.echo(f"{best.score:.3f} ({verdict})  {best.chunk_id}  [{best.source}]\n{best.text}")


def run_build(
    source: Path,
    output: Path,
    *,
    checkpoint: Path = SHIPPED_CHECKPOINT,
    embedder: Embedder | None = None,
    tau: float | None = None,
    budget: int | None = None,
    overlap: int = 24,
    skip_bad: bool = False,
    keep: int = 2,
) -> Built:
    """Build a snapshot with a progress bar on stderr; defaults are the shipped checkpoint's and embedder's.

    Raises:
        KnowledgeError: the input or the embedder is not usable.
        ModelError: the checkpoint is not usable.
        ValueError: budget and overlap do not fit together, or an embedder without a gate of its own and no tau.
    """
    manifest = load_manifest(checkpoint, verify=False)
    limit = manifest.prompt.budgets.get("chunk")
    if budget is None and limit is None:
        msg = f"{manifest.name} reads no chunk: its prompt has no such field; give --budget to build one anyway"
        raise ValueError(msg)
    if budget and limit and budget > limit:
        msg = f"--budget {budget} is above the {limit} tokens that {manifest.name} reads of a chunk"
        raise ValueError(msg)
    embedder = embedder or load_embedder(None)
    if tau is None:
        if not isinstance(embedder, StaticEmbedder):
            msg = f"{embedder.id} has no gate of its own: give --tau (`tierwise index search` shows scores)"
            raise ValueError(msg)
        tau = embedder.config.tau
    chunker = Chunker(token_counter(checkpoint), budget or limit or 0, overlap)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Documents", total=count_rows(source) if source.is_file() else None)
        return build_snapshot(
            source,
            output,
            embedder=embedder,
            chunker=chunker,
            tau=tau,
            skip_bad=skip_bad,
            keep=keep,
            progress=lambda n: bar.advance(task, n),
        )


def token_counter(checkpoint: Path) -> Callable[[Sequence[str]], Sequence[int]]:
    """Counts tokens of texts as the prompt writer of a checkpoint does."""
    tokenizer = FieldTokenizer(checkpoint)
    return lambda texts: [len(f.ids) for f in tokenizer.fields(texts, [LONGEST] * len(texts))]


def load_embedder(name: str | None) -> Embedder:
    """The shipped embedder, a static one from a folder, or a sentence-transformers model by name."""
    if name is None:
        return StaticEmbedder(SHIPPED_EMBEDDER)
    folder = Path(name)
    return StaticEmbedder(folder) if (folder / "embedder.json").is_file() else SentenceEmbedder(name)


def _open(folder: Path, tau: float | None) -> KnowledgeBase:
    try:
        return KnowledgeBase.open(folder, tau)
    except KnowledgeError as error:
        typer.echo(f"Refused: {error}", err=True)
        raise typer.Exit(2) from error
