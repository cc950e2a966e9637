"""The embedded engine's float32 graphs beside transformers, on a random checkpoint of every shape it claims to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from models.engines.onnx.architecture import read_architecture
from models.engines.onnx.batch import Row
from models.engines.onnx.build import Recipe
from models.engines.onnx.cache import graphs
from models.engines.onnx.runner import Runner
from tests.models.engines.onnx import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = {
    "opt post-norm": checkpoints.opt(),
    "opt pre-norm": checkpoints.opt(pre_norm=True, activation="relu", identity=False),
    "opt tanh": checkpoints.opt(activation="gelu_new"),
    "qwen3": checkpoints.llama("qwen3"),
    "qwen2": checkpoints.llama("qwen2", key_heads=4),
    "llama": checkpoints.llama("llama", key_heads=1, tied=False),
    "mistral": checkpoints.llama("mistral"),
}
PREFIX = [5, 9, 33, 2, 71, 70, 69, 68, 1, 2, 3, 4, 90, 95, 94, 93, 17, 18]
SUFFIXES = [[40], [41, 42, 43, 44, 45], list(range(20, 60))]


@dataclass(frozen=True)
class Both:
    """One checkpoint in both libraries."""

    runner: Runner
    model: Any

    def logits(self, ids: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """What transformers says comes next."""
        with torch.no_grad():
            found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = (
                self.model(torch.tensor([ids])).logits[0, -1].numpy()
            )
        return found


@pytest.fixture(scope="module", params=SHAPES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Each shape in turn, its weights in bfloat16 and two shards."""
    folder: Path = tmp_path_factory.mktemp("checkpoint")
    manifest = checkpoints.write(folder, SHAPES[request.param], stored="bf16", shards=2)
    recipe = Recipe.of(folder, manifest, "float32")
    runner = Runner(graphs(recipe, tmp_path_factory.mktemp("cache")), read_architecture(folder))
    return Both(runner, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())


def test_label_logits_are_those_of_transformers(both: Both) -> None:
    """Cached prefix, padded rows and fused operators give transformers' logits within 1e-4."""
    keys_values = both.runner.prefixes([PREFIX])[0]
    found = both.runner.score([Row(suffix, keys_values) for suffix in SUFFIXES])
    expected = np.stack([both.logits(PREFIX + suffix)[list(checkpoints.LABELS)] for suffix in SUFFIXES])
    assert np.abs(found - expected).max() < 1e-4


def test_decoding_is_that_of_transformers(both: Both) -> None:
    """Greedy decoding picks the same tokens, and further ones where rotary positions differ most."""
    ids = PREFIX + SUFFIXES[2]
    decoding = both.runner.decode(ids, 12)
    for _ in range(12):
        token = both.runner.step(decoding)
        assert token == both.logits(ids).argmax()
        ids.append(token)
