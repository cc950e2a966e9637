"""A run that is spread over processes is one run: one checkpoint, one report, nothing made twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from models.manifest import load_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "service"]


def launched(stage: str, settings: dict[str, Any], folder: Path) -> str:
    """Run a stage in two processes, as `accelerate launch` does; what both wrote."""
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({k: v if isinstance(v, int | float) else str(v) for k, v in settings.items()}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*LAUNCH, "train", stage, "--config", str(file)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.timeout(660)
@pytest.mark.parametrize(
    ("stage", "more"),
    [("sft", {"epochs": 2}), ("dpo", {"samples": 2, "epochs": 1}), ("grpo", {"max_steps": 2, "group": 4})],
)
def test_two_processes(stage: str, more: dict[str, Any], run_settings: Callable[..., Any], tmp_path: Path) -> None:
    """Both processes learn, the main one alone writes the checkpoint and says so."""
    settings = run_settings(rows=32, **more)
    said = launched(stage, settings, tmp_path)
    assert said.count("Next: tierwise calibrate") == 1
    manifest = load_manifest(tmp_path / "run" / "checkpoint")
    assert manifest.training["method"] == stage
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["figures"]["rows"] == 24
    states = sorted((tmp_path / "run" / "state").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    steps = json.loads((states[-1] / "trainer_state.json").read_text())["global_step"]
    if stage == "sft":
        assert steps == 32 * 2 // (2 * settings["batch_size"])  # a step takes a batch of each process
