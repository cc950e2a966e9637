"""Which items the demo asks about: real products of the sample, chosen by words alone.

For each query the products are ranked by the words they share with it, each word weighing more the fewer products have
it, words of the title and the type twice. Going down that ranking, at most two products of one type are taken, until
there are five: so beside what was meant stand its accessories and other things with the same words, the hard negatives.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

CATALOGUE: Final = Path(__file__).parent / "products.jsonl"
QUERIES: Final = (
    "wireless mouse",
    "headphones with microphone",
    "hp laserjet toner",
    "coffee machine",
    "notebook 15 inch",
    "usb c docking station",
)
PER_QUERY: Final = 5
PER_TYPE: Final = 2
TITLE_WEIGHT: Final = 2.0

Product = dict[str, Any]

_WORD: Final = re.compile(r"[a-z0-9]+")


def read_catalogue(path: Path = CATALOGUE) -> list[Product]:
    """Products as `POST /v1/score` takes items."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def candidates(query: str, products: list[Product]) -> list[Product]:
    """Five products for a query, by the rule above. Deterministic."""
    titles = [_words(f"{p['title']} {p['category']}") for p in products]
    texts = [t | _words(f"{p['brand']} {p['description']}") for t, p in zip(titles, products, strict=True)]
    frequency = Counter(word for text in texts for word in text)
    weights = {word: math.log(len(products) / frequency[word]) for word in _words(query) if frequency[word]}
    scores = [
        sum(weight * (TITLE_WEIGHT if word in title else word in text) for word, weight in weights.items())
        for title, text in zip(titles, texts, strict=True)
    ]
    taken: list[Product] = []
    types: Counter[str] = Counter()
    for n in sorted(range(len(products)), key=lambda n: (-scores[n], n)):
        kind = products[n]["category"]
        if types[kind] < PER_TYPE:
            types[kind] += 1
            taken.append(products[n])
        if len(taken) == PER_QUERY:
            break
    return taken


def _words(text: str) -> frozenset[str]:
    return frozenset(word.removesuffix("s") for word in _WORD.findall(text.lower()))
