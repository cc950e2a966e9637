"""The reader of a product catalogue: a file of products, and optionally a long table of attributes beside it.

Formats: .jsonl, .csv, .parquet, one row per product. Each field is read from the first of these columns that the row
has, unless `columns` says otherwise (`{"title": "product_name"}`):

    id           id, product_id                       required, unique
    title        title                                required
    brand        brand, supplier, manufacturer
    category     category, category_path
    description  description, short_description
    name         name, model                          model name or number
    attributes   attributes: a mapping, a list of pairs or of {name, value}, or the text "name: value; name: value"

Icecat layout: beside `products.parquet` lies `attributes_long.parquet` with the columns product_id, attribute, value,
one row per attribute; it is found by its name. Numbers lose a trailing `.0`, booleans read yes and no.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from models.errors import DataError
from models.prompt import Item
from models.rows import SUFFIXES, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from models.rows import Row

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "id": ("id", "product_id"),
    "title": ("title",),
    "brand": ("brand", "supplier", "manufacturer"),
    "category": ("category", "category_path"),
    "description": ("description", "short_description"),
    "name": ("name", "model"),
    "attributes": ("attributes",),
}
REQUIRED: Final = ("id", "title")
LONG_TABLE: Final = "attributes_long"
LONG_COLUMNS: Final = ("product_id", "attribute", "value")

_SPACES: Final = re.compile(r"\s+")
_SEPARATORS: Final = re.compile(r"[\s_]+")
_WHOLE_NUMBER: Final = re.compile(r"(-?\d+)\.0")
_BOOLEANS: Final = {"true": "yes", "false": "no"}


@dataclass(frozen=True, slots=True)
class Product:
    """One product of a catalogue. Every text is one line; attributes keep the catalogue's order."""

    id: str
    title: str
    brand: str = ""
    category: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    name: str = ""

    def item(self) -> Item:
        """The text that the judge reads."""
        return Item(
            title=self.title,
            brand=self.brand,
            category=self.category,
            attributes=attribute_text(self.attributes),
            description=self.description,
        )


def attribute_text(attributes: Mapping[str, str]) -> str:
    """Attributes as the one text that prompts hold, in training as in serving: `name value, name value`."""
    return ", ".join(f"{name} {value}" for name, value in attributes.items())


def read_catalogue(
    path: Path, *, attributes: Path | None = None, columns: Mapping[str, str] | None = None
) -> dict[str, Product]:
    """Read a catalogue.

    Args:
        path: file of products, or a folder that holds one named `products` with a known suffix.
        attributes: long table of attributes; by default `attributes_long` beside a file named `products`.
        columns: field -> column, where the file's names are not in the list above.

    Returns:
        Product by id, in file order.

    Raises:
        DataError: file missing or unreadable, a row without id or title, an id that occurs twice, a column or field
            that does not exist; the message names file and line.
    """
    if path.is_dir():
        path = _beside(path / "products") or path / "products.parquet"
    if attributes is None and path.stem == "products":
        attributes = _beside(path.with_name(LONG_TABLE))
    sources = _sources(columns or {})
    long = _read_long_table(attributes) if attributes else {}
    unseen = set((columns or {}).values())
    products: dict[str, Product] = {}
    for place, row in read_rows(path):
        unseen -= row.keys()
        product = _product(place, row, sources, long)
        if product.id in products:
            raise DataError(f"{place}: the id {product.id!r} occurs twice")
        products[product.id] = product
    if not products:
        raise DataError(f"{path.name} holds no products")
    if unseen:
        raise DataError(f"{path.name} has no column {' or '.join(sorted(unseen))}, or every cell of it is empty")
    return products


def _beside(stem: Path) -> Path | None:
    return next((file for suffix in SUFFIXES if (file := stem.with_suffix(suffix)).is_file()), None)


def _sources(columns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    if unknown := columns.keys() - COLUMNS.keys():
        raise DataError(f"a product has no field {sorted(unknown)}; its fields are {', '.join(COLUMNS)}")
    return {name: (columns[name],) if name in columns else known for name, known in COLUMNS.items()}


def _product(
    place: str, row: Row, sources: Mapping[str, tuple[str, ...]], long: Mapping[str, Mapping[str, str]]
) -> Product:
    cells = {name: next((row[c] for c in source if c in row), None) for name, source in sources.items()}
    texts = {name: value_text(cell) for name, cell in cells.items() if name != "attributes" and cell is not None}
    texts["id"] = str(cells["id"]).strip() if cells["id"] is not None else ""
    for name in REQUIRED:
        if not texts.get(name):
            known = " or ".join(sources[name])
            raise DataError(f"{place}: no {name}; it is read from {known}. The row has {', '.join(sorted(row))}")
    own = _pairs(place, cells["attributes"])
    return Product(**texts, attributes={**_named(own), **long.get(texts["id"], {})})


def value_text(value: object) -> str:
    """Any cell as text on one line: `6.0` as `6`, true as `yes`, white space and written-out newlines as one space."""
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(value_text, value)))
    text = _SPACES.sub(" ", str(value).replace("\\n", " ")).strip()
    if whole := _WHOLE_NUMBER.fullmatch(text):
        return whole[1]
    return _BOOLEANS.get(text.lower(), text)


def _pairs(place: str, cell: Any) -> list[tuple[Any, Any]]:
    if cell is None:
        return []
    if isinstance(cell, str):
        if not cell.lstrip().startswith(("{", "[")):
            parts = (part.partition(":") for part in cell.split(";"))
            return [(name, value) for name, _, value in parts if value.strip()]
        try:
            cell = json.loads(cell)
        except ValueError as error:
            raise DataError(f"{place}: attributes look like JSON and are not: {error}") from error
    if isinstance(cell, dict):
        return list(cell.items())
    try:
        return [(p["name"], p["value"]) if isinstance(p, dict) else (p[0], p[1]) for p in cell]
    except (TypeError, KeyError, IndexError) as error:
        raise DataError(
            f"{place}: attributes must be a mapping, a list of pairs, or the text 'name: value; name: value'"
        ) from error


def _named(pairs: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """Attribute names as words; values of a repeated name joined by a space, as a list's are."""
    result: dict[str, str] = {}
    for name, value in pairs:
        word, text = _SEPARATORS.sub(" ", str(name)).strip(), "" if value is None else value_text(value)
        if word and text:
            result[word] = f"{result[word]} {text}" if word in result else text
    return result


def _read_long_table(path: Path) -> dict[str, dict[str, str]]:
    rows: dict[str, list[tuple[Any, Any]]] = {}
    for place, row in read_rows(path):
        if missing := [c for c in LONG_COLUMNS[:2] if c not in row]:
            raise DataError(f"{place}: no {' and no '.join(missing)}; expected the columns {', '.join(LONG_COLUMNS)}")
        rows.setdefault(str(row["product_id"]).strip(), []).append((row["attribute"], row.get("value")))
    return {product: _named(pairs) for product, pairs in rows.items()}
