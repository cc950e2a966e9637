"""What `eval`, `compare` and `calibrate` share: a warm judge, pairs with their chunk, progress, written reports."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.errors import ModelError
from models.evaluation import page, terminal
from models.evaluation.pairs import read_judgements
from models.evaluation.runs import data_of
from models.evaluation.scoring import Judge
from models.manifest import file_hash
from service.gateway import open_judge
from service.knowledge import open_knowledge
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from models.catalogue import Product
    from models.evaluation.pairs import LabelledPair
    from models.evaluation.reports import Data, Report
    from service.settings import Settings

# What a command turns into one line on stderr and exit status 2; anything else is a defect and shows where it happened.
EXPECTED = (ModelError, SettingsError, OSError)


def stop(command: str, error: Exception) -> NoReturn:
    """Say in one line why nothing was measured, and leave with status 2."""
    typer.echo(f"tierwise {command}: {error}", err=True)
    raise typer.Exit(2) from error


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Judge]:
    """The configured checkpoint behind the configured engine, warm; closed at the end.

    Raises:
        CheckpointError, SettingsError: what is wrong with the folder or the engine.
    """
    served = open_judge(settings)
    try:
        await served.engine.warm_up()
        yield Judge(served.manifest, served.tokenizer, served.writer, served.engine)
    finally:
        await served.engine.close()


def with_chunks(settings: Settings, pairs: Sequence[LabelledPair]) -> tuple[list[LabelledPair], str | None]:
    """Pairs with the chunk that serving would give their query, and the snapshot's version.

    A pair that brings its own chunk keeps it. Without configured knowledge the pairs stay as they are.

    Raises:
        SettingsError: the snapshot is missing, changed or truncated.
    """
    knowledge = open_knowledge(settings)
    if knowledge is None or (current := knowledge.current) is None:
        return list(pairs), None
    found = {query: current.search(query) for query in dict.fromkeys(p.query for p in pairs)}
    given = [
        pair if pair.chunk or (hit := found[pair.query]) is None else replace(pair, chunk=hit.text) for pair in pairs
    ]
    return given, current.version


def judgements(path: Path, products: dict[str, Product], tiers: int) -> tuple[list[LabelledPair], Data]:
    """Human judgements, and what they are.

    Raises:
        DataError: see `models.evaluation.pairs.read_judgements`.
    """
    pairs = read_judgements(path, products, tiers)
    return pairs, data_of(path.name, file_hash(path), pairs, tiers)


def columns_of(text: str) -> dict[str, str]:
    """`title=product_name,brand=maker` as a mapping.

    Raises:
        SettingsError: not of that form.
    """
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    if bad := [name for name, equals, column in parts if not (name.strip() and equals and column.strip())]:
        raise SettingsError(f"--columns: {bad[0]!r} is not of the form field=column")
    return {name.strip(): column.strip() for name, _, column in parts}


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr, one for each stage, made when a stage first reports."""
    console = Console(file=sys.stderr)
    parts = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*parts, console=console, transient=True) as bars:
        tasks = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def publish(report: Report, json_file: Path | None, html_file: Path | None) -> None:
    """Print the tables, and write the JSON and the page where asked, each atomically.

    Raises:
        OSError: a file cannot be written.
    """
    Console().print(terminal.render(report))
    if json_file is not None:
        write_atomically(json_file, report.model_dump_json(indent=1) + "\n")
    if html_file is not None:
        write_atomically(html_file, page.render(report))


def write_atomically(path: Path, text: str) -> None:
    """The whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
