"""The rows of the evidence runs, generated from a catalogue alone and labelled by the rules.

    train        2,000 pairs with a chunk: rule-judged pairs, and probes whose deciding fact only a chunk can tell
    unlabelled   2,000 pairs of free phrases, which the rules cannot judge
    calibration  rule-judged pairs of held-out products: beta and temperature are chosen on them
    valid        the same, other query clusters: rows are compared and selected on them
    probes       the context test set on held-out products, four variants each

Products are held out by their id, the same ones as in `tierwise train bootstrap`, so that the shipped judge has not
seen them either. A folder that holds the rows is left as it is.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from models.manifest import SHIPPED, load_manifest
from models.train import minilm
from models.train.data.held_out import split_products
from models.train.data.probes import probes
from models.train.data.schema import Row, RowItem, parse_row, write_training_rows
from models.train.data.split import split
from models.train.examples import visible_item
from models.train.queries import synonyms
from models.train.release import labelled_rows
from models.train.sides import Side
from models.train.teacher import SentenceEncoder
from service.commands.knowledge import read_products
from service.commands.train import training_catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from models.train.pairs import Group

GENERATOR = 2  # raise it with every change that gives other rows
FILES = ("train", "unlabelled", "calibration", "valid", "probes")
BARE = 0.7  # as in the bootstrap: where a chunk tells, the item often does not
RARE_TIER = "3-Related"  # 2 pairs in 100


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rows of each kind.

    Attributes:
        train: pairs of a training run.
        train_probes: probes among them, four pairs each.
        rare: of the tier that is rare in nature, if there are as many.
        train_queries: generated to choose the pairs from.
        valid_queries: generated for calibration and validation together, eight pairs each.
        probes: of the context test set.
    """

    train: int = 2000
    train_probes: int = 200
    rare: int = 300
    train_queries: int = 12_288
    valid_queries: int = 1024
    probes: int = 700


QUICK = Sizes(train=160, train_probes=16, rare=24, train_queries=1536, valid_queries=512, probes=40)


def write_rows(catalogue: Path, folder: Path, sizes: Sizes, progress: Callable[[str, int, int], None]) -> None:
    """Generate every file that is missing.

    Args:
        catalogue: products, or a folder of them.
        folder: gets FILES as .jsonl, and the products' vectors.
        sizes: of the files.
        progress: called with (what, done, total).
    """
    if all((folder / f"{name}.jsonl").is_file() for name in FILES):
        return
    folder.mkdir(parents=True, exist_ok=True)
    products, cards = training_catalogue(read_products(catalogue, None, ""))
    encoder = SentenceEncoder(minilm.encoder_folder())
    train, held = (
        Side(products, cards, rows, encoder=encoder, progress=progress, folder=folder, everyday=synonyms())
        for rows in split_products(products)
    )
    groups = train.pairs.make(train.queries.make(sizes.train_queries, 101), 101)
    held.pairs.ordinal = train.pairs.ordinal
    judged = _rows(labelled_rows(groups, train.products, train.cards, load_manifest(SHIPPED), 101, bare=BARE))
    told = probes(train.products, sizes.train_probes, 102, to_learn=True)
    chosen = _chosen([row for row in judged if row.context], sizes.train - len(told), sizes.rare)
    rows = chosen + told
    random.Random(103).shuffle(rows)
    _write(folder, "train", rows)
    _write(folder, "unlabelled", _unlabelled(groups, train, sizes.train))
    asked = held.pairs.make(held.queries.make(sizes.valid_queries, 104), 104)
    both = _rows(labelled_rows(asked, held.products, held.cards, load_manifest(SHIPPED), 104, bare=BARE))
    for name, numbers in split(both, {"calibration": 0.5, "valid": 0.5}, 105).items():
        _write(folder, name, [both[n] for n in numbers])
    _write(folder, "probes", probes(held.products, sizes.probes, 106))


def _rows(values: Sequence[dict[str, Any]]) -> list[Row]:
    return [parse_row(f"pair {n}", value) for n, value in enumerate(values)]


def _chosen(rows: Sequence[Row], count: int, rare: int) -> list[Row]:
    """That many rows, as they come, but with `rare` of the rare tier: methods that balance tiers would have no rows."""
    rng = random.Random(107)
    by_rarity = defaultdict(list)
    for row in rng.sample(rows, len(rows)):
        by_rarity[row.tier == RARE_TIER].append(row)
    first = by_rarity[True][:rare]
    return first + by_rarity[False][: count - len(first)]


def _unlabelled(groups: Sequence[Group], side: Side, count: int) -> list[Row]:
    """Pairs of queries that the rules cannot judge: free phrases and fragments of titles."""
    rng = random.Random(108)
    free = [group for group in groups if not any(group.judgements)]
    pairs = [(group, n) for group in free for n in group.items]
    rows = []
    for group, n in rng.sample(pairs, min(count, len(pairs))):
        item = visible_item(side.products[n], group.query, rng, bare=False)
        chunk = side.cards[group.card].text if group.card is not None else None
        domain = side.products[n].category
        rows.append(Row(query=group.query.text, item=RowItem(**asdict(item)), context=chunk, domain=domain))
    return rows


def _write(folder: Path, name: str, rows: Sequence[Row]) -> None:
    path = folder / f"{name}.jsonl"
    temporary = path.with_suffix(".tmp")
    write_training_rows(rows, temporary)
    temporary.replace(path)


def count_rows(folder: Path) -> dict[str, dict[str, int]]:
    """Rows of each file by tier."""
    found: dict[str, dict[str, int]] = {}
    for name in FILES:
        counts: dict[str, int] = defaultdict(int)
        for line in (folder / f"{name}.jsonl").read_text().splitlines():
            counts[str(json.loads(line).get("tier", "none"))] += 1
        found[name] = dict(sorted(counts.items(), reverse=True))
    return found
