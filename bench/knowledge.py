"""Quality of knowledge search, with BM25 and all-MiniLM-L6-v2 as peers in the same run.

    .venv-train/bin/python bench/knowledge.py --catalogue FOLDER --taxonomy FOLDER [--json FILE]

hit@1 over query -> card pairs that retrieval/queries.py generates from a catalogue; queries and cards of the
validation and test splits were never seen in the embedder's training. BM25's settings and the gate tau are chosen on
the validation split, figures are of the test split, at most 150 queries of a kind. Intervals: 95 %, bootstrap over
queries.

The gate is judged on three groups: queries with their cards in the index, the same queries with every held-out card
taken out of the index ("near": the right chunk is none), and names of categories of other departments ("far"). tau
maximises right chunks minus wrong chunks, the first group weighing as much as the other two together.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import tempfile
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from itertools import product as combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from models.train.queries import synonyms
from retrieval.build import build_snapshot
from retrieval.cards import make_cards
from retrieval.chunks import Chunker, leading_title
from retrieval.embedding import SHIPPED, TOKENIZER, StaticEmbedder
from retrieval.encyclopedia import taxonomy_cards
from retrieval.queries import Pair, generate
from retrieval.search import KnowledgeBase
from service.commands.knowledge import read_products

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retrieval.cards import Card
    from retrieval.catalogue import Product

DEPARTMENTS = ("Electronics", "Office Supplies", "Cameras & Optics", "Software")
PER_KIND = 150
WORD = re.compile(r"[a-z0-9]+")
JOINED = re.compile(r"[a-z0-9]+(?:[-/.][a-z0-9]+)+")
LONG = 3  # letters; a shorter word keeps its s
RESAMPLES = 2000
FAR = 600


def words(text: str) -> list[str]:
    """Letters and digits."""
    return WORD.findall(text.lower())


def stems(text: str) -> list[str]:
    """Letters and digits, plural s removed."""
    return [w[:-1] if len(w) > LONG and w.endswith("s") and not w.endswith("ss") else w for w in words(text)]


def models(text: str) -> list[str]:
    """Stems, and hyphenated words also in one piece, so that "tn-3170" is found by "tn3170" and by "3170"."""
    return stems(text) + [re.sub(r"[-/.]", "", w) for w in JOINED.findall(text.lower())]


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"words": words, "stems": stems, "models": models}


class BM25:
    """BM25 over short texts (Robertson and Zaragoza 2009) with Lucene's idf, which is never negative.

    Args:
        titles: titles and other names of each document; their words count `title_weight` times more.
        texts: of each document.
        k1: saturation of a word's count.
        b: share of the length normalisation.
        tokenizer: name in TOKENIZERS.
        title_weight: 0 for titles that count as any other text.
    """

    def __init__(
        self, titles: Sequence[str], texts: Sequence[str], *, k1: float, b: float, tokenizer: str, title_weight: int
    ) -> None:
        self._tokens = TOKENIZERS[tokenizer]
        counts = [
            Counter(self._tokens(text) + title_weight * self._tokens(title))
            for title, text in zip(titles, texts, strict=True)
        ]
        lengths = np.array([c.total() for c in counts], np.float32)
        norm = k1 * (1 - b + b * lengths / lengths.mean())
        postings: dict[str, list[tuple[int, int]]] = {}
        for row, count in enumerate(counts):
            for term, n in count.items():
                postings.setdefault(term, []).append((row, n))
        self._postings = {}
        for term, found in postings.items():
            rows = np.array([r for r, _ in found])
            times = np.array([n for _, n in found], np.float32)
            idf = math.log(1 + (len(texts) - len(found) + 0.5) / (len(found) + 0.5))
            self._postings[term] = rows, idf * times * (k1 + 1) / (times + norm[rows])
        self._size = len(texts)

    def scores(self, query: str) -> np.ndarray:
        """Score of each document, float32 [N]."""
        result = np.zeros(self._size, np.float32)
        for term in self._tokens(query):
            if term in self._postings:
                rows, weights = self._postings[term]
                result[rows] += weights
        return result


@dataclass(frozen=True)
class Setting:
    """One choice of BM25's parameters."""

    tokenizer: str
    k1: float
    b: float
    title_weight: int


