"""A product catalogue as a list of products, from tables with any column names.

Columns are mapped by name (`brand=supplier`). Attributes are a mapping or list of pairs in the product's own row, or a long
table beside it with one row per (product, attribute, value).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from retrieval.errors import InputError
from retrieval.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REQUIRED: Final = ("id", "title")
ATTRIBUTE_COLUMNS: Final = ("product_id", "attribute", "value")
_SPACES: Final = re.compile(r"\s+")
_TAGS: Final = re.compile(r"<[a-zA-Z/][^>]{0,200}>")


@dataclass(frozen=True, slots=True)
class Product:
    """One product. Every text is one line; attribute names are lower-case words."""

    id: str
    title: str
    brand: str = ""
    name: str = ""
    category: str = ""
    description: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


COLUMNS: Final = tuple(f.name for f in fields(Product))


def parse_columns(text: str) -> dict[str, str]:
    """Read a mapping such as `brand=supplier,description=short_description`.

    Raises:
        InputError: not of that form, or a field that a product does not have.
    """
    mapping = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, column = part.partition("=")
        if not equals or name.strip() not in COLUMNS:
            raise InputError(f"columns: {part!r} is not field=column with a field of {', '.join(COLUMNS)}")
        mapping[name.strip()] = column.strip()
    return mapping


def read_catalogue(
    products: Path, attributes: Path | None = None, columns: Mapping[str, str] | None = None
) -> list[Product]:
    """Read a catalogue in file order.

    Args:
        products: .jsonl, .csv or .parquet with one row per product.
        attributes: long table with the columns product_id, attribute, value; values of one attribute are joined by a comma.
        columns: product field -> column name, where they differ.

    Raises:
        InputError: a bad row, named by its line; a required column is absent; an id occurs twice.
    """
    mapping = {name: (columns or {}).get(name, name) for name in COLUMNS}
    extra = _long_attributes(attributes) if attributes else {}
    result: dict[str, Product] = {}
    for row in read_rows(products):
        if row.problem:
            raise InputError(f"{products}: line {row.line}: {row.problem}")
        for name in REQUIRED:
            if not str(row.values.get(mapping[name], "")).strip():
                raise InputError(f"{products}: line {row.line}: no {mapping[name]!r} (the product's {name}; see --columns)")
        texts = {n: one_line(row.values.get(mapping[n], "")) for n in COLUMNS if n != "attributes"}
        own = _own_attributes(row.values.get(mapping["attributes"]))
        product = Product(**texts, attributes={**own, **extra.get(texts["id"], {})})
        if product.id in result:
            raise InputError(f"{products}: line {row.line}: id {product.id!r} occurs twice")
        result[product.id] = product
    if not result:
        raise InputError(f"{products} holds no products")
    return list(result.values())


def one_line(value: Any) -> str:
    """Any cell as text on one line, HTML tags and runs of white space reduced to a space."""
    return _SPACES.sub(" ", _TAGS.sub(" ", str(value).replace("\\n", " "))).strip()


def _own_attributes(value: Any) -> dict[str, str]:
    if not value:
        return {}
    if isinstance(value, str):  # "Colour: Black; Width: 3 cm", as catalogues are often exported
        pairs = [part.split(":", 1) for part in value.split(";") if ":" in part]
    elif isinstance(value, dict):
        pairs = [[str(k), v] for k, v in value.items()]
    else:
        pairs = [[str(p[0]), p[1]] for p in value]
    return {attribute_name(k): one_line(v) for k, v in pairs if v is not None}


def _long_attributes(path: Path) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, str]] = {}
    for row in read_rows(path):
        missing = [c for c in ATTRIBUTE_COLUMNS if c not in row.values]
        if row.problem or missing:
            raise InputError(f"{path}: line {row.line}: {row.problem or 'no ' + ', '.join(missing)}")
        own = result.setdefault(one_line(row.values["product_id"]), {})
        name, value = attribute_name(str(row.values["attribute"])), str(row.values["value"]).strip()
        own[name] = f"{own[name]}, {value}" if name in own else value
    return result


def attribute_name(text: str) -> str:
    """`black_toner_page_yield` and `Black toner page-yield ` as `black toner page yield`."""
    return _SPACES.sub(" ", re.sub(r"[_\W]+", " ", text)).strip().lower()
