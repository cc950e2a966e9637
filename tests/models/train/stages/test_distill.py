"""Distillation: the student takes over the teacher's probabilities."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.errors import TrainingError
from models.manifest import load_manifest
from models.train.data.schema import read_training_rows
from models.train.stages import distill, finish
from models.train.stages.base import open_base
from models.train.stages.config import DistillConfig
from models.train.stages.registry import run_stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_probabilities_in_the_rows(run_settings: Callable[..., dict[str, Any]]) -> None:
    """Unlabelled rows with a teacher's probabilities teach their tiers."""
    config = DistillConfig(**run_settings(rows=64, epochs=5))
    lines = [json.loads(line) for line in config.train.read_text().splitlines()]
    for n, line in enumerate(lines):
        del line["tier"]
        line["probabilities"] = [0.7 if k == n % 4 else 0.1 for k in range(4)]
    config.train.write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures = run_stage("distill", config, lambda *_: None)
    assert figures is not None
    assert figures["accuracy"] > 0.9
    assert load_manifest(config.output / finish.CHECKPOINT).training["method"] == "distill"


def test_teacher_checkpoint(run_settings: Callable[..., dict[str, Any]], tiny: Path) -> None:
    """A teacher folder scores the rows once; its own weights are a student without loss, but for the prototypes."""
    config = DistillConfig(**run_settings(rows=16), teacher=tiny, prototype_strength=0)
    base = open_base(config)
    trainer = distill.trainer(base, config)
    (file,) = config.output.glob("teacher-*.npy")
    kept = np.load(file)
    rows = read_training_rows(config.train, base.manifest.tiers)
    assert kept == pytest.approx(distill.teacher_rows(rows, base, config))
    assert kept.sum(-1) == pytest.approx(1)
    batch = trainer.data_collator([trainer.train_dataset[n] for n in range(8)])
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(0, abs=1e-4)


def test_scores_belong_to_their_rows(run_settings: Callable[..., dict[str, Any]], tiny: Path) -> None:
    """Rows that are edited, or come in another order, are scored again: nobody gets another row's probabilities."""
    config = DistillConfig(**run_settings(rows=16), teacher=tiny)
    base = open_base(config)
    before = distill.teacher_rows(read_training_rows(config.train, base.manifest.tiers), base, config)
    config.train.write_text("".join(reversed(config.train.read_text().splitlines(keepends=True))))
    after = distill.teacher_rows(read_training_rows(config.train, base.manifest.tiers), base, config)
    assert after == pytest.approx(before[::-1], abs=1e-5)
    assert len(list(config.output.glob("teacher-*.npy"))) == 2


def test_no_teacher(run_settings: Callable[..., dict[str, Any]]) -> None:
    """Rows without probabilities and no teacher are refused."""
    config = DistillConfig(**run_settings(rows=8))
    with pytest.raises(TrainingError, match="no teacher is named"):
        distill.trainer(open_base(config), config)
