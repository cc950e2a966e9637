"""Documents and what is removed from them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.documents import BadLine, Document, bad_input, clean, read_documents

GOOD = {"id": "a", "text": "words", "source": "here"}


def read(tmp_path: Path, *rows: dict[str, Any]) -> list[Document | BadLine]:
    path = tmp_path / "documents.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return list(read_documents(path))


def test_optional_fields_may_be_absent_or_null(tmp_path: Path) -> None:
    """Title and url default to nothing, other columns are ignored, numbers are good ids."""
    [document] = read(tmp_path, {"id": 7, "text": "words", "source": "here", "title": None, "extra": [1]})
    assert document == Document(id="7", text="words", source="here")


@pytest.mark.parametrize("names", [["laptop", "pc\u200b"], "laptop; pc", "laptop;;pc;"])
def test_names_are_a_list_or_one_text(tmp_path: Path, names: Any) -> None:
    """Tables without lists write them with semicolons; each is cleaned, empty ones are left out."""
    [document] = read(tmp_path, {**GOOD, "names": names})
    assert isinstance(document, Document)
    assert document.names == ("laptop", "pc")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": ""}, "no text"),
        ({"text": "\u200b\u202e\x00"}, "no text"),
        ({"id": None, "source": None}, "no id and no source"),
        ({"text": ["words"]}, "'text' must be text, found list"),
        ({"names": [1]}, "'names' must be a list of texts"),
        ({"names": {"a": 1}}, "'names' must be a list of texts"),
        ({"url": {"a": 1}}, "'url' must be text, found dict"),
        ({"id": "x" * 300}, "'id' has 300 characters, at most 256"),
    ],
)
def test_a_bad_document_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    """Each way to be unusable says what to change; the good line before it is still read."""
    good, bad = read(tmp_path, GOOD, {**GOOD, "id": "b", **change})
    assert isinstance(good, Document)
    assert isinstance(bad, BadLine)
    assert bad.line == 2
    assert problem in bad.problem


def test_an_id_may_occur_once(tmp_path: Path) -> None:
    """The second document of an id names the line of the first."""
    _, bad = read(tmp_path, GOOD, GOOD)
    assert bad == BadLine(2, "id 'a' occurs already in line 1")


def test_the_error_names_lines_but_not_all_of_a_thousand() -> None:
    """Twenty lines, then a count."""
    message = str(bad_input(Path("d.jsonl"), [BadLine(n, "bad") for n in range(1, 31)]))
    assert "30 bad lines" in message
    assert "line 20: bad" in message
    assert "line 21: bad" not in message
    assert "and 10 more" in message


@given(st.text())
def test_only_visible_characters_are_left(text: str) -> None:
    """No control, format, private-use or unassigned character survives, and cleaning twice changes nothing."""
    cleaned = clean(text)
    assert not {unicodedata.category(c) for c in cleaned} & {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"}
    assert clean(cleaned) == cleaned
    assert cleaned == cleaned.strip()


def test_visible_text_of_any_script_stays() -> None:
    """Cleaning is not for letters: accents, CJK and emoji stay, line breaks become spaces."""
    assert clean("Caf\u0065\u0301\nж  日本 🖨️") == "Café ж 日本 🖨\ufe0f"
