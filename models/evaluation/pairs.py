"""What is evaluated: (query, item) pairs with a known tier, from human judgements or from a file of labelled pairs.

Judgements (.jsonl, .csv, .parquet; human grades, items looked up in a catalogue):
    query, product_id (or item_id), rating (or grade): whole number, K - 1 is the best tier, 0 the worst;
    optional: cluster (near-duplicate queries share one; default: the query itself), context (or chunk): text,
    and for each rater a column with that person's grade: rater_1_rating, rater_2_rating (any word before the number).
Labelled pairs (.jsonl, .csv, .parquet; what `tierwise train bootstrap` writes):
    query, tier (a tier's name or label), the item's fields (title, brand, category, attributes, description) flat or
    under `item`; optional: id, cluster, context (or chunk), kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.catalogue import attribute_text, value_text
from models.errors import DataError
from models.prompt import Item
from models.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.catalogue import Product
    from models.manifest import Tier
    from models.rows import Row


_RATER: Final = re.compile(r"(?:.*_)?\d+_rating")


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A pair and the tier it should get.

    Attributes:
        tier: column, 0 is best.
        cluster: near-duplicate queries share one.
        chunk: knowledge about the query, if the row brings any.
        kind: what its row says, if anything.
        raters: the grade that each rater gave, 0 is worst, NaN where one gave none; empty when none is known.
    """

    query: str
    id: str
    item: Item
    tier: int
    cluster: str
    chunk: str | None = None
    kind: str = ""
    raters: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """Labelled pairs as arrays, all [n]: query and cluster indices, true tier columns."""

    queries: NDArray[np.int64]
    clusters: NDArray[np.int64]
    truth: NDArray[np.int64]
    tiers: int

    @classmethod
    def of(cls, pairs: Sequence[LabelledPair], tiers: int) -> Sample:
        """Number queries and clusters by first appearance."""
        return cls(
            queries=_numbered([p.query for p in pairs]),
            clusters=_numbered([p.cluster for p in pairs]),
            truth=np.array([p.tier for p in pairs], dtype=np.int64),
            tiers=tiers,
        )

    @property
    def grades(self) -> NDArray[np.int64]:
        """K - 1 - tier: the exponent of the gain."""
        return self.tiers - 1 - self.truth

    def rows_by_query(self) -> list[NDArray[np.int64]]:
        """Row numbers of each query, in the order of the query's index."""
        order = np.argsort(self.queries, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.queries))[:-1])


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], dtype=np.int64)


def read_judgements(path: Path, catalogue: Mapping[str, Product], tiers: int) -> list[LabelledPair]:
    """Read human judgements and look their items up.

    Args:
        path: see the module's docstring.
        catalogue: product by id.
        tiers: K of the checkpoint.

    Raises:
        DataError: a missing or bad column, a grade outside 0..K-1, a pair twice, a product that the catalogue lacks.
    """
    pairs: dict[tuple[str, str], LabelledPair] = {}
    absent: dict[str, str] = {}
    raters: dict[str, int] = {}  # column -> rater's number; a column may be empty in the first rows
    for place, row in read_rows(path):
        query = _text(place, row, "query")
        product_id = _text(place, row, "product_id", "item_id")
        tier = tiers - 1 - _grade(place, row, tiers)
        if (query, product_id) in pairs:
            raise DataError(f"{place}: the pair ({query!r}, {product_id!r}) is judged twice")
        if product_id not in catalogue:
            absent.setdefault(product_id, place)
            continue
        pairs[query, product_id] = LabelledPair(
            query,
            product_id,
            catalogue[product_id].item(),
            tier,
            _cluster(row, query),
            _chunk(row),
            raters=_raters(place, row, raters, tiers),
        )
    if absent:
        first, place = next(iter(absent.items()))
        raise DataError(f"{place}: the catalogue has no product {first!r} (nor {len(absent) - 1} more that are judged)")
    if not pairs:
        raise DataError(f"{path.name} holds no judgements")
    return list(pairs.values())


def read_labelled(path: Path, tiers: Sequence[Tier], *, assume: int | None = None) -> list[LabelledPair]:
    """Read labelled pairs.

    Args:
        path: see the module's docstring.
        tiers: of the checkpoint.
        assume: tier column of rows that name none; such a row is refused when None.

    Raises:
        DataError: a missing or bad column, or a tier that the checkpoint does not have.
    """
    columns = {name: column for column, tier in enumerate(tiers) for name in (tier.label, tier.name)}
    pairs = []
    for place, row in read_rows(path):
        query = _text(place, row, "query")
        if "tier" in row or assume is None:
            name = _text(place, row, "tier")
            if name not in columns:
                raise DataError(f"{place}: no tier {name!r}; the checkpoint's are {', '.join(t.name for t in tiers)}")
            tier = columns[name]
        else:
            tier = assume
        fields = row.get("item", row)
        if not isinstance(fields, dict):
            raise DataError(f"{place}: item must be an object with the item's fields")
        item = _item(place, fields)
        identity = str(fields.get("id", row.get("id", place)))
        kind = str(row.get("kind", ""))
        pairs.append(LabelledPair(query, identity, item, tier, _cluster(row, query), _chunk(row), kind))
    if not pairs:
        raise DataError(f"{path.name} holds no pairs")
    return pairs


def _text(place: str, row: Row, *columns: str) -> str:
    value = next((row[c] for c in columns if c in row), None)
    if value is None or not str(value).strip():
        raise DataError(f"{place}: no {' or '.join(columns)}; the row has {', '.join(sorted(row))}")
    return str(value).strip()


def _grade(place: str, row: Row, tiers: int, *columns: str) -> int:
    text = _text(place, row, *(columns or ("rating", "grade")))
    try:
        grade = float(text)
    except ValueError:
        grade = -1.0
    if grade not in range(tiers):
        name = f" of {columns[0]}" if columns else ""
        raise DataError(f"{place}: the grade {text!r}{name} is not a whole number from 0 (worst) to {tiers - 1} (best)")
    return int(grade)


def _raters(place: str, row: Row, raters: dict[str, int], tiers: int) -> tuple[float, ...]:
    """Each rater's grade, in the order in which the file brings them up."""
    columns = [name for name in row if _RATER.fullmatch(name)]
    for name in columns:
        raters.setdefault(name, len(raters))
    grades = [float("nan")] * len(raters)
    for name in columns:
        grades[raters[name]] = float(_grade(place, row, tiers, name))
    return tuple(grades)


def _cluster(row: Row, query: str) -> str:
    return str(row.get("cluster", query))


def _chunk(row: Row) -> str | None:
    value = row.get("context", row.get("chunk"))
    return str(value) if value else None


def _item(place: str, fields: Mapping[str, Any]) -> Item:
    attributes = fields.get("attributes") or ""
    if isinstance(attributes, dict):
        attributes = attribute_text({str(k): value_text(v) for k, v in attributes.items()})
    rest = {name: str(fields.get(name) or "") for name in ("brand", "category", "description")}
    return Item(title=_text(place, dict(fields), "title"), attributes=str(attributes), **rest)
