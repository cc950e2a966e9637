"""Documents as people bring them, checked line by line, with untrusted characters removed.

A document's text ends up in a prompt, so what cannot be seen is stripped here, once: control characters, zero-width and
bidirectional marks, private-use and unassigned code points.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from retrieval.errors import InputError
from retrieval.rows import Row, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUIRED: Final = ("id", "text", "source")
# Characters. A longer text is a whole book: split it into documents that can be named one by one.
LONGEST: Final = {"id": 256, "title": 2_000, "source": 2_000, "url": 2_000, "text": 1_000_000}
MAX_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    `source` says where it comes from and travels with every chunk. `title` leads every chunk. `names` are other names
    of its subject ("laptop" for "notebook"), by which it is found too.
    """

    id: str
    text: str
    source: str
    title: str = ""
    url: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that holds no usable document."""

    line: int
    problem: str


TEXTS: Final = tuple(f.name for f in fields(Document) if f.name != "names")


def read_documents(path: Path) -> Iterator[Document | BadLine]:
    """Yield documents and bad lines in file order. Columns: id, text, source; optional title, url, names.

    `names` is a list, or one text with semicolons between names.

    Other columns are ignored, so that a file made for another tool serves here too.

    Raises:
        InputError: the file cannot be read at all.
    """
    seen: dict[str, int] = {}
    for row in read_rows(path):
        problem = row.problem or _problem(row, seen)
        if problem:
            yield BadLine(row.line, problem)
        else:
            values = {name: clean(row.values.get(name) or "") for name in TEXTS}
            seen[values["id"]] = row.line
            yield Document(**values, names=tuple(filter(None, map(clean, _names(row.values.get("names"))))))


def bad_input(path: Path, bad: list[BadLine]) -> InputError:
    """The error that names the bad lines of a file."""
    named = "\n".join(f"  line {b.line}: {b.problem}" for b in bad[:MAX_NAMED])
    more = f"\n  and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
    return InputError(
        f"{path}: {len(bad)} bad lines; correct them, or skip them on purpose with --skip-bad\n{named}{more}"
    )


def clean(value: Any) -> str:
    """One line of visible text: NFC, no control, format, surrogate, private-use or unassigned characters."""
    text = unicodedata.normalize("NFC", str(value))
    kept = (" " if c in "\n\r\t\v\f\x85\u2028\u2029" else c for c in text)
    visible = "".join(c for c in kept if c.isprintable() or unicodedata.category(c) == "Zs")
    return " ".join(visible.split())


def _names(value: str | list[str] | None) -> list[str]:
    return value.split(";") if isinstance(value, str) else value or []


def _problem(row: Row, seen: dict[str, int]) -> str:
    values = {name: row.values.get(name) for name in TEXTS}
    wrong = next((n for n, v in values.items() if not isinstance(v, (str, int, type(None)))), None)
    if wrong:
        return f"{wrong!r} must be text, found {type(values[wrong]).__name__}"
    names = row.values.get("names")
    if not isinstance(names, (str, list, type(None))) or not all(isinstance(n, str) for n in names or ()):
        return "'names' must be a list of texts, or one text with semicolons"
    missing = [name for name in REQUIRED if not clean(values[name] or "")]
    if missing:
        return f"no {' and no '.join(missing)}: {', '.join(REQUIRED)} are required"
    own = clean(values["id"])
    if own in seen:
        return f"id {own!r} occurs already in line {seen[own]}"
    for name, most in LONGEST.items():
        if len(str(values[name] or "")) > most:
            return f"{name!r} has {len(str(values[name])):,} characters, at most {most:,}"
    return ""
