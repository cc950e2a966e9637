"""A snapshot of knowledge on disk: what is in it, and how it is checked before anything of it is believed.

    DIR/CURRENT            name of the version in force, one line, replaced atomically
    DIR/<version>/         one snapshot, never changed once it has its name
        manifest.json      version, embedder id, counts, sha256 of every other file
        vectors.faiss      FAISS index
        chunks.jsonl       one chunk a line
        offsets.npy        uint64 [N + 1], where each line begins
        terms.npy ...      words of the chunks (retrieval/lexicon.py)
        embedder/          the static embedder that made the vectors (absent for one that is loaded by name)

File names are fixed here; a manifest cannot name a path of its own, so nothing in a snapshot can point outside it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from typing import TYPE_CHECKING, Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retrieval.chunks import Chunk
from retrieval.embedding import STATIC_FILES
from retrieval.errors import SnapshotError
from retrieval.lexicon import LEXICON_FILES

if TYPE_CHECKING:
    from pathlib import Path

CURRENT: Final = "CURRENT"
MANIFEST: Final = "manifest.json"
INDEX: Final = "vectors.faiss"
CHUNKS: Final = "chunks.jsonl"
OFFSETS: Final = "offsets.npy"
EMBEDDER: Final = "embedder"
OWN_FILES: Final = (INDEX, CHUNKS, OFFSETS, *LEXICON_FILES)
EMBEDDER_FILES: Final = tuple(f"{EMBEDDER}/{name}" for name in STATIC_FILES)
VERSION: Final = re.compile(r"[0-9a-f]{12}")


class FileEntry(BaseModel):
    """Size and sha256 of one file: the size finds a truncation before a gigabyte is hashed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int = Field(ge=0)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SnapshotManifest(BaseModel):
    """The whole of `manifest.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    version: Annotated[str, Field(pattern=VERSION.pattern)]
    created: str = Field(description="UTC, ISO 8601")
    embedder: str = Field(min_length=1, description="id of the embedder that made the vectors")
    embedder_kind: Literal["static", "sentence-transformers"]
    dimension: int = Field(gt=0)
    tau: float = Field(ge=-1, le=2, description="score below which a query gets no chunk")
    documents: int = Field(gt=0)
    chunks: int = Field(gt=0)
    budget: int = Field(gt=0, description="most tokens of a chunk")
    files: dict[str, FileEntry]


class ChunkStore:
    """Chunks by row number, read from a memory map. Safe to share between threads."""

    def __init__(self, folder: Path, rows: int) -> None:
        offsets = np.asarray(np.load(folder / OFFSETS, mmap_mode="r", allow_pickle=False))
        with (folder / CHUNKS).open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if offsets.dtype != np.uint64 or offsets.shape != (rows + 1,) or int(offsets[-1]) != len(self._bytes):
            raise SnapshotError(f"{folder / OFFSETS} does not fit {CHUNKS}")
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> Chunk:
        start, end = int(self._offsets[row]), int(self._offsets[row + 1])
        return Chunk(**json.loads(self._bytes[start:end]))


def resolve(folder: Path) -> Path:
    """The snapshot in force under a knowledge folder, or the folder itself when it is a snapshot.

    Raises:
        SnapshotError: neither, or CURRENT names something that is no version; names the file.
    """
    if (folder / MANIFEST).is_file():
        return folder
    try:
        version = (folder / CURRENT).read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        raise SnapshotError(f"{folder} holds no knowledge: it has neither {CURRENT} nor {MANIFEST}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SnapshotError(f"{folder / CURRENT} cannot be read: {error}") from error
    if not VERSION.fullmatch(version):
        raise SnapshotError(f"{folder / CURRENT} names no version: {version[:40]!r}")
    return folder / version


def read_manifest(snapshot: Path) -> SnapshotManifest:
    """Read and check `manifest.json`.

    Raises:
        SnapshotError: missing or invalid; names the file.
    """
    path = snapshot / MANIFEST
    try:
        manifest = SnapshotManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise SnapshotError(f"{path} is not a valid manifest: {error}") from error
    expected = {*OWN_FILES, *(EMBEDDER_FILES if manifest.embedder_kind == "static" else ())}
    if manifest.files.keys() != expected:
        raise SnapshotError(f"{path} must name exactly {sorted(expected)}, it names {sorted(manifest.files)[:10]}")
    if version_of(manifest.files, manifest.embedder) != manifest.version:
        raise SnapshotError(f"{path} was changed: its version does not follow from the files it names")
    return manifest


def verify_files(snapshot: Path, manifest: SnapshotManifest) -> None:
    """Compare every file with the manifest.

    Raises:
        SnapshotError: a file is missing, a link, truncated or changed; names it.
    """
    for name, entry in manifest.files.items():
        path = snapshot / name
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
            raise SnapshotError(f"{path} is missing or not a plain file")
        size = path.stat().st_size
        if size != entry.bytes:
            raise SnapshotError(f"{path} has {size} bytes, the manifest says {entry.bytes}: truncated or changed")
        if file_entry(path).sha256 != entry.sha256:
            raise SnapshotError(f"{path} was changed: its sha256 is not the manifest's")


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file as they are now."""
    with path.open("rb") as file:
        return FileEntry(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def version_of(files: dict[str, FileEntry], embedder: str) -> str:
    """12 hex digits over content alone, the date left out: small knowledge built twice has one version."""
    value = json.dumps([embedder, sorted((name, entry.sha256) for name, entry in files.items())])
    return hashlib.sha256(value.encode()).hexdigest()[:12]
