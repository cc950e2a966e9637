"""Derive tests/fixtures/pairs.jsonl, 1,000 real pairs, from the Icecat catalogue sample.

Ten queries that shoppers type, a hundred products each: forty that share most words with the query, thirty of the same
brands, thirty drawn at random. Every second query carries a chunk of knowledge from the demo's cards. Equal catalogues
give equal files. Usage: .venv/bin/python scripts/pairs_fixture.py FOLDER_WITH_products.parquet
"""

import json
import random
import re
import sys
from pathlib import Path

from models.catalogue import Product, read_catalogue

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests" / "fixtures" / "pairs.jsonl"
CARDS = ROOT / "retrieval" / "demo" / "cards.jsonl"
QUERIES = {
    "wireless mouse": None,
    "hp toner cartridge black": "brand:hp",
    "laptop bag 15 inch": None,
    "startech usb c cable": "brand:startech-com",
    "27 inch monitor": None,
    "brother label printer": "brand:brother",
    "ddr4 memory 16gb": None,
    "xerox phaser ink": "brand:xerox",
    "network switch 24 port": None,
    "integral memory card": "brand:integral",
}
SIMILAR, SAME_BRAND, ANY = 40, 30, 30
DESCRIPTION = 400  # characters; longer ones are cut by every checkpoint's token budget anyway
ATTRIBUTES = 12


def words(text: str) -> set[str]:
    """Letters and digits."""
    return set(re.findall(r"[a-z0-9]+", text.lower()))


def chosen(query: str, products: list[Product], rng: random.Random) -> list[Product]:
    """A hundred products for a query, near and far, in random order."""
    asked = words(query)
    order = sorted(products, key=lambda p: (-len(asked & words(p.title)), p.id))
    near = order[:SIMILAR]
    brands = {p.brand for p in near}
    rest = order[SIMILAR:]
    kin = rng.sample([p for p in rest if p.brand in brands], SAME_BRAND)
    taken = {p.id for p in kin}
    found = [*near, *kin, *rng.sample([p for p in rest if p.id not in taken], ANY)]
    rng.shuffle(found)
    return found


def main(folder: Path) -> None:
    """Write the fixture."""
    rng = random.Random(20_251_120)
    products = sorted(read_catalogue(folder).values(), key=lambda p: p.id)
    cards = {card["id"]: card["text"] for card in map(json.loads, CARDS.read_text().splitlines())}
    with TARGET.open("w") as file:
        for query, card in QUERIES.items():
            for product in chosen(query, products, rng):
                kept = {n: product.attributes[n] for n in list(product.attributes)[:ATTRIBUTES]}
                item = {
                    "id": product.id,
                    "title": product.title,
                    "brand": product.brand,
                    "category": product.category,
                    "attributes": kept,
                    "description": product.description[:DESCRIPTION],
                }
                row = {"query": query, "chunk": cards[card] if card else None}
                row["item"] = {name: value for name, value in item.items() if value}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
