"""`tierwise calibrate --adapter`: an adapter gets the thresholds that were chosen with its merged weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from models.adapter import FILES, adapter_manifest
from models.errors import CheckpointError
from models.manifest import SHIPPED, Manifest, load_manifest, save_manifest
from service.commands.calibrate import _set_adapter

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def manifest() -> Manifest:
    """The base's."""
    return load_manifest(SHIPPED)


@pytest.fixture
def merged(tmp_path: Path, manifest: Manifest) -> Path:
    """The manifest of a calibrated run."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    update = {"files": {}, "beta": 0.61, "temperature": 0.7, "training": {"method": "sft", "seed": 1}}
    save_manifest(manifest.model_copy(update=update), folder)
    return folder


def adapter_of(tmp_path: Path, manifest: Manifest, seed: int) -> Path:
    """An adapter of a run with this seed."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(name)
    training = {"method": "sft", "seed": seed}
    save_manifest(adapter_manifest(folder, manifest, name="toys", training=training), folder)
    return folder


def test_adapter_gets_the_thresholds(tmp_path: Path, manifest: Manifest, merged: Path) -> None:
    """Beta and temperature are those of the merged weights; name, base and files stay the adapter's."""
    folder = adapter_of(tmp_path, manifest, seed=1)
    before = load_manifest(folder)
    _set_adapter(folder, merged)
    after = load_manifest(folder)
    assert (after.beta, after.temperature) == (0.61, 0.7)
    assert after.checkpoint_id == before.checkpoint_id


def test_adapter_of_another_run_is_left_alone(tmp_path: Path, manifest: Manifest, merged: Path) -> None:
    """Thresholds of other weights would be silently wrong: the adapter is refused and stays as it was."""
    folder = adapter_of(tmp_path, manifest, seed=2)
    before = load_manifest(folder)
    with pytest.raises(CheckpointError, match="is not the adapter whose merged weights"):
        _set_adapter(folder, merged)
    assert load_manifest(folder) == before
