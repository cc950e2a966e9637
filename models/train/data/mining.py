"""Pairs from a catalogue and a click log, with hard negatives.

Clicks are a noisy judge: people click what is cheap or pictured well, and what they were not shown they could not
click. So evidence has to be strong before a tier is written, and the row says where it comes from in `source`:

    clicked   clicked at least `clicks` times and at a rate of at least `rate` -> best tier
    skipped   shown at least `shows` times, never clicked, and another item of the same query was -> the tier `skipped`
    near      never shown; high BM25 for the query, other category than every clicked item: hard negative -> `skipped`
    random    any item of a category that no clicked or near item has -> worst tier

All cut-offs are ours; papers give none.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from models.errors import DataError
from models.evaluation.baselines import BM25, full_text, words
from models.rows import read_rows
from models.train.data.schema import Row, RowItem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from models.catalogue import Product


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a click log says of one pair."""

    shown: int
    clicked: int


@dataclass(frozen=True, slots=True)
class MiningConfig:
    """Cut-offs, and tiers by name. See the module's docstring."""

    clicks: int = 3
    rate: float = 0.1
    shows: int = 20
    near: int = 4
    random: int = 1
    best: str = "4"
    skipped: str = "2"
    worst: str = "1"
    seed: int = 1


def read_clicks(path: Path) -> dict[str, dict[str, Evidence]]:
    """A click log as query -> product id -> evidence.

    Columns: query, product_id (or item_id), and either `clicked` (0 or 1, a row for each impression) or `clicks` and
    `impressions` (counts). Rows of one pair add up.

    Raises:
        DataError: a missing column or a count that is none, with its line.
    """
    shown: Counter[tuple[str, str]] = Counter()
    clicked: Counter[tuple[str, str]] = Counter()
    for place, row in read_rows(path):
        query, product = row.get("query"), row.get("product_id", row.get("item_id"))
        if not query or product is None:
            raise DataError(f"{place}: a click log needs query and product_id; the row has {', '.join(sorted(row))}")
        key = (" ".join(str(query).split()), str(product))
        try:
            if "clicked" in row:
                shows, hits = 1, int(float(row["clicked"]))
            else:
                shows, hits = int(row["impressions"]), int(row.get("clicks", 0))
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{place}: needs clicked (0 or 1), or clicks and impressions as whole numbers") from error
        if not 0 <= hits <= shows:
            raise DataError(f"{place}: {hits} clicks in {shows} impressions")
        shown[key] += shows
        clicked[key] += hits
    log: dict[str, dict[str, Evidence]] = defaultdict(dict)
    for (query, product), count in shown.items():
        log[query][product] = Evidence(count, clicked[query, product])
    if not log:
        raise DataError(f"{path.name} holds no clicks")
    return dict(log)


def mine(
    products: Mapping[str, Product], log: Mapping[str, Mapping[str, Evidence]], config: MiningConfig
) -> Iterator[Row]:
    """Rows for every query with at least one clicked item, queries in the log's order.

    Args:
        products: the catalogue; pairs of a product that it lacks are left out.
        log: of `read_clicks`.
        config: cut-offs.
    """
    index = _Index(list(products.values()))
    rng = random.Random(config.seed)
    for query, pairs in log.items():
        hits = [
            p
            for p, e in pairs.items()
            if p in products and e.clicked >= config.clicks and e.clicked >= config.rate * e.shown
        ]
        if not hits:
            continue
        skips = [p for p, e in pairs.items() if p in products and not e.clicked and e.shown >= config.shows]
        yield from (_row(query, products[p], config.best, "clicked") for p in hits)
        yield from (_row(query, products[p], config.skipped, "skipped") for p in skips)
        wanted = {products[p].category for p in hits}
        if "" in wanted:  # a clicked item of unknown category: any other might be the same thing
            continue
        near = index.nearest(query, config.near, wanted | {""}, pairs)
        yield from (_row(query, p, config.skipped, "near") for p in near)
        apart = wanted | {p.category for p in near} | {""}
        pool = index.outside(apart, query)
        yield from (_row(query, p, config.worst, "random") for p in rng.sample(pool, min(config.random, len(pool))))


def _row(query: str, product: Product, tier: str, source: str) -> Row:
    item = RowItem(id=product.id, **asdict(product.item()))
    return Row(query=query, item=item, tier=tier, source=source)


class _Index:
    """Products by word, so that only those that share a word with the query are scored."""

    def __init__(self, products: Sequence[Product]) -> None:
        self._products = products
        self._texts = [full_text(p.item()) for p in products]
        self._bm25 = BM25(self._texts)
        self._holders: dict[str, list[int]] = defaultdict(list)
        for number, text in enumerate(self._texts):
            for word in set(words(text)):
                self._holders[word].append(number)

    def nearest(self, query: str, count: int, categories: Iterable[str], known: Collection[str]) -> list[Product]:
        """Best BM25 first, outside these categories and not among the known ids."""
        banned = set(categories)
        sharing = {n for word in words(query) for n in self._holders.get(word, ())}
        open_to = [n for n in sharing if self._products[n].category not in banned and self._products[n].id not in known]
        best = heapq.nlargest(count, open_to, key=lambda n: (self._bm25.score(query, self._texts[n]), -n))
        return [self._products[n] for n in best]

    def outside(self, categories: Iterable[str], query: str) -> list[Product]:
        """Products of none of these categories that share no word with the query."""
        sharing = {n for word in words(query) for n in self._holders.get(word, ())}
        banned = set(categories)
        return [p for n, p in enumerate(self._products) if p.category not in banned and n not in sharing]
