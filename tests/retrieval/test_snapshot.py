"""Snapshots are refused unless every byte is as the manifest says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from retrieval.chunks import Chunk
from retrieval.errors import SnapshotError
from retrieval.search import KnowledgeBase
from retrieval.snapshot import (
    CHUNKS,
    CURRENT,
    EMBEDDER_FILES,
    MANIFEST,
    OFFSETS,
    OWN_FILES,
    ChunkStore,
    read_manifest,
    resolve,
    verify_files,
)

if TYPE_CHECKING:
    from pathlib import Path

FILES = (*OWN_FILES, *EMBEDDER_FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_in_any_file_is_refused_by_name(copy: Path, name: str) -> None:
    """One bit flipped, the size kept: the error names the file."""
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(SnapshotError, match="was changed") as raised:
        KnowledgeBase.open(copy)
    assert name in str(raised.value)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused_by_name(copy: Path, name: str) -> None:
    """A copy that broke off: the error names the file and both sizes."""
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1])
    with pytest.raises(SnapshotError, match=f"{len(content) - 1} bytes, the manifest says {len(content)}") as raised:
        KnowledgeBase.open(copy)
    assert name in str(raised.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(copy: Path, name: str) -> None:
    """Absent, or replaced by a link that points elsewhere."""
    kept = copy.parent / "elsewhere"
    (copy / name).rename(kept)
    with pytest.raises(SnapshotError, match="missing or not a plain file") as raised:
        KnowledgeBase.open(copy)
    assert name in str(raised.value)
    (copy / name).symlink_to(kept)
    with pytest.raises(SnapshotError, match="missing or not a plain file"):
        KnowledgeBase.open(copy)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "more.npy"])
def test_a_manifest_cannot_name_other_files(copy: Path, name: str) -> None:
    """File names are fixed: a path in a manifest is refused before it is opened."""
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(SnapshotError, match="must name exactly"):
        read_manifest(copy)


def test_a_manifest_edited_with_its_hashes_is_refused(copy: Path) -> None:
    """Hashes are part of the version, so that exchanging a file and its hash gives another version."""
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"][CHUNKS]["sha256"] = "0" * 64
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(SnapshotError, match="its version does not follow"):
        read_manifest(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}'])
def test_a_manifest_that_is_none_is_refused_by_name(copy: Path, content: str) -> None:
    """Any other content is a SnapshotError that names the manifest."""
    (copy / MANIFEST).write_text(content)
    with pytest.raises(SnapshotError, match=MANIFEST):
        read_manifest(copy)


@pytest.mark.parametrize("content", ["../../tmp\n", "/etc\n", "", "abc\n", "é\n", "0123456789ab/..\n"])
def test_current_can_only_name_a_version(tmp_path: Path, content: str) -> None:
    """Nothing that CURRENT says leads out of the knowledge folder."""
    (tmp_path / CURRENT).write_text(content, encoding="utf-8")
    with pytest.raises(SnapshotError, match=CURRENT):
        resolve(tmp_path)


def test_a_folder_without_knowledge_is_refused(tmp_path: Path) -> None:
    """The message says what was looked for."""
    with pytest.raises(SnapshotError, match=r"neither CURRENT nor manifest\.json"):
        resolve(tmp_path)


def test_chunks_are_read_by_row(snapshot: Path) -> None:
    """The store gives every chunk as it was built."""
    store = ChunkStore(snapshot, 5)
    assert len(store) == 5
    assert store[1] == Chunk(
        id="fits:tn-3170",
        text="Brother toner cartridge TN-3170 fits Brother HL-5240, MFC-8460N.",
        source="cards",
        title="Brother toner cartridge TN-3170",
        url="https://example.com/tn-3170",
    )


def test_offsets_that_do_not_fit_are_refused(copy: Path) -> None:
    """Another number of rows than the manifest's is an error, not a wrong chunk."""
    with pytest.raises(SnapshotError, match=OFFSETS):
        ChunkStore(copy, 6)


def test_an_intact_snapshot_passes(snapshot: Path) -> None:
    """The counterpart of everything above."""
    verify_files(snapshot, read_manifest(snapshot))
