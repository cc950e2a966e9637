"""GRPO, DyKnow, AGRL and SRPO: a few steps each; rewards, advantages and checkpoint are what they should be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from models.errors import TrainingError
from models.manifest import load_manifest
from models.train.objectives.policy import group_advantages
from models.train.objectives.posterior import accuracy_gap, transferred_weights
from models.train.objectives.steps import step_advantages
from models.train.stages import dyknow, finish, run, srpo
from models.train.stages.agrl import GuidedTrainer
from models.train.stages.base import Base, open_base
from models.train.stages.config import AgrlConfig, DyknowConfig, GrpoConfig, SrpoConfig
from models.train.stages.reader import left_padded
from models.train.stages.rollouts import RolloutTrainer, learned_rows, sampled_by

if TYPE_CHECKING:
    from collections.abc import Callable

Settings = dict[str, Any]
FEW: Settings = {"max_steps": 2, "group": 4, "batch_size": 8, "learning_rate": 1e-3, "rationale_tokens": 56}


def finished(trainer: Any, base: Base, config: GrpoConfig) -> list[Settings]:
    """Train, write the checkpoint, return the log."""
    run.prepared(config, "stage")
    run.train(trainer, config)
    finish.finish(trainer, base, config, {"method": "stage"})
    assert load_manifest(config.output / finish.CHECKPOINT).files
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
    expected = group_advantages(torch.tensor([1.0, 1, 0, -1]))
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


def test_balancing_says_what_it_drops(run_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture) -> None:
    """Rows beyond the rarest tier's count are dropped with a word; without balancing none is."""
    config = GrpoConfig(**run_settings(rows=15, **FEW))
    base = open_base(config)
    left = learned_rows(base, config)
    assert len(left) < 15
    assert f"{len(left)} of 15 rows are left" in caplog.text
    assert len(learned_rows(base, config.model_copy(update={"balanced": False}))) == 15


def test_dyknow(run_settings: Callable[..., Settings]) -> None:
    """Groups come in pairs, weights follow the formula, and answers without context are scored under the chunk."""
    config = DyknowConfig(**run_settings(rows=16, context=True, **FEW), pool_confidence=1.0, temperature=1)
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
    # The loss of the first step: ratios are 1 and the policy is the reference, so l0 and l1 are means of advantages,
    # the KL is zero, and the third term is -2 times the mean probability of the four answers, over eight rows.
    likely = torch.tensor([_likely(base, prompt, ids) for ids in _answers(first)[:4]])
    gained = -2 * likely.sum().item() / 8
    assert log[0]["dyknow/transferred"] == pytest.approx(gained, rel=1e-3)
    assert log[0]["loss"] == pytest.approx(-first["advantages"].mean().item() - gained, abs=1e-4)
    assert trainer.beta == pytest.approx(config.kl / 2)  # one KL for both groups


def _answers(batch: Settings) -> list[list[int]]:
    pairs = zip(batch["completion_ids"], batch["completion_mask"].bool(), strict=True)
    return [ids[mask].tolist() for ids, mask in pairs]


def _log_probs(base: Base, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Of an answer's tokens after a prompt, by a plain forward pass of the base as it was."""
    model = open_base_again(base)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    found: torch.Tensor = logits.gather(-1, torch.tensor(answer)[:, None])[:, 0]
    return found


def _likely(base: Base, prompt: list[int], answer: list[int]) -> float:
    return float(_log_probs(base, prompt, answer).exp().mean())


def open_base_again(base: Base) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=torch.float32).eval()


def test_equal_rewards_are_no_difference() -> None:
    """Eight equal rewards make a group without a difference, though their deviation may round above zero."""
    trainer = GuidedTrainer.__new__(GuidedTrainer)
    trainer.stage = SimpleNamespace(gamma=0.9)  # type: ignore[assignment]
    for reward in (0.15, 0.35, 0.4, 0.45, 0.2):
        values = torch.zeros(1, 8, 3)
        values[..., 0] = reward
        assert not trainer.kept(values).any()