def drawn(pairs: Sequence[Pair], split: str) -> list[Pair]:
    """At most PER_KIND pairs of each kind."""
    chance = random.Random(0)
    kinds: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.split == split:
            kinds[pair.kind].append(pair)
    return [p for _, own in sorted(kinds.items()) for p in chance.sample(own, min(PER_KIND, len(own)))]


def hits(found: Sequence[str | None], pairs: Sequence[Pair]) -> np.ndarray:
    """Which queries got a right card, bool [Q]."""
    return np.array([card is not None and card in p.gold for card, p in zip(found, pairs, strict=True)])


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean by bootstrap."""
    chance = np.random.default_rng(0)
    means = values[chance.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


def figure(right: np.ndarray, pairs: Sequence[Pair]) -> dict[str, Any]:
    """hit@1 over all queries and by kind."""
    kinds = sorted({p.kind for p in pairs})
    by_kind = {k: round(float(right[[p.kind == k for p in pairs]].mean()), 3) for k in kinds}
    return {"hit@1": round(float(right.mean()), 4), "interval": interval(right), "by_kind": by_kind}


def snapshot(cards: Sequence[Card], folder: Path, embedder: StaticEmbedder, tau: float = -1.0) -> KnowledgeBase:
    """Cards as a snapshot, as `tierwise index build` makes it."""
    documents = folder / "documents.jsonl"
    with documents.open("w", encoding="utf-8") as file:
        for card in cards:
            row = {"id": card.id, "title": card.title, "names": card.names, "text": card.text, "source": "bench"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    built = build_snapshot(documents, folder, embedder=embedder, chunker=chunker(), tau=tau)
    return KnowledgeBase.open(built.folder)


def chunker() -> Chunker:
    """Chunks of 128 tokens of the WordPiece vocabulary that the shipped checkpoint shares with the embedder."""
    tokenizer = Tokenizer.from_file(str(SHIPPED / TOKENIZER))
    return Chunker(lambda texts: [len(e.ids) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)])


def answers(knowledge: KnowledgeBase, queries: Sequence[str]) -> list[tuple[str | None, float]]:
    """Card and score for each query, whatever the gate."""
    best = [knowledge.best(q) for q in queries]
    return [(h.chunk_id.split("#")[0], h.score) if h else (None, -1.0) for h in best]


def minilm(texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """Best text for each query by all-MiniLM-L6-v2, int [Q]."""
    from models.train.minilm import encoder_folder
    from models.train.teacher import SentenceEncoder

    encoder = SentenceEncoder(encoder_folder())

    def encode(own: Sequence[str]) -> np.ndarray:
        result = np.zeros((len(own), 384), np.float32)
        for rows, block in encoder.encode(own):
            result[rows] = block
        return result

    return np.asarray((encode(queries) @ encode(texts).T).argmax(1))


def tuned(cards: Sequence[Card], pairs: Sequence[Pair]) -> tuple[Setting, float]:
    """BM25's best settings on the validation split."""
    titles, texts = [" ".join((c.title, *c.names)) for c in cards], [leading_title(c.title, c.text) for c in cards]
    best, best_rate = Setting("words", 1.2, 0.75, 0), -1.0
    grid = combinations(TOKENIZERS, (0.3, 0.6, 0.9, 1.2, 2.0), (0.3, 0.6, 0.75, 0.9), (0, 1, 2, 4, 8))
    for setting in (Setting(*values) for values in grid):
        index = BM25(titles, texts, **asdict(setting))
        rate = hits([cards[int(index.scores(p.query).argmax())].id for p in pairs], pairs).mean()
        if rate > best_rate:
            best, best_rate = setting, float(rate)
    return best, best_rate


def gate(found: dict[str, list[tuple[str | None, float]]], pairs: Sequence[Pair], tau: float) -> dict[str, float]:
    """What the gate lets through, in each group."""
    right = hits([card for card, _ in found["known"]], pairs)
    passed = {name: np.array([score >= tau for _, score in own]) for name, own in found.items()}
    known = passed["known"]
    utility = (
        np.where(known, np.where(right, 1.0, -1.0), 0.0).mean() - (passed["near"].mean() + passed["far"].mean()) / 2
    ) / 2
    return {
        "tau": round(tau, 3),
        "get_a_chunk": round(float(known.mean()), 4),
        "of_those_right": round(float(right[known].mean()) if known.any() else 0.0, 4),
        "near_get_a_chunk": round(float(passed["near"].mean()), 4),
        "far_get_a_chunk": round(float(passed["far"].mean()), 4),
        "utility": round(float(utility), 4),
    }


