"""One tiny checkpoint per shape, and its graphs in both precisions, built once for all tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from models.engines.onnx.architecture import read_architecture
from models.engines.onnx.build import Recipe
from models.engines.onnx.cache import graphs
from models.engines.onnx.runner import Runner
from tests.models.engines.onnx import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from models.engines.onnx.architecture import Precision
    from models.manifest import Manifest

SHAPES = {
    "opt post-norm": checkpoints.opt(),
    "opt pre-norm": checkpoints.opt(pre_norm=True, activation="relu"),
    "qwen3": checkpoints.llama("qwen3"),
    "qwen2": checkpoints.llama("qwen2", key_heads=4),
    "llama": checkpoints.llama("llama", key_heads=1, tied=False),
}


@dataclass(frozen=True, eq=False)
class Tiny:
    """A checkpoint on disk."""

    made: tuple[dict[str, Any], checkpoints.Tensors]
    folder: Path
    manifest: Manifest
    cache: Path

    def runner(self, precision: Precision, *, unsigned: bool = False) -> Runner:
        """Its graphs, opened."""
        return _open(self, precision, unsigned)


@cache
def _open(tiny: Tiny, precision: Precision, unsigned: bool) -> Runner:  # noqa: FBT001 - a cache key
    recipe = replace(Recipe.of(tiny.folder, tiny.manifest, precision), unsigned=unsigned)
    return Runner(graphs(recipe, tiny.cache), read_architecture(tiny.folder))


@pytest.fixture(scope="session", params=SHAPES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A checkpoint of each shape in turn."""
    return _write(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A checkpoint of the shipped shape."""
    return _write("opt post-norm", tmp_path_factory)


def _write(shape: str, factory: pytest.TempPathFactory) -> Tiny:
    folder = factory.mktemp("checkpoint")
    made = SHAPES[shape]
    return Tiny(made, folder, checkpoints.write(folder, made), factory.mktemp("cache"))