def test_agrl(run_settings: Callable[..., Settings]) -> None:
    """A failing group gets right guided answers, scored under the plain prompt against the guided policy."""
    config = AgrlConfig(**run_settings(rows=16, **FEW), guided=4, temperature=1)
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
    row = rows[0]
    for n, answer in enumerate(_answers(first)[:4]):
        plain = _log_probs(base, base.answers.prompt(row), answer)
        hinted = _log_probs(base, base.answers.hinted(row, 1), answer)
        ratio = (plain - hinted).exp().clamp(0.8, 1.2) if guided[n] else torch.ones(len(answer))
        old = first["old_per_token_logps"][n][: len(answer)]
        assert (plain - old).exp().tolist() == pytest.approx(ratio.tolist(), abs=1e-3)


def test_agrl_keeps_step_with_other_processes(
    run_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without guided answers runs the model as often as one that has some, and learns as if it had not."""
    config = AgrlConfig(**run_settings(rows=16, **FEW), guided=4, temperature=1)
    base = open_base(config)
    trainer = GuidedTrainer(base, config, learned_rows(base, config))
    trainer._asked, trainer._guides = trainer.rows[:2], {}
    prompts, prompt_mask = left_padded([base.answers.prompt(row) for row in trainer._asked], 0)
    answer = torch.tensor([base.answers.gold(trainer.rows[0])] * 2)
    output = {
        "prompt_ids": prompts,
        "prompt_mask": prompt_mask,
        "completion_ids": answer,
        "completion_mask": torch.ones_like(answer),
    }
    passes: list[int] = []
    score = trainer._get_per_token_logps_and_entropies

    def counted(model: Any, ids: torch.Tensor, *rest: Any) -> Any:
        passes.append(len(ids))
        return score(model, ids, *rest)

    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", counted)
    for others, expected in ((0, []), (3, [2, 3])):
        monkeypatch.setattr(trainer.accelerator, "gather", lambda own, n=others: torch.tensor([n, int(own)]))
        trainer.complete(output, [])
        assert passes == expected
    for row, old in zip(trainer._asked, output["old_per_token_logps"], strict=True):
        assert old.tolist() == pytest.approx(
            _log_probs(base, base.answers.prompt(row), answer[0].tolist()).tolist(), abs=1e-4
        )


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
    outcome, step = wrong[0].item(), step_advantages(first["values"][:4, 2:3])[0, 0].item()
    # The first wrong step weighs double; half of it is the outcome's, in the third stage of the curriculum.
    assert wrong[1].item() == pytest.approx(2 * (0.5 * outcome + 0.5 * step), rel=1e-3)
    assert wrong[-1] == 0  # what follows the first wrong step is not to blame
    kept = trainer.args.entropy_target
    assert kept > 0
    assert srpo.trainer(base, config).args.entropy_target == pytest.approx(kept)  # a run that goes on keeps the floor


def test_srpo_drops_everything(run_settings: Callable[..., Settings]) -> None:
    """A batch whose groups are all dropped says nothing of the entropy: no floor, and no bonus against a collapse."""
    config = SrpoConfig(**run_settings(rows=16, **FEW))
    base = open_base(config)
    trainer = srpo.trainer(base, config)
    before = trainer.entropy_coef
    forced(trainer, lambda _, row: base.answers.gold(row))
    finished(trainer, base, config)
    assert trainer.args.entropy_target == 0
    assert trainer.entropy_coef == before


def test_vllm_is_not_installed(run_settings: Callable[..., Settings]) -> None:
    """A run that asks for vLLM in an environment without it is refused with what to install."""
    config = GrpoConfig(**run_settings(**FEW), vllm="colocate")
    with pytest.raises(TrainingError, match=r"tierwise\[train,vllm\]"):
        sampled_by(config)
