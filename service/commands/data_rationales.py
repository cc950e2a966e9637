"""`tierwise data rationales`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from models.errors import DataError, ModelError
from models.manifest import SHIPPED, load_manifest
from models.train.data.rationales import By, Explainer, write_rationales
from models.train.data.schema import read_training_rows
from models.train.rulebook import load_rulebook, shipped
from models.train.stages.config import Endpoint, RequestField
from service.measuring import progress_bars

if TYPE_CHECKING:
    from models.train.data.rationales import Summary

_USUAL: Final = Endpoint(url="", model="")


def rationales(
    file: Annotated[Path, typer.Argument(help="Labelled rows: .jsonl, .csv or .parquet.")],
    *,
    output: Annotated[Path, typer.Option(help="File of rows to write, .jsonl; an unfinished one is gone on with.")],
    rules: Annotated[Path | None, typer.Option(help="Rulebook in YAML; the shipped one if not given.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="OpenAI-compatible endpoint, up to and with /v1; the rules alone if not given.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The teacher's name for its model.")] = None,
    key_variable: Annotated[
        str, typer.Option(help="Environment variable with the teacher's key.")
    ] = _USUAL.key_variable,
    tries: Annotated[int, typer.Option(min=1, help="Answers drawn of the teacher for one row.")] = 4,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Rows that the teacher is asked about at a time.")
    ] = _USUAL.concurrency,
    timeout_s: Annotated[float, typer.Option(min=1, help="Longest wait for one answer.")] = _USUAL.timeout_s,
    longest: Annotated[
        int, typer.Option(min=1, help="Tokens of one answer, a teacher's thinking among them.")
    ] = _USUAL.longest,
    omit: Annotated[
        list[RequestField] | None,
        typer.Option(help="Field that the endpoint does not know; without `response_format` no JSON schema is sent."),
    ] = None,
    checkpoint: Annotated[Path, typer.Option(help="Its tiers are the ones allowed.")] = SHIPPED,
) -> None:
    """Write verdicts and a reason into labelled rows: by atomic rules, or by a teacher who is given them.

    `tierwise data rationales train.jsonl --output explained.jsonl`

    `tierwise data rationales train.jsonl --output explained.jsonl --teacher http://localhost:8000/v1 --model big`

    A teacher's answer is rejected when its verdicts imply another tier than the row's, or when the rules are sure that
    it errs. A row that nobody can explain stays without verdicts and teaches its label alone. Rows that have verdicts
    keep them.
    """
    try:
        if output.resolve() == file.resolve():
            raise DataError(f"{output} is the input: name another --output")
        if (teacher is None) != (model is None):
            raise DataError("--teacher and --model go together")
        tiers = load_manifest(checkpoint).tiers
        rulebook = load_rulebook(rules) if rules is not None else shipped()
        rows = read_training_rows(file, tiers)
        endpoint = (
            Endpoint(
                url=teacher,
                model=model,
                key_variable=key_variable,
                timeout_s=timeout_s,
                longest=longest,
                concurrency=concurrency,
                omit=tuple(omit or ()),
            )
            if teacher is not None and model is not None
            else None
        )
        explainer = Explainer(rows, rulebook, tiers, teacher=endpoint, tries=tries)
        with progress_bars() as progress:
            summary = write_rationales(
                rows,
                explainer,
                output,
                concurrency=endpoint.concurrency if endpoint else 1,
                progress=partial(progress, "explain"),
            )
    except (ModelError, OSError) as error:
        typer.echo(f"tierwise data rationales: {error}", err=True)
        raise typer.Exit(2) from error
    for line in _told(summary, output, len(rows)):
        typer.echo(line)


def _told(summary: Summary, output: Path, count: int) -> list[str]:
    kept = f", {summary.kept:,} of them by an earlier run" if summary.kept else ""
    without = sum(summary.by[by] for by in (By.UNTOLD, By.AGAINST))
    lines = [f"{output}: {count:,} rows{kept}; {without:,} of this run have no verdicts"]
    lines += [f"  {by}: {summary.by[by]:,}" for by in By if summary.by[by]]
    lines += [f"  answers rejected, {why}: {n:,}" for why, n in sorted(summary.rejected.items())]
    lines += [f"  the first refusal: {summary.refusal}"] if summary.refusal else []
    return lines
