"""Documents to a snapshot: read, chunk, embed, index, check, and only then give it its name.

Everything is written into a temporary folder beside the target, flushed to disk and renamed, so that a reader sees the
old knowledge or the new one and never a half of either, whenever the build is interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from retrieval.documents import BadLine, bad_input, read_documents
from retrieval.embedding import STATIC_FILES, StaticEmbedder
from retrieval.errors import InputError
from retrieval.index import build_index, write_index
from retrieval.lexicon import LexiconWriter
from retrieval.snapshot import (
    CHUNKS,
    CURRENT,
    EMBEDDER,
    EMBEDDER_FILES,
    INDEX,
    MANIFEST,
    OFFSETS,
    OWN_FILES,
    VERSION,
    SnapshotManifest,
    file_entry,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retrieval.chunks import Chunk, Chunker
    from retrieval.embedding import Embedder, Vectors

BATCH: Final = 512
MAX_BAD: Final = 1000  # a file this bad is not the file that was meant
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made."""

    folder: Path
    manifest: SnapshotManifest
    skipped: tuple[BadLine, ...]


def build_snapshot(
    source: Path,
    output: Path,
    *,
    embedder: Embedder,
    chunker: Chunker,
    tau: float,
    skip_bad: bool = False,
    keep: int = 2,
    progress: Progress = lambda _: None,
) -> Built:
    """Build a snapshot from a document file and put it in force under `output`.

    Args:
        source: .jsonl, .csv or .parquet with id, text, source, and optionally title and url.
        output: knowledge folder; made if absent. The snapshot becomes `output/<version>`, `output/CURRENT` names it.
        embedder: makes the vectors; a static one is copied into the snapshot.
        chunker: cuts the documents.
        tau: score below which a query gets no chunk.
        skip_bad: leave bad lines out and report them, instead of refusing the file.
        keep: how many versions stay on disk, the new one included; readers of an older one keep their open files.
        progress: called with the number of documents done since the last call.

    Raises:
        InputError: the file cannot be read, holds bad lines (each named) or no document.
    """
    output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=output))
    try:
        documents, bad, vectors = _write_chunks(source, work, chunker, embedder, progress)
        if bad and not skip_bad:
            raise bad_input(source, bad)
        if not documents:
            raise InputError(f"{source} holds no documents")
        write_index(build_index(vectors), work / INDEX)
        static = isinstance(embedder, StaticEmbedder)
        if isinstance(embedder, StaticEmbedder):
            (work / EMBEDDER).mkdir()
            for name in STATIC_FILES:
                shutil.copyfile(embedder.folder / name, work / EMBEDDER / name)
        files = {name: file_entry(work / name) for name in (*OWN_FILES, *(EMBEDDER_FILES if static else ()))}
        manifest = SnapshotManifest(
            version=version_of(files, embedder.id),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            embedder=embedder.id,
            embedder_kind="static" if static else "sentence-transformers",
            dimension=embedder.dimension,
            tau=tau,
            documents=documents,
            chunks=len(vectors),
            budget=chunker.budget,
            files=files,
        )
        (work / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _flush(work)
        work.chmod(0o755)  # mkdtemp leaves it to its owner alone, and a service runs as somebody else
        target = output / manifest.version
        if not (target / MANIFEST).is_file():
            shutil.rmtree(target, ignore_errors=True)
            work.rename(target)
        _put_in_force(output, manifest.version)
        _prune(output, keep)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Built(target, manifest, tuple(bad))


def _write_chunks(
    source: Path, work: Path, chunker: Chunker, embedder: Embedder, progress: Progress
) -> tuple[int, list[BadLine], Vectors]:
    bad: list[BadLine] = []
    done = 0
    offsets: list[int] = [0]
    vectors: list[Vectors] = []
    batch: list[Chunk] = []
    lexicon = LexiconWriter()

    def write(file: BinaryIO) -> None:
        vectors.append(embedder.embed([c.text for c in batch]))
        for chunk in batch:
            lexicon.add((chunk.title, *chunk.names), chunk.text)
            line = json.dumps({k: v for k, v in asdict(chunk).items() if v and k != "names"}, ensure_ascii=False)
            offsets.append(offsets[-1] + file.write(line.encode() + b"\n"))
        batch.clear()

    def chunks() -> Iterator[Chunk]:
        nonlocal done
        for entry in read_documents(source):
            progress(1)
            if isinstance(entry, BadLine):
                bad.append(entry)
                if len(bad) >= MAX_BAD:
                    raise bad_input(source, bad)
            else:
                done += 1
                yield from chunker.chunk(entry)

    with (work / CHUNKS).open("wb") as file:
        for chunk in chunks():
            batch.append(chunk)
            if len(batch) == BATCH:
                write(file)
        if batch:
            write(file)
    np.save(work / OFFSETS, np.array(offsets, np.uint64))
    lexicon.write(work)
    return done, bad, np.concatenate(vectors) if vectors else np.zeros((0, embedder.dimension), np.float32)


def _put_in_force(output: Path, version: str) -> None:
    temporary = output / f".{CURRENT}.{os.getpid()}"
    temporary.write_text(version + "\n", encoding="ascii")
    _sync(temporary)
    temporary.replace(output / CURRENT)
    _sync(output)


def _prune(output: Path, keep: int) -> None:
    """Remove the oldest versions, never the one in force."""
    current = (output / CURRENT).read_text(encoding="ascii").strip()
    others = [p for p in output.iterdir() if p.is_dir() and VERSION.fullmatch(p.name) and p.name != current]
    others.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    for old in others[max(keep - 1, 0) :]:
        shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
