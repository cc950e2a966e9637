"""The adapter of a LoRA run, as a folder that a service lays over the base: PEFT's two files and a manifest.

Beside it the run's checkpoint holds the same weights merged; canaries and calibration come from there, because every
engine can compute it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from models.adapter import adapter_manifest
from models.manifest import MANIFEST_NAME, load_manifest, save_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from models.manifest import Manifest

ADAPTER: Final = "adapter"


def save_adapter(model: Any, folder: Path) -> bool:
    """PEFT's files of a model that trains an adapter, before it is merged; False when it trains all weights."""
    if not hasattr(model, "merge_and_unload"):
        return False
    model.save_pretrained(str(folder), safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card, of which nothing is filled in
    return True


def describe_adapter(folder: Path, base: Path, merged: Manifest) -> Manifest | None:
    """Write the adapter's manifest; None over a base that is no Tierwise checkpoint, which nothing serves.

    Args:
        folder: with PEFT's files.
        base: the checkpoint it was trained over.
        merged: manifest of the same weights merged, whose tiers, prompt, thresholds and canaries are the adapter's.

    Raises:
        CheckpointError: the base's manifest does not fit its files.
    """
    if not (base / MANIFEST_NAME).is_file():
        return None
    own = {"tiers", "prompt", "beta", "temperature", "canaries", "training", "figures"}
    manifest = adapter_manifest(
        folder, load_manifest(base), name=merged.name, **{name: getattr(merged, name) for name in own}
    )
    save_manifest(manifest, folder)
    return manifest
