"""Rows of a data file, one at a time, each with its place: JSON lines, CSV or Parquet.

Knows nothing about what the columns mean. Empty cells and nulls are left out of a row, so that a missing and an empty
value are the same thing to every reader above.

retrieval/rows.py reads the same formats for another contract: there a bad line is a row with its problem, because an
index of a million documents must not stop at one, while a figure or a model made without a bad row is a wrong one. The
packages do not import each other, and one reader for both would need a fourth package and both kinds of ending.
"""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any, Final

from models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIXES: Final = (".jsonl", ".csv", ".parquet")
# The csv module's own limit of 128 kB is meant for spreadsheets; a description may be longer.
LONGEST_CELL: Final = 64 * 1024 * 1024

Row = dict[str, Any]


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) in file order; place reads `file: line 7` and opens every message about that row.

    Raises:
        DataError: no such file, unknown suffix, pyarrow not installed, or a row that cannot be read.
    """
    reader = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot tell the format; name it with one of the suffixes {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    for line, row in reader(path):
        yield f"{path.name}: line {line}", {k: v for k, v in row.items() if v is not None and v != ""}


def _json_lines(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
                raise DataError(f"{path.name}: line {line}: not a JSON object in UTF-8: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path.name}: line {line}: expected a JSON object, found {type(row).__name__}")
            yield line, row


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if not header or len(set(header)) != len(header):
                raise DataError(f"{path.name}: line 1 must name the columns, each once")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    counts = f"{len(cells)} cells, the header names {len(header)} columns"
                    raise DataError(f"{path.name}: line {reader.line_num}: {counts}")
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name}: not CSV in UTF-8: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra: 170 MB that most installs do without
        import pyarrow.parquet as pq  # noqa: PLC0415 - the same
    except ImportError as error:
        raise DataError(f"{path.name}: reading Parquet needs pyarrow: pip install 'tierwise[parquet]'") from error
    line = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    line += 1
                    yield line, row
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name}: not a readable Parquet file: {error}") from error
