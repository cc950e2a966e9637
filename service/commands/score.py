"""`tierwise score`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.errors import ModelError
from service.canary import failing_canaries
from service.errors import ServiceError
from service.fetch import Fetcher
from service.gateway import open_judge
from service.knowledge import open_knowledge
from service.offline import Line, score_window
from service.pipeline import Pipeline
from service.settings import EngineName, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.settings import Settings

WINDOW = 1024  # lines scored and written at a time: what an interruption costs at most
SHOWN_ERRORS = 20

console = Console(stderr=True)


def score(
    source: Annotated[
        Path, typer.Option("--input", help="Pairs, one JSON object a line.", exists=True, dir_okay=False)
    ],
    output: Annotated[Path, typer.Option(help="Where the scores go, one JSON object a line, in input order.")],
    *,
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder; the shipped one if not given.")] = None,
    engine: Annotated[EngineName | None, typer.Option(help="Engine behind the port.")] = None,
    threads: Annotated[int | None, typer.Option(help="Compute threads; all cores if not given.", min=1)] = None,
    knowledge: Annotated[
        Path | None, typer.Option(help="Knowledge snapshot folder; no retrieval if not given.")
    ] = None,
    no_context: Annotated[bool, typer.Option("--no-context", help="Judge without retrieved chunks.")] = False,
) -> None:
    """Score a file of query-item pairs offline, through the same pipeline as the service.

    Input, one a line: `{"query": "usb c cable", "item": {"id": "1", "title": "...", "brand": "..."}}`, items with the
    fields of `POST /v1/score`. Output, one a line in the same order: `id, tier, label, band, score, margin,
    probabilities, status`. A line that cannot be scored is reported with its number, gets the status `invalid` in its
    place, and the rest goes on; the exit code is then 1. Interrupted? The same command goes on where it was: the scores
    so far are in `OUTPUT.part`.
    """
    try:
        settings = load_settings(checkpoint=checkpoint, engine=engine, threads=threads, knowledge=knowledge)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            bad = runner.run(_score_file(source, output, settings, "none" if no_context else "auto"))
    except (SettingsError, ModelError, ServiceError) as error:
        console.print(f"tierwise score: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        console.print("Interrupted. The same command goes on where it was.")
        raise typer.Exit(130) from error
    console.print(f"Wrote {output}." + (f" {bad} lines could not be scored." if bad else ""))
    if bad:
        raise typer.Exit(1)


async def _score_file(source: Path, output: Path, settings: Settings, context: Literal["auto", "none"]) -> int:
    judge = open_judge(settings)
    fetcher = Fetcher(open_knowledge(settings), budget_ms=float("inf"))
    try:
        await judge.engine.warm_up()
        if problems := await failing_canaries(judge):
            raise ServiceError(f"self-test: {'; '.join(problems)}")
        run = {
            "input_sha256": _sha256(source),
            "engine": judge.engine.name,
            "context": context,
            "beta": judge.manifest.beta,
            "versions": asdict(judge.versions(fetcher.version)),
            "limits": settings.limits.model_dump(),
        }
        return await _write_scores(source, Part(output, run), Pipeline(judge, fetcher), settings, context)
    finally:
        fetcher.close()
        await judge.engine.close()


async def _write_scores(
    source: Path, part: Part, pipeline: Pipeline, settings: Settings, context: Literal["auto", "none"]
) -> int:
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    done, bad = part.resume()
    written, started = 0, time.monotonic()
    with source.open("rb") as file:
        total = sum(1 for _ in _lines(file))
        file.seek(0)
        lines = _lines(file)
        for _ in islice(lines, done):
            pass
        with Progress(*columns, console=console) as progress, part.open() as sink:
            bar = progress.add_task("", total=total, completed=done, rate="")
            while window := list(islice(lines, WINDOW)):
                rows = await score_window(pipeline, window, settings.limits, context)
                for line, row in zip(window, rows, strict=True):
                    if row["status"] != "ok":
                        bad += 1
                        _report(line.number, row, bad, progress)
                sink.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
                sink.flush()
                written += len(window)
                rate = written / max(time.monotonic() - started, 1e-9)
                progress.update(bar, advance=len(window), rate=f"{rate:,.0f} pairs/s")
    part.finish()
    return bad


def _report(number: int, row: dict[str, Any], bad: int, progress: Progress) -> None:
    if bad < SHOWN_ERRORS:
        reason = row.get("error", f"the engine could not score it ({row['status']})")
        progress.console.print(f"line {number}: {reason}", markup=False, highlight=False)
    elif bad == SHOWN_ERRORS:
        progress.console.print("More lines follow; every one has a status other than ok in the output.")


class Part:
    """The unfinished output, and beside it what it was made with: a run goes on only with its own kind."""

    def __init__(self, output: Path, run: dict[str, Any]) -> None:
        self._output = output
        self._part = output.with_name(output.name + ".part")
        self._state = output.with_name(output.name + ".part.json")
        self._run = json.loads(json.dumps(run))

    def resume(self) -> tuple[int, int]:
        """Lines done, and how many of them are not ok; (0, 0) for a fresh start. Cuts a half-written line off."""
        try:
            same = json.loads(self._state.read_bytes()) == self._run
        except (FileNotFoundError, ValueError):
            same = False
        if not (same and self._part.exists()):
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._part.unlink(missing_ok=True)
            self._state.write_text(json.dumps(self._run))
            return 0, 0
        done = bad = whole = 0
        with self._part.open("r+b") as file:
            for line in file:
                if line.endswith(b"\n"):
                    done += 1
                    bad += json.loads(line)["status"] != "ok"
                    whole += len(line)
            file.truncate(whole)
        return done, bad

    def open(self) -> BinaryIO:
        """The file to append to."""
        return self._part.open("ab")

    def finish(self) -> None:
        """Put the output in its place in one step."""
        self._part.replace(self._output)
        self._state.unlink(missing_ok=True)


def _lines(file: BinaryIO) -> Iterator[Line]:
    """Lines that are not blank, with their numbers."""
    for number, raw in enumerate(file, start=1):
        if raw.strip():
            yield Line(number, raw)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
