"""An adapter's manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from models.adapter import FILES, adapter_manifest, load_adapter
from models.errors import CheckpointError
from models.manifest import Segment, save_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from models.manifest import Manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """PEFT's two files."""
    for name in FILES:
        (tmp_path / name).write_text(name)
    return tmp_path


def described(folder: Path, base: Manifest, **own: Any) -> Manifest:
    """A manifest with recorded canaries, saved beside the files."""
    share = 1.0 / len(base.tiers)
    canaries = tuple(
        canary.model_copy(update={"probabilities": (share,) * len(base.tiers)}) for canary in base.canaries
    )
    made = adapter_manifest(folder, base, name="toys", **{"canaries": canaries, **own})
    save_manifest(made, folder)
    return made


def test_what_was_described_loads(folder: Path, manifest: Manifest) -> None:
    """The base's fields but for its own; its id is its own and follows its weights and its base."""
    made = described(folder, manifest, beta=0.7)
    assert load_adapter(folder, manifest, name="toys") == made
    assert (made.base, made.beta, made.tiers) == (manifest.checkpoint_id, 0.7, manifest.tiers)
    assert made.checkpoint_id.startswith("toys@")
    elsewhere = made.model_copy(update={"base": "another@0123456789ab"})
    (folder / FILES[1]).write_text("other weights")
    ids = {made.checkpoint_id, elsewhere.checkpoint_id, described(folder, manifest).checkpoint_id}
    assert len(ids) == 3


def test_a_prompt_of_its_own_has_its_own_hash(folder: Path, manifest: Manifest) -> None:
    """Who changes the template need not know how it is hashed."""
    prompt = manifest.prompt.model_copy(update={"suffix": (*manifest.prompt.suffix[:-1], Segment(text="[SEP]"))})
    assert described(folder, manifest, prompt=prompt).prompt_hash == prompt.hash != manifest.prompt_hash


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"name": "garden"}, "it is called 'garden'"),
        ({"base": "other@0123456789ab"}, "it lies over other@0123456789ab, the checkpoint served is tiny@"),
        ({"base": None}, "base is not set"),
        ({"canaries": ()}, "needs canaries with probabilities"),
        ({"max_tokens": 100_000}, "max_tokens is 100000, the base takes"),
        ({"files": {}}, "files must name adapter_config.json and adapter_model.safetensors"),
    ],
)
def test_another_judge_than_was_meant_is_refused(
    folder: Path, manifest: Manifest, own: dict[str, Any], told: str
) -> None:
    """The message names the adapter and what is wrong with it."""
    made = described(folder, manifest).model_copy(update=own)
    save_manifest(made, folder)
    with pytest.raises(CheckpointError, match=r"^adapter toys: ") as caught:
        load_adapter(folder, manifest, name="toys")
    assert told in str(caught.value)


def test_canaries_that_were_not_recorded_are_refused(folder: Path, manifest: Manifest) -> None:
    """Tiers alone may be the base's too."""
    save_manifest(adapter_manifest(folder, manifest, name="toys", canaries=manifest.canaries), folder)
    with pytest.raises(CheckpointError, match="needs canaries with probabilities"):
        load_adapter(folder, manifest, name="toys")


def test_a_folder_without_weights_is_no_adapter(folder: Path, manifest: Manifest) -> None:
    """What is missing is named."""
    (folder / FILES[1]).unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        adapter_manifest(folder, manifest, name="toys")


def test_fields_that_make_no_manifest_are_refused(folder: Path, manifest: Manifest) -> None:
    """As they would be when the service reads them."""
    with pytest.raises(CheckpointError, match="adapter toys"):
        adapter_manifest(folder, manifest, name="toys", beta=2.0)
