"""A few documents, and knowledge built from them with the shipped embedder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from retrieval.build import Built, build_snapshot
from retrieval.chunks import Chunker
from retrieval.embedding import SHIPPED, StaticEmbedder
from retrieval.search import KnowledgeBase

DOCUMENTS: list[dict[str, Any]] = [
    {
        "id": "type:toner",
        "title": "toner cartridge",
        "text": "toner cartridge: a supply for laser printers. Also written: toner, laser toner.",
        "source": "cards",
    },
    {
        "id": "fits:tn-3170",
        "title": "Brother toner cartridge TN-3170",
        "text": "Brother toner cartridge TN-3170 fits Brother HL-5240, MFC-8460N.",
        "source": "cards",
        "url": "https://example.com/tn-3170",
    },
    {
        "id": "fits:tn-2000",
        "title": "Brother toner cartridge TN-2000",
        "text": "Brother toner cartridge TN-2000 fits Brother HL-2030, DCP-7010.",
        "source": "cards",
    },
    {
        "id": "type:notebook",
        "title": "notebook",
        "text": "notebook: a product type. Also written: laptop, laptop computer.",
        "names": ["laptop", "laptop computer"],
        "source": "cards",
    },
    {
        "id": "brand:epson",
        "title": "Epson",
        "text": "Epson: a brand of ink cartridge, scanner, data projector.",
        "source": "cards",
    },
]
Write = Callable[[Sequence[dict[str, Any]]], Path]
Build = Callable[..., Built]


def count_words(texts: Sequence[str]) -> list[int]:
    """A tokenizer to count by: one token a word."""
    return [len(text.split()) for text in texts]


@pytest.fixture(scope="session")
def embedder() -> StaticEmbedder:
    """The shipped embedder."""
    return StaticEmbedder(SHIPPED)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as a .jsonl file."""

    def write(rows: Sequence[dict[str, Any]]) -> Path:
        path = tmp_path / "documents.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def build(tmp_path: Path, write: Write, embedder: StaticEmbedder) -> Build:
    """Build a snapshot of rows under `tmp_path/knowledge`; options go to build_snapshot."""

    def build(rows: Sequence[dict[str, Any]] = DOCUMENTS, **options: Any) -> Built:
        options = {"embedder": embedder, "chunker": Chunker(count_words), "tau": 0.5, **options}
        return build_snapshot(write(rows), tmp_path / "knowledge", **options)

    return build


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory, embedder: StaticEmbedder) -> Path:
    """A snapshot that nobody may change."""
    folder = tmp_path_factory.mktemp("knowledge")
    source = folder / "documents.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS), encoding="utf-8")
    return build_snapshot(source, folder, embedder=embedder, chunker=Chunker(count_words), tau=0.5).folder


@pytest.fixture(scope="session")
def knowledge(snapshot: Path) -> KnowledgeBase:
    """The snapshot, open."""
    return KnowledgeBase.open(snapshot)


@pytest.fixture
def copy(snapshot: Path, tmp_path: Path) -> Path:
    """A copy of the snapshot that a test may damage."""
    return Path(shutil.copytree(snapshot, tmp_path / "copy"))
