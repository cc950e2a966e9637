"""Rows of table files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import InputError
from retrieval.rows import count_rows, read_rows

if TYPE_CHECKING:
    from pathlib import Path


def written(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_the_three_formats_give_the_same_rows(tmp_path: Path) -> None:
    """JSON lines, CSV and Parquet with equal content are read to equal values."""
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["1", "2"], "text": ["a", "b"]}), parquet)
    jsonl = written(tmp_path, "a.jsonl", b'{"id": "1", "text": "a"}\n{"id": "2", "text": "b"}\n')
    csv = written(tmp_path, "a.csv", b"id,text\n1,a\n2,b\n")
    expected = [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]
    assert [[r.values for r in read_rows(p)] for p in (parquet, jsonl, csv)] == [expected] * 3


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "not JSON"),
        (b"[1]", "expected a JSON object, found list"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_json_line_is_named_and_the_rest_is_read(tmp_path: Path, line: bytes, problem: str) -> None:
    """The problem comes with its line number, between two good rows; blank lines count."""
    path = written(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"a": 1}\n\n' + line + b'\n{"a": 2}')
    first, bad, last = read_rows(path)
    assert (first.values, last.values, last.line) == ({"a": 1}, {"a": 2}, 4)
    assert bad.line == 3
    assert problem in bad.problem


def test_csv_names_the_line_where_a_row_begins(tmp_path: Path) -> None:
    """A field over several lines, a row of the wrong width and bytes that are no UTF-8 keep their editor's line."""
    path = written(tmp_path, "a.csv", b'id,text\n1,"two\nlines"\n2\n3,\xff\n4,d\n')
    rows = list(read_rows(path))
    assert [(r.line, bool(r.problem)) for r in rows] == [(2, False), (4, True), (5, True), (6, False)]
    assert rows[0].values["text"] == "two\nlines"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "expected one of"),
        ("a.csv", b"id,id\n1,2\n", "each once"),
        ("a.csv", b"", "must name the columns"),
        ("a.parquet", b"no", "not a readable Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """The error holds the path and what is wrong with it."""
    path = written(tmp_path, name, content)
    with pytest.raises(InputError, match=message) as raised:
        list(read_rows(path))
    assert str(path) in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """No file is an input error, not an OSError."""
    with pytest.raises(InputError, match="does not exist"):
        read_rows(tmp_path / "a.jsonl")


def test_rows_are_counted_for_a_progress_bar(tmp_path: Path) -> None:
    """At least as many as there are, without a parse."""
    path = written(tmp_path, "a.jsonl", b'{"a": 1}\n{"a": 2}')
    assert count_rows(path) == 2
    assert count_rows(tmp_path / "a.parquet") is None