def quality(products: Sequence[Product], taxonomy: Path, embedder: StaticEmbedder, *, peers: bool) -> dict[str, Any]:
    """hit@1 of ours and the peers, and what the gate does."""
    files = taxonomy / "categories.parquet", taxonomy / "attributes.parquet"
    cards = [*make_cards(products, synonyms()), *taxonomy_cards(*files, DEPARTMENTS)]
    pairs = generate(products, cards, synonyms())
    validation, test = drawn(pairs, "validation"), drawn(pairs, "test")
    print(f"{len(cards)} cards; {len(validation)} validation and {len(test)} test queries")
    held_out = {card for p in pairs if p.split != "train" for card in p.gold}
    other = [c.title for c in taxonomy_cards(*files) if c.kind == "category"]
    known_names = {c.title for c in cards}
    far = random.Random(0).sample(sorted({t.lower() for t in other if t not in known_names}), 2 * FAR)

    with tempfile.TemporaryDirectory() as folder:
        full = snapshot(cards, Path(folder), embedder)
        with tempfile.TemporaryDirectory() as second:
            reduced = snapshot([c for c in cards if c.id not in held_out], Path(second), embedder)

            def groups(own: Sequence[Pair], names: Sequence[str]) -> dict[str, list[tuple[str | None, float]]]:
                asked = [p.query for p in own]
                return {
                    "known": answers(full, asked),
                    "near": answers(reduced, asked),
                    "far": answers(full, names),
                }

            on_validation, on_test = groups(validation, far[:FAR]), groups(test, far[FAR:])
        plain = embedder.embed([leading_title(c.title, c.text) for c in cards])
        vector_only = [cards[i].id for i in (embedder.embed([p.query for p in test]) @ plain.T).argmax(1)]

    ours = hits([card for card, _ in on_test["known"]], test)
    result: dict[str, Any] = {
        "cards": len(cards),
        "validation_queries": len(validation),
        "test_queries": len(test),
        "ours": figure(ours, test),
        "ours_validation": round(float(hits([c for c, _ in on_validation["known"]], validation).mean()), 4),
        "vector_alone": figure(hits(vector_only, test), test),
    }
    best = max((gate(on_validation, validation, t) for t in np.arange(0.2, 0.95, 0.01)), key=lambda g: g["utility"])
    result["tau_chosen"] = best
    result["gate_at_chosen_tau"] = gate(on_test, test, best["tau"])
    result["gate_at_shipped_tau"] = gate(on_test, test, embedder.config.tau)
    result["gate_curve"] = [gate(on_test, test, float(t)) for t in np.arange(0.3, 0.95, 0.05)]
    if peers:
        setting, rate = tuned(cards, validation)
        titles, texts = [" ".join((c.title, *c.names)) for c in cards], [leading_title(c.title, c.text) for c in cards]
        index = BM25(titles, texts, **asdict(setting))
        lexical = hits([cards[int(index.scores(p.query).argmax())].id for p in test], test)
        dense = hits([cards[i].id for i in minilm(texts, [p.query for p in test])], test)
        result["bm25"] = {**figure(lexical, test), "setting": asdict(setting), "validation": round(rate, 4)}
        result["minilm"] = figure(dense, test)
        for name, peer in (("bm25", lexical), ("minilm", dense)):
            difference = ours.astype(float) - peer
            result[f"ours_minus_{name}"] = {
                "mean": round(float(difference.mean()), 4),
                "interval": interval(difference),
            }
    return result


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument(
        "--taxonomy", type=Path, required=True, help="folder with categories.parquet and attributes.parquet"
    )
    parser.add_argument("--embedder", type=Path, default=SHIPPED)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    embedder = StaticEmbedder(arguments.embedder)
    products = read_products(arguments.catalogue, None, "")
    result = {
        "embedder": embedder.id,
        **quality(products, arguments.taxonomy, embedder, peers=not arguments.no_peers),
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
