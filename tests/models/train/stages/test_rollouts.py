"""GRPO, DyKnow, AGRL and SRPO: a few steps each; rewards, advantages and checkpoint are what they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from models.errors import TrainingError
from models.manifest import load_manifest
from models.train.objectives.policy import group_advantages
from models.train.objectives.posterior import accuracy_gap, transferred_weights
from models.train.stages import dyknow, run, srpo
from models.train.stages.agrl import GuidedTrainer
from models.train.stages.base import Base, open_base
from models.train.stages.config import AgrlConfig, DyknowConfig, GrpoConfig, SrpoConfig
from models.train.stages.rollouts import RolloutTrainer, learned_rows

if TYPE_CHECKING:
    from collections.abc import Callable

Settings = dict[str, Any]
FEW: Settings = {"max_steps": 2, "group": 4, "batch_size": 8, "learning_rate": 1e-3, "rationale_tokens": 56}


def finished(trainer: Any, base: Base, config: GrpoConfig) -> list[Settings]:
    """Train, write the checkpoint, return the log."""
    run.prepared(config, "stage")
    run.train(trainer, config)
    run.finish(trainer, base, config, {"method": "stage"})
    assert load_manifest(config.output / run.CHECKPOINT).files
    return [entry for entry in trainer.state.log_history if "loss" in entry]


class Recorded:
    """Keeps every batch that a trainer makes."""

    def __init__(self, trainer: Any) -> None:
        self.batches: list[Settings] = []
        make = trainer._generate_and_score_completions

        def kept(inputs: list[Settings]) -> Settings:
            batch: Settings = make(inputs)
            self.batches.append({"inputs": inputs, "values": trainer._values.clone(), **batch})
            return batch

        trainer._generate_and_score_completions = kept


def forced(trainer: Any, answers: Callable[[int, Any], list[int]]) -> None:
    """Make the trainer's policy say what a test wants it to have said: answers(place, row)."""

    def said(prompts: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        rows = {tuple(trainer.base.answers.prompt(row, context=c)): row for row in trainer.rows for c in (True, False)}
        return [answers(n, rows.get(tuple(ids))) for n, ids in enumerate(prompts)], None

    trainer._generate_single_turn = said


def test_grpo(run_settings: Callable[..., Settings]) -> None:
    """Batches are balanced, groups without a difference are silent, advantages are the rewards' z-scores."""
    config = GrpoConfig(**run_settings(rows=16, **FEW), gamma=2)
    base = open_base(config)
    trainer = RolloutTrainer(base, config, learned_rows(base, config))
    tiers = [base.answers.tier(row) for row in trainer.rows]
    assert sorted(tiers[:4]) == [0, 1, 2, 3]
    right = base.answers.gold(trainer.rows[0])

    def answers(place: int, row: Any) -> list[int]:
        gold = base.answers.gold(row)
        if row is trainer.rows[0]:  # a mixed group: right, right, wrong tier, unreadable
            return (right, right, [base.manifest.label_token_ids[tiers[0] - 1], *right[1:]], [9, 9])[place % 4]
        return gold

    forced(trainer, answers)
    seen = Recorded(trainer)
    log = finished(trainer, base, config)
    first = seen.batches[0]
    assert first["values"][:, 0].tolist() == [1, 1, 0, -1, 1, 1, 1, 1]
    expected = 2 * group_advantages(torch.tensor([1.0, 1, 0, -1]))  # one of two groups is kept
    assert first["advantages"].tolist() == pytest.approx([*expected.tolist(), 0, 0, 0, 0], abs=1e-5)
    assert not first["completion_mask"][4:].any()
    assert log[0]["rewards/right/mean"] == pytest.approx(6 / 8)
    assert log[0]["groups/kept"] == 0.5


def test_grpo_samples(run_settings: Callable[..., Settings]) -> None:
    """With its own samples the stage runs, and every logged figure is finite."""
    config = GrpoConfig(**run_settings(rows=16, **FEW))
    base = open_base(config)
    log = finished(RolloutTrainer(base, config, learned_rows(base, config)), base, config)
    assert len(log) == 2
    assert all(torch.isfinite(torch.tensor(float(v))) for v in log[0].values() if v is not None)


def test_pool(run_settings: Callable[..., Settings]) -> None:
    """Only rows that the base is unsure of are learned from, and an empty pool says which setting to raise."""
    config = GrpoConfig(**run_settings(rows=16, **FEW), pool_confidence=0.01)
    base = open_base(config)
    with pytest.raises(TrainingError, match="raise pool_confidence"):
        learned_rows(base, config)


def test_dyknow(run_settings: Callable[..., Settings]) -> None:
    """Groups come in pairs, weights follow the formula, and answers without context are scored under the chunk."""
    config = DyknowConfig(**run_settings(rows=16, context=True, **FEW), pool_confidence=1.0)
    base = open_base(config)
    trainer = dyknow.trainer(base, config)

    def answers(place: int, row: Any) -> list[int]:
        gold = base.answers.gold(row)
        wrong = base.manifest.label_token_ids[base.answers.tier(row) - 1]
        return gold if place >= 4 else [wrong, *gold[1:]]  # the chunk helps

    forced(trainer, answers)
    seen = Recorded(trainer)
    log = finished(trainer, base, config)
    first = seen.batches[0]
    lengths = [len(x["prompt"]) for x in first["inputs"]]
    assert lengths[0] < lengths[4]
    assert [x["row"] for x in first["inputs"]] == [0] * 8
    rewards = first["values"][:, 0].view(1, 2, 4)
    gap = accuracy_gap(rewards[:, 0] > 0, rewards[:, 1] > 0)
    expected = transferred_weights(rewards[:, 0], rewards[:, 1], gap)[0]
    assert first["transferred"][:4].tolist() == pytest.approx(expected.tolist())
    assert not first["transferred"][4:].any()
    assert first["transferred"][:4].tolist() == [-2] * 4  # wrong without the chunk: pushed down, as far as the clamp
    assert first["completion_mask"].any(-1).all()
    prompt = base.answers.prompt(trainer.rows[0])
    assert first["other_ids"][0][first["other_mask"][0].bool()].tolist() == prompt
    assert "dyknow/transferred" in log[0]


def test_agrl(run_settings: Callable[..., Settings]) -> None:
    """A failing group gets right guided answers, scored under the plain prompt against the guided policy."""
    config = AgrlConfig(**run_settings(rows=16, **FEW), guided=4)
    base = open_base(config)
    trainer = GuidedTrainer(base, config, learned_rows(base, config))
    rows = trainer.rows
    hints = {tuple(base.answers.hinted(row, level)): row for row in rows for level in (1, 2)}

    def generated(_self: Any, prompts: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        plain = base.answers.gold(rows[1])  # a readable answer with another row's tier
        return [base.answers.gold(hints[tuple(p)]) if tuple(p) in hints else list(plain) for p in prompts], None

    patch = pytest.MonkeyPatch()
    patch.setattr(RolloutTrainer, "_generate_single_turn", generated)
    try:
        seen = Recorded(trainer)
        finished(trainer, base, config)
    finally:
        patch.undo()
    first = seen.batches[0]
    right = first["values"][:, 1].view(2, 4)
    assert right[0].sum() == 2  # a quarter of the batch of eight
    assert right[1].sum() == 4
    guided = first["values"][:4, 1].bool()
    ids = torch.cat([first["prompt_ids"], first["completion_ids"]], 1)
    mask = torch.cat([first["prompt_mask"], first["completion_mask"]], 1)
    with torch.no_grad():
        plain, _, _ = trainer._get_per_token_logps_and_entropies(base.model, ids, mask, first["completion_ids"].size(1))
    assert first["old_per_token_logps"].shape == plain.shape
    assert not torch.allclose(first["old_per_token_logps"][:4][guided], plain[:4][guided], atol=1e-4)


def test_srpo(run_settings: Callable[..., Settings]) -> None:
    """Steps are verified against gold, tokens carry their step's advantage, easy rows come first."""
    config = SrpoConfig(**run_settings(rows=16, **FEW), gamma=2)
    base = open_base(config)
    trainer = srpo.trainer(base, config)
    assert trainer.stages == sorted(trainer.stages)
    trainer.stages = [2] * len(trainer.rows)
    trainer.train_dataset = trainer.dataset()

    def answers(place: int, row: Any) -> list[int]:
        gold = base.answers.gold(row)
        other = next(
            r for r in trainer.rows if base.answers.gold_steps(r).category != base.answers.gold_steps(row).category
        )
        return gold if place % 2 else base.answers.gold(other)

    forced(trainer, answers)
    seen = Recorded(trainer)
    finished(trainer, base, config)
    first = seen.batches[0]
    category = first["values"][:4, trainer.signals.index("category")].tolist()
    assert category == [-1, 1, -1, 1]
    advantages, mask = first["advantages"], first["completion_mask"].bool()
    assert advantages.shape == first["completion_ids"].shape
    wrong, good = advantages[0][mask[0]], advantages[1][mask[1]]
    assert wrong[0] < 0 < good[0]
    assert wrong[1].item() == pytest.approx(2 * wrong[0].item(), rel=0.6)  # the first wrong step weighs double
    assert wrong[-1] == 0  # what follows the first wrong step is not to blame
    assert trainer.args.entropy_target > 0
