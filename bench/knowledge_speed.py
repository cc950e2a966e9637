"""Speed of knowledge search: embed + search + fetch of one query among 100,000 chunks, on one thread.

    .venv/bin/python bench/knowledge_speed.py --catalogue FOLDER [--json FILE]

The chunks are made of a catalogue's titles and attributes, the queries of title words. Beside the search stand its
embedding alone, an exact scan as the peer of the index, and how many of the scan's candidates the index finds.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from tokenizers import Tokenizer

from retrieval.build import build_snapshot
from retrieval.chunks import Chunker
from retrieval.embedding import SHIPPED, TOKENIZER, StaticEmbedder
from retrieval.search import CANDIDATES, KnowledgeBase
from service.commands.knowledge import read_products

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retrieval.catalogue import Product

CHUNKS = 100_000
TIMED = 4000
COMPARED = 500


def passages(products: Sequence[Product], count: int) -> list[tuple[str, str]]:
    """Distinct (title, text) of real words: each product's attributes, three at a time."""
    made = []
    for size in (3, 2, 4):
        for p in products:
            told = [f"{name} {value}" for name, value in p.attributes.items()]
            for at in range(0, len(told), size):
                made.append((p.title, f"{p.title}: {', '.join(told[at : at + size])}."))
                if len(made) == count:
                    return made
    return made


def chunk_text(knowledge: KnowledgeBase, row: int) -> str:
    """Text of a chunk."""
    return str(knowledge._chunks[row].text)  # noqa: SLF001 - the store has no door of its own


def chunker() -> Chunker:
    """Chunks of 128 tokens of the WordPiece vocabulary that the shipped checkpoint shares with the embedder."""
    tokenizer = Tokenizer.from_file(str(SHIPPED / TOKENIZER))
    return Chunker(
        lambda texts: [len(e.ids) for e in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    )


def timed(run: Callable[[str], object], queries: Sequence[str]) -> dict[str, float]:
    """Microseconds for each query: by the clock, and of processor time, which other processes do not lengthen."""
    for query in queries[:200]:
        run(query)
    clock, own = [], []
    for query in queries:
        start, used = time.perf_counter_ns(), time.thread_time_ns()
        run(query)
        own.append((time.thread_time_ns() - used) / 1000)
        clock.append((time.perf_counter_ns() - start) / 1000)
    return {
        f"{name}_p{share}_us": round(float(np.percentile(spent, share)), 1)
        for name, spent in (("clock", clock), ("cpu", own))
        for share in (50, 99)
    }


def speed(products: Sequence[Product], embedder: StaticEmbedder) -> dict[str, Any]:
    """Time of one query among CHUNKS chunks, and how much of an exact search's candidates the index finds."""
    faiss.omp_set_num_threads(1)
    made = passages(products, CHUNKS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = folder / "documents.jsonl"
        with documents.open("w", encoding="utf-8") as file:
            for n, (title, text) in enumerate(made):
                file.write(json.dumps({"id": str(n), "title": title, "text": text, "source": "bench"}) + "\n")
        start = time.perf_counter()
        built = build_snapshot(documents, folder, embedder=embedder, chunker=chunker(), tau=embedder.config.tau)
        build_s = time.perf_counter() - start
        start = time.perf_counter()
        knowledge = KnowledgeBase.open(built.folder)
        open_s = time.perf_counter() - start
        chance = random.Random(0)
        queries = []
        for p in chance.choices(products, k=TIMED):
            words = p.title.split()
            at = chance.randrange(max(1, len(words) - 2))
            queries.append(" ".join(words[at : at + chance.randint(1, 4)]).lower())
        size = sum(f.stat().st_size for f in built.folder.rglob("*") if f.is_file())
        result: dict[str, Any] = {
            "chunks": built.manifest.chunks,
            "build_s": round(build_s, 1),
            "open_s": round(open_s, 2),
            "snapshot_mb": round(size / 1e6, 1),
            "search": timed(knowledge.search, queries),
            "embed_alone": timed(lambda q: embedder.embed([q]), queries),
        }
        index = faiss.read_index(str(built.folder / "vectors.faiss"))
        vectors = embedder.embed([chunk_text(knowledge, row) for row in range(built.manifest.chunks)])
    exact = faiss.IndexFlatIP(embedder.dimension)
    exact.add(vectors)
    asked = {q: embedder.embed([q]) for q in queries[:COMPARED]}
    result["index_alone"] = timed(lambda q: index.search(asked[q], CANDIDATES), list(asked))
    result["exact_scan_alone"] = timed(lambda q: exact.search(asked[q], CANDIDATES), list(asked))
    shared = [
        len(set(exact.search(v, CANDIDATES)[1][0]) & set(index.search(v, CANDIDATES)[1][0])) / CANDIDATES
        for v in asked.values()
    ]
    result["index_recall"] = round(float(np.mean(shared)), 4)
    return result


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--embedder", type=Path, default=SHIPPED)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    embedder = StaticEmbedder(arguments.embedder)
    result = {"embedder": embedder.id, **speed(read_products(arguments.catalogue, None, ""), embedder)}
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
