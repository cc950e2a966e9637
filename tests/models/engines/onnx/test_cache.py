"""Built graphs on disk: complete or absent, checked, keyed by all that they depend on."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models.engines.onnx import cache
from models.engines.onnx.build import FILES, Recipe
from models.errors import CheckpointError
from models.manifest import SHIPPED, CanaryItem, load_manifest

if TYPE_CHECKING:
    from models.engines.onnx.architecture import Precision
    from tests.models.engines.onnx.conftest import Tiny

PRECISIONS: tuple[Precision, ...] = ("int8", "float32")


@pytest.fixture
def recipe(mini: Tiny) -> Recipe:
    """How to build the small checkpoint's graphs."""
    return Recipe.of(mini.folder, mini.manifest, "int8")


def stamps(folder: Path) -> dict[str, int]:
    """When each file was written, in nanoseconds."""
    return {name: (folder / name).stat().st_mtime_ns for name in FILES}


def test_graphs_are_built_once(recipe: Recipe, tmp_path: Path) -> None:
    """A second start finds the first one's files and leaves no others."""
    first = cache.graphs(recipe, tmp_path)
    before = stamps(first)
    assert cache.graphs(recipe, tmp_path) == first
    assert stamps(first) == before
    assert list(first.parent.iterdir()) == [first]


@pytest.mark.parametrize("name", ["probe.onnx", "graphs.json"])
def test_a_damaged_probe_is_built_again(tmp_path: Path, name: str) -> None:
    """A flipped bit of the graph that tells how this processor sums is noticed before it is believed."""
    path = cache.probe(tmp_path)
    intact = path.read_bytes()
    damaged = path.with_name(name)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert cache.probe(tmp_path).read_bytes() == intact


@pytest.mark.parametrize("name", [*FILES, "graphs.json"])
def test_a_damaged_file_is_built_again(recipe: Recipe, tmp_path: Path, name: str) -> None:
    """One changed byte in any file is noticed and repaired: it would be a wrong score."""
    folder = cache.graphs(recipe, tmp_path)
    intact = {n: (folder / n).read_bytes() for n in FILES}
    damaged = bytearray((folder / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / name).write_bytes(damaged)
    assert {n: (cache.graphs(recipe, tmp_path) / n).read_bytes() for n in FILES} == intact


def test_a_missing_file_is_built_again(recipe: Recipe, tmp_path: Path) -> None:
    """So is one that was deleted."""
    folder = cache.graphs(recipe, tmp_path)
    (folder / FILES[0]).unlink()
    assert (cache.graphs(recipe, tmp_path) / FILES[0]).is_file()


def test_unused_graphs_are_forgotten(recipe: Recipe, tmp_path: Path) -> None:
    """A build removes what no start has asked for in months; what was used lately stays."""
    old, lately = tmp_path / "graphs" / "old", tmp_path / "graphs" / "lately"
    for folder in (old, lately):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    target = cache.graphs(recipe, tmp_path)
    assert sorted(target.parent.iterdir()) == sorted([lately, target])


def test_what_a_killed_build_left_is_forgotten(recipe: Recipe, tmp_path: Path) -> None:
    """A work folder older than any build takes is removed; one that may be at work stays."""
    killed, at_work = tmp_path / "graphs" / ".a-1", tmp_path / "graphs" / ".a-2"
    for folder in (killed, at_work):
        folder.mkdir(parents=True)
    os.utime(killed, (time.time() - 2 * 86400,) * 2)
    target = cache.graphs(recipe, tmp_path)
    assert sorted(target.parent.iterdir()) == sorted([at_work, target])


def test_a_failed_build_leaves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    """A checkpoint without weights fails and leaves no half-built folder."""
    with pytest.raises(CheckpointError):
        cache.graphs(replace(recipe, folder=tmp_path), tmp_path)
    assert list((tmp_path / "graphs").iterdir()) == []


def test_the_key_follows_what_graphs_depend_on(recipe: Recipe) -> None:
    """Another file hash, label, limit or precision is another key; the folder's place is not."""
    others = [
        replace(recipe, files=(("model.safetensors", "0"),)),
        replace(recipe, labels=(1, 2)),
        replace(recipe, prompt=1),
        replace(recipe, rationale=1),
        replace(recipe, precision="float32"),
        replace(recipe, unsigned=True),
    ]
    assert len({recipe.key, *(other.key for other in others)}) == len(others) + 1
    assert replace(recipe, folder=Path("elsewhere")).key == recipe.key


def test_other_graphs_are_another_version_of_the_weights() -> None:
    """What canaries ask evens out the weights of int8, and of no other engine; what they expect does not."""
    manifest = load_manifest(SHIPPED)
    first, *rest = manifest.canaries
    for fields in ({"query": "other"}, {"chunk": "other"}, {"item": CanaryItem(title="other")}, {"probabilities": ()}):
        changed = manifest.model_copy(update={"canaries": (first.model_copy(update=fields), *rest)})
        for precision in PRECISIONS:
            keys = {Recipe.of(SHIPPED, one, precision).key for one in (manifest, changed)}
            versions = {one.weights_id(f"onnx-{precision}") for one in (manifest, changed)}
            assert len(keys) == len(versions) == 1 + (precision == "int8" and "probabilities" not in fields)


def test_the_environment_chooses_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TIERWISE_CACHE_DIR comes before the platform's own folder."""
    monkeypatch.setenv("TIERWISE_CACHE_DIR", str(tmp_path))
    assert cache.default_root() == tmp_path
    monkeypatch.delenv("TIERWISE_CACHE_DIR")
    assert cache.default_root().name == "tierwise"


def test_a_cache_that_cannot_be_written_is_done_without(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs that a read-only cache lacks are built elsewhere and are the same."""
    (tmp_path / "file").touch()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    elsewhere = cache.graphs(recipe, tmp_path / "file" / "cache")
    assert elsewhere.is_relative_to(tmp_path / "scratch")
    usual = cache.graphs(recipe, tmp_path / "cache")
    assert {n: (elsewhere / n).read_bytes() for n in FILES} == {n: (usual / n).read_bytes() for n in FILES}
