"""The shipped checkpoint on a thousand real pairs: int8 beside float32, float32 beside the plain reference."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file

from models.engines.onnx.batch import Row
from models.engines.onnx.build import Recipe
from models.engines.onnx.runner import Runner
from models.manifest import SHIPPED, Manifest, load_manifest
from models.prompt import Item, Prompt, PromptWriter
from models.tiers import judge
from models.tokenizer import FieldTokenizer
from tests.models.engines.onnx import reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.engines.onnx.architecture import Precision

PAIRS = Path(__file__).parents[3] / "fixtures" / "pairs.jsonl"
ROWS = 8
LABELS = load_manifest(SHIPPED, verify=False).label_token_ids


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The shipped one."""
    return load_manifest(SHIPPED)


@pytest.fixture(scope="module")
def prompts(manifest: Manifest) -> list[Prompt]:
    """Ten queries with a hundred products each."""
    writer = PromptWriter(manifest, FieldTokenizer(SHIPPED))
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    written = []
    for (query, chunk), group in groupby(pairs, key=lambda pair: (pair["query"], pair["chunk"])):
        items = []
        for pair in group:
            item = {name: value for name, value in pair["item"].items() if name != "id"}
            item["attributes"] = "; ".join(f"{k}: {v}" for k, v in item.get("attributes", {}).items())
            items.append(Item(**item))
        written.append(writer.write(query, chunk, items))
    return written


@pytest.fixture(scope="module")
def runners(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Runner]:
    """Both precisions, as the engine opens them."""
    cache = tmp_path_factory.mktemp("cache")
    precisions: tuple[Precision, ...] = ("float32", "int8")
    return {precision: Runner.open(Recipe.of(SHIPPED, manifest, precision), cache) for precision in precisions}


def logits(runner: Runner, prompts: list[Prompt]) -> NDArray[np.float32]:
    """Label logits of all pairs, in order."""
    found = []
    for prompt in prompts:
        keys_values = runner.prefixes([prompt.prefix.ids])[0]
        rows = [Row(part.ids, keys_values) for part in prompt.suffixes]
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i].suffix))
        scored = np.empty((len(rows), len(LABELS)), np.float32)
        for start in range(0, len(rows), ROWS):
            few = by_length[start : start + ROWS]
            scored[few] = runner.score([rows[i] for i in few])
        found.append(scored)
    return np.concatenate(found)


def test_int8_tells_the_same_as_float32(
    manifest: Manifest, prompts: list[Prompt], runners: dict[Precision, Runner]
) -> None:
    """Mean error of a probability at most 0.01, p99 at most 0.05; at most 1 % of tiers differ, all of them close."""
    plain, quick = (
        judge(logits(runner, prompts), beta=manifest.beta, temperature=manifest.temperature)
        for runner in (runners["float32"], runners["int8"])
    )
    error = np.abs(plain.probabilities - quick.probabilities)
    assert len(error) == 1000
    assert error.mean() <= 0.01
    assert np.quantile(error, 0.99) <= 0.05
    differ = plain.tiers != quick.tiers
    assert differ.mean() <= 0.01
    assert (plain.margins[differ] < 0.05).all()


def test_float32_equals_the_reference(prompts: list[Prompt], runners: dict[Precision, Runner]) -> None:
    """The float32 graph's label logits are those of a plain float64 model within 1e-4, with a chunk and without."""
    made = (
        json.loads((SHIPPED / "config.json").read_text()),
        {name: value.astype(np.float32) for name, value in load_file(SHIPPED / "model.safetensors").items()},
    )
    graph = runners["float32"]
    for prompt in prompts[:4]:
        keys_values = graph.prefixes([prompt.prefix.ids])[0]
        for part in prompt.suffixes[:1]:
            expected = reference.logits(made, prompt.prefix.ids + part.ids)[list(LABELS)]
            assert np.abs(graph.score([Row(part.ids, keys_values)])[0] - expected).max() < 1e-4
