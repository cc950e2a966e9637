"""Answers that a real vLLM samples, in the trainer's process: what is learned from is what the model would say."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import load_file

from models.manifest import SHIPPED, load_manifest
from tests.models.train.stages.launch import launched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(1260)  # two compilers warm up, on a busy machine


@pytest.fixture
def steps(run_settings: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., list[dict[str, float]]]:
    """Run a stage on the shipped judge, sampled by vLLM; what it logged, step by step."""

    def run(stage: str, **more: Any) -> list[dict[str, float]]:
        settings = run_settings(rows=32, **more) | {"base": str(SHIPPED), "vllm": "colocate"}
        launched(stage, settings, tmp_path, timeout=1200, VLLM_CPU_KVCACHE_SPACE="1")
        assert load_manifest(tmp_path / "run" / "checkpoint").training["method"] == stage
        states = tmp_path / "run" / "state"
        last = max(states.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
        logged = json.loads((last / "trainer_state.json").read_text())["log_history"]
        return [entry for entry in logged if "reward" in entry]

    return run


@pytest.mark.parametrize(
    "trained",  # at rates so high that one step moves the answers far
    [{"learning_rate": 1e-3}, {"learning_rate": 5e-3, "lora": {"rank": 4}}],
    ids=["weights", "adapters"],
)
def test_weights_reach_vllm(
    steps: Callable[..., list[dict[str, float]]], trained: dict[str, Any], tmp_path: Path
) -> None:
    """While the weights move away from the base, vLLM's probabilities stay those of the model in training."""
    logged = steps("grpo", max_steps=2, batch_size=32, group=4, warmup_share=0, top_k=0, **trained)
    assert len(logged) == 2
    assert logged[0]["groups/kept"] > 0, "nothing was learned before the second step"
    assert _moved(tmp_path / "run" / "checkpoint") > 1e-4
    for entry in logged:
        # bfloat16 there, float32 here: 0.006 to 0.03. A vLLM that keeps the base's weights is far off in the second.
        assert entry["sampling/sampling_logp_difference/mean"] < 0.2


def _moved(checkpoint: Path) -> float:
    """Mean change of an attention weight since the base."""
    now, base = (load_file(folder / "model.safetensors") for folder in (checkpoint, SHIPPED))
    return max(
        float((now[name].float() - base[name].float()).abs().mean()) for name in base if name.endswith("q_proj.weight")
    )


def test_guided_replay(steps: Callable[..., list[dict[str, float]]]) -> None:
    """Hints are sampled through vLLM too, in groups of another size than the prompts'; rewards stay finite."""
    logged = steps("agrl", max_steps=2, batch_size=32, guided=16)
    assert max(entry["guided/share"] for entry in logged) > 0
    assert all(math.isfinite(entry[name]) for entry in logged for name in ("reward", "loss"))
