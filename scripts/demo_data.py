"""Derive the demo's committed files from the Icecat catalogue and the Shopify taxonomy. Deterministic.

    .venv/bin/python scripts/demo_data.py CATALOGUE_FOLDER TAXONOMY_FOLDER

writes `service/demo/products.jsonl` (a few hundred products over all categories) and `retrieval/demo/cards.jsonl` and
`encyclopedia.jsonl` (documents for `tierwise index build`). Sources and licences are in NOTICE.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from models.train.queries import synonyms
from retrieval.cards import make_cards
from retrieval.encyclopedia import taxonomy_cards
from service.commands.knowledge import read_products, write_cards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrieval.catalogue import Product

ROOT = Path(__file__).parent.parent
DEPARTMENTS = ("Electronics", "Office Supplies", "Cameras & Optics", "Software")
PER_CATEGORY = 4
MANY = 12  # of the categories that shoppers ask for most
ASKED = frozenset(
    {
        "notebook",
        "notebook case",
        "notebook dock/port replicator",
        "headphones/headset",
        "toner cartridge",
        "ink cartridge",
        "keyboard",
        "mouse",
        "computer monitor",
        "networking cable",
        "USB cable",
        "HDMI cable",
        "power adapter/inverter",
        "memory module",
        "printer drum",
        "photo paper",
        "inkjet printer",
        "USB flash drive",
        "smartwatch",
        "mobile phone case",
    }
)
MAX_ATTRIBUTES = 8
MAX_VALUE = 40
LOGISTICS = re.compile(
    r"package|pallet|carton|master|shipping|country|gtin|certification|compliance|humidity|altitude|temperature|status|guide"
)
ICECAT = "Product data: Icecat, icecat.biz, Open Content License"
SHOPIFY = "Shopify product taxonomy, MIT License"


def sample(products: Sequence[Product]) -> list[Product]:
    """The best described products of each category, brands in turn; ties by a hash of the id."""
    groups: defaultdict[str, list[Product]] = defaultdict(list)
    for product in products:
        if product.category and len(product.attributes) >= MAX_ATTRIBUTES // 2:
            groups[product.category].append(product)
    chosen = []
    for category, own in sorted(groups.items()):
        own.sort(key=lambda p: hashlib.sha256(p.id.encode()).hexdigest())
        seen: defaultdict[str, int] = defaultdict(int)
        ranked: list[tuple[int, int, Product]] = []
        for product in own:
            ranked.append((seen[product.brand], len(ranked), product))
            seen[product.brand] += 1
        count = MANY if category in ASKED else PER_CATEGORY if len(own) >= MANY else 1
        chosen += [p for _, _, p in sorted(ranked)[:count]]
    return chosen


def row(product: Product) -> dict[str, object]:
    """A line of products.jsonl."""
    told = {
        name: value
        for name, value in product.attributes.items()
        if not LOGISTICS.search(name) and len(value) <= MAX_VALUE and value not in {"yes", "no"}
    }
    return {
        "id": product.id,
        "title": product.title,
        "brand": product.brand,
        "category": product.category,
        "attributes": dict(list(told.items())[:MAX_ATTRIBUTES]),
        "description": product.description,
    }


def main(catalogue: Path, taxonomy: Path) -> None:
    """Write the three files."""
    products = read_products(catalogue, None, "")
    target = ROOT / "service" / "demo" / "products.jsonl"
    target.parent.mkdir(exist_ok=True)
    chosen = sample(products)
    with target.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row(p), ensure_ascii=False) + "\n" for p in chosen)
    write_cards(make_cards(products, synonyms()), ROOT / "retrieval" / "demo" / "cards.jsonl", ICECAT)
    cards = taxonomy_cards(taxonomy / "categories.parquet", taxonomy / "attributes.parquet", DEPARTMENTS)
    write_cards(cards, ROOT / "retrieval" / "demo" / "encyclopedia.jsonl", SHOPIFY)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
