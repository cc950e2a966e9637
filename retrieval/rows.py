"""Rows of a table file, one at a time, each with its line number: JSON lines, CSV or Parquet.

Knows nothing about what the columns mean. A line that cannot be read is a row too, with its problem, so that the caller
decides whether to stop or to go on, and can name it either way.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from retrieval.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMATS: Final = (".jsonl", ".csv", ".parquet")
# A CSV field may hold a long document; the library's own limit of 128 kB is meant for spreadsheets.
csv.field_size_limit(64 * 1024 * 1024)


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `line` counts from 1 as an editor does (Parquet: rows). `values` is empty when `problem` is set."""

    line: int
    values: dict[str, Any]
    problem: str = ""


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a .jsonl, .csv or .parquet file in order.

    Raises:
        InputError: no such file, unknown suffix, a Parquet file that cannot be read, or pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path} is {suffix or 'without a suffix'}: expected one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file")
    if suffix == ".jsonl":
        return _json_lines(path)
    return _csv(path) if suffix == ".csv" else _parquet(path)


def count_rows(path: Path) -> int | None:
    """Number of rows for a progress bar (an upper bound for .csv), or None when it would cost a full read."""
    if path.suffix.lower() == ".parquet":
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) + 1


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                values = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                yield Row(line, {}, f"not UTF-8 at byte {error.start} of the line")
            except (ValueError, RecursionError) as error:
                yield Row(line, {}, f"not JSON: {error}")
            else:
                if isinstance(values, dict):
                    yield Row(line, values)
                else:
                    yield Row(line, {}, f"expected a JSON object, found {type(values).__name__}")


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, None)
            if header is None or len(set(header)) != len(header):
                raise InputError(f"{path}: the first line must name the columns, each once")
            start = reader.line_num + 1
            for cells in reader:
                line, start = start, reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(header):
                    yield Row(line, {}, f"{len(cells)} fields, the header names {len(header)}")
                elif any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
                    yield Row(line, {}, "not UTF-8")
                else:
                    yield Row(line, {name: cell for name, cell in zip(header, cells, strict=True) if cell})
        except csv.Error as error:
            raise InputError(f"{path}: line {reader.line_num} is not CSV: {error}") from error


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra: 170 MB that most installs do without
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise InputError(f"{path}: reading Parquet needs pyarrow: pip install 'tierwise[parquet]'") from error
    try:
        line = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                for values in batch.to_pylist():
                    line += 1
                    yield Row(line, {name: value for name, value in values.items() if value is not None})
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error
