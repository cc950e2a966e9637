"""Tests of `tierwise.json`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from models.errors import CheckpointError
from models.manifest import MANIFEST_NAME, Manifest, load_manifest, save_manifest


@pytest.fixture
def folder(manifest: Manifest, wordpiece: Path, tmp_path: Path) -> Path:
    """A checkpoint folder of its own."""
    shutil.copy(wordpiece / "tokenizer.json", tmp_path)
    save_manifest(manifest, tmp_path)
    return tmp_path


def edit(folder: Path, **changes: object) -> None:
    """Change the manifest as a text editor would."""
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_saved_manifest_loads_the_same(folder: Path, manifest: Manifest) -> None:
    """Save and load are inverse, and leave no temporary file."""
    assert load_manifest(folder) == manifest
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST_NAME, "tokenizer.json"]


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    """The message names the file that is missing."""
    with pytest.raises(CheckpointError, match=MANIFEST_NAME):
        load_manifest(tmp_path)


def test_a_changed_file_is_refused_by_name(folder: Path) -> None:
    """One changed byte stops the load."""
    (folder / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_manifest(folder)
    assert load_manifest(folder, verify=False).name == "tiny"


def test_a_missing_file_is_refused_by_name(folder: Path) -> None:
    """The manifest's files have to be there."""
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks tokenizer\.json"):
        load_manifest(folder)


def _tiers(manifest: Manifest, key: str) -> list[dict[str, Any]]:
    tiers = [t.model_dump() for t in manifest.tiers]
    tiers[1][key] = tiers[0][key]
    return tiers


@pytest.mark.parametrize("key", ["name", "label", "token_id"])
def test_two_tiers_cannot_share_anything(folder: Path, manifest: Manifest, key: str) -> None:
    """Two tiers with one name, label or token could not be told apart."""
    edit(folder, tiers=_tiers(manifest, key))
    with pytest.raises(CheckpointError, match=key):
        load_manifest(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"beta": 0.0},
        {"beta": 1.0},
        {"temperature": 0.0},
        {"max_tokens": 0},
        {"tiers": []},
        {"surprise": 1},
        {"name": ""},
    ],
)
def test_a_value_out_of_range_is_refused(folder: Path, change: dict[str, object]) -> None:
    """Nothing out of range or unknown gets in."""
    edit(folder, **change)
    with pytest.raises(CheckpointError):
        load_manifest(folder)


def test_a_template_edited_by_hand_is_noticed(folder: Path, manifest: Manifest) -> None:
    """The prompt's hash guards the template that the weights were trained with."""
    prompt = manifest.prompt.model_dump()
    prompt["budgets"]["title"] += 1
    edit(folder, prompt=prompt)
    with pytest.raises(CheckpointError, match="edited by hand"):
        load_manifest(folder)


@pytest.mark.parametrize(
    ("part", "segments", "told"),
    [
        ("prefix", [{"text": "a", "field": "query"}, {"text": "b", "field": "title"}], "shared by all items"),
        ("suffix", [{"text": "b", "field": "title"}], "answer marker"),
        ("suffix", [{"text": "c"}], "query and title"),
    ],
)
def test_a_template_that_cannot_work_is_refused(
    folder: Path, manifest: Manifest, part: str, segments: list[dict[str, str]], told: str
) -> None:
    """An item's field in the shared prefix, no answer marker, or no title: each is told."""
    edit(folder, prompt={**manifest.prompt.model_dump(), part: segments})
    with pytest.raises(CheckpointError, match=told):
        load_manifest(folder)


def test_a_canary_must_expect_a_tier_that_exists(folder: Path, manifest: Manifest) -> None:
    """A canary of another tier set is a mistake."""
    canary = {**manifest.canaries[0].model_dump(), "tier": "5-Perfect"}
    edit(folder, canaries=[canary])
    with pytest.raises(CheckpointError, match="5-Perfect"):
        load_manifest(folder)


def test_versions_follow_what_they_stand_for(manifest: Manifest) -> None:
    """Another file changes the checkpoint's id, another beta the tiers' id, and neither the other's."""
    other_file = manifest.model_copy(update={"files": {"tokenizer.json": "0" * 64}})
    other_beta = manifest.model_copy(update={"beta": 0.6})
    assert other_file.checkpoint_id != manifest.checkpoint_id
    assert other_file.tiers_id == manifest.tiers_id
    assert other_beta.tiers_id != manifest.tiers_id
    assert other_beta.checkpoint_id == manifest.checkpoint_id
