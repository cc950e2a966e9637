"""An encyclopedia of categories and attributes from a product taxonomy in Shopify's shape (MIT licence).

Categories are rows with id, full_name ("Electronics > Audio > Headphones") and attribute handles; attributes are rows
with name, handle, a one-sentence description and values.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from retrieval.cards import Card, key_of, listed
from retrieval.documents import clean
from retrieval.errors import InputError
from retrieval.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_NO_HANDLE: Final = re.compile(r"[^a-z0-9]+")
SEPARATOR: Final = " > "
MAX_VALUES: Final = 24
MAX_SHARE: Final = 0.3  # an attribute of more categories than this (colour, pattern) tells none of them apart


def taxonomy_cards(categories: Path, attributes: Path, under: Sequence[str] = ()) -> list[Card]:
    """Cards of the categories below the given top categories (all when none), and of the attributes that they use.

    Raises:
        InputError: a file cannot be read, a row lacks a column, or no category is left.
    """
    rows = [(_text(categories, r, "full_name"), _handles(r.get("attributes"))) for r in _rows(categories)]
    chosen = [(name, handles) for name, handles in rows if not under or name.split(SEPARATOR)[0] in under]
    if not chosen:
        raise InputError(f"{categories} has no category under {', '.join(under)}")
    used = Counter(h for _, handles in chosen for h in handles)
    facts = {_handle(_text(attributes, r, "handle")): r for r in _rows(attributes)}
    names = {h: _text(attributes, facts[h], "name") for h in used if h in facts}
    telling = {h: names[h] for h in names if used[h] <= MAX_SHARE * len(chosen)}
    return [*_categories(chosen, telling), *(_attribute(attributes, facts[h]) for h in used if h in facts)]


def _categories(chosen: Sequence[tuple[str, Sequence[str]]], telling: dict[str, str]) -> Iterable[Card]:
    children: defaultdict[str, list[str]] = defaultdict(list)
    for name, _ in chosen:
        parent, _, leaf = name.rpartition(SEPARATOR)
        children[parent].append(leaf)
    for name, handles in chosen:
        *path, leaf = name.split(SEPARATOR)
        text = f"{leaf}: a category of {' in '.join(reversed(path))}." if path else f"{leaf}: a top category."
        if children[name]:
            text += f" Kinds: {listed(children[name])}."
        if own := [telling[h] for h in handles if h in telling]:
            text += f" Told apart by: {listed(own)}."
        yield Card(f"category:{key_of(name)}", "category", leaf, text, {"type": leaf}, ())


def _attribute(path: Path, row: dict[str, Any]) -> Card:
    name, handle = _text(path, row, "name"), _text(path, row, "handle")
    values = [v for v in map(clean, row.get("values") or ()) if v.lower() != "other"]
    text = f"{name}: {clean(row.get('description', '')).rstrip('.')}."
    if values:
        text += f" Values: {listed(values, most=MAX_VALUES)}."
    return Card(f"attribute:{key_of(handle)}", "attribute", name, text, {"attribute": name}, ())


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    for row in read_rows(path):
        if row.problem:
            raise InputError(f"{path}: line {row.line}: {row.problem}")
        yield row.values


def _text(path: Path, row: dict[str, Any], column: str) -> str:
    if column not in row:
        raise InputError(f"{path}: a row has no {column!r}; found {', '.join(row)}")
    return clean(row[column])


def _handles(value: Any) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value or ()
    return [_handle(str(n)) for n in names]


def _handle(text: str) -> str:
    """`audio_codecs/formats_supported` and `audio-codecs-formats-supported` name the same attribute."""
    return _NO_HANDLE.sub("-", text.lower()).strip("-")
