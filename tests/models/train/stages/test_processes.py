"""A run that is spread over processes is one run: one checkpoint, one report, nothing made twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from models.manifest import load_manifest
from tests.models.train.stages.launch import launched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")  # as `accelerate launch` does


@pytest.mark.timeout(660)
@pytest.mark.parametrize(
    ("stage", "more"),
    [
        ("sft", {"epochs": 2}),
        ("dpo", {"samples": 2, "epochs": 1}),
        ("grpo", {"max_steps": 2, "group": 4}),
        ("agrl", {"max_steps": 2, "group": 4, "guided": 4}),
    ],
)
def test_two_processes(stage: str, more: dict[str, Any], run_settings: Callable[..., Any], tmp_path: Path) -> None:
    """Both processes learn, the main one alone writes the checkpoint and says so."""
    settings = run_settings(rows=32, **more)
    said = launched(stage, settings, tmp_path, launcher=TWO, OMP_NUM_THREADS="1")
    assert said.count("Next: tierwise calibrate") == 1
    manifest = load_manifest(tmp_path / "run" / "checkpoint")
    assert manifest.training["method"] == stage
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["figures"]["rows"] == 24
    states = sorted((tmp_path / "run" / "state").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    steps = json.loads((states[-1] / "trainer_state.json").read_text())["global_step"]
    if stage == "sft":
        assert steps == 32 * 2 // (2 * settings["batch_size"])  # a step takes a batch of each process
