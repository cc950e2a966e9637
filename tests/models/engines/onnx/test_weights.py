"""Reading safetensors: types, shards, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.engines.onnx.weights import Checkpoint
from models.errors import CheckpointError
from tests.models.engines.onnx import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

NAME = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize("stored", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_type_and_layout_is_read(tmp_path: Path, stored: str, shards: int) -> None:
    """bf16, f16 and f32, in one file or several, come back as float32, whole or by rows."""
    made = checkpoints.llama()
    checkpoints.write(tmp_path, made, stored=stored, shards=shards)
    expected = made[1][NAME].astype(checkpoints.TYPES[stored]).astype(np.float32)
    with Checkpoint(tmp_path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.tensor(NAME, 64, 48), expected)
        np.testing.assert_array_equal(checkpoint.linear(NAME, 48, 64), expected.T)
        np.testing.assert_array_equal(checkpoint.rows(NAME, (5, 2), (64, 48)), expected[[5, 2]])


def test_a_wrong_shape_or_name_is_said(tmp_path: Path) -> None:
    """A tensor that is missing, or not of the shape that config.json implies, is named."""
    checkpoints.write(tmp_path, checkpoints.llama())
    with Checkpoint(tmp_path) as checkpoint:
        with pytest.raises(CheckpointError, match="q_proj"):
            checkpoint.tensor(NAME, 64, 47)
        with pytest.raises(CheckpointError, match="nothing"):
            checkpoint.tensor("nothing", 1)


def test_no_weights_and_broken_weights_are_said(tmp_path: Path) -> None:
    """An empty folder, a truncated file and a broken index each get their sentence."""
    with pytest.raises(CheckpointError, match="neither"):
        Checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match="index"):
        Checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(CheckpointError, match="unreadable"):
        Checkpoint(tmp_path)
