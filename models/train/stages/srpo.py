"""`tierwise train srpo`: step rewards on the rationale, diversified filters, a curriculum (arXiv 2510.07972)."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch

from models.rationale import ContextUse
from models.train.endpoint import judge_steps
from models.train.objectives.policy import clamp, staged_order
from models.train.objectives.steps import (
    STAGE_SHARES,
    STEPS,
    curriculum_stage,
    diverse,
    entropy_floor,
    step_advantages,
    step_reward,
    step_weights,
    token_advantages,
)
from models.train.stages.rollouts import RolloutTrainer, confidences, learned_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset
    from torch import Tensor

    from models.rationale import Rationale
    from models.train.data.schema import Row
    from models.train.stages.base import Base
    from models.train.stages.config import SrpoConfig


FLOOR: Final = "entropy_floor.json"


class StepTrainer(RolloutTrainer):
    """GRPO whose tokens have the advantage of their step.

    Args:
        base, config, rows: see RolloutTrainer.
        stages: curriculum stage of each row, 0 to 2.
    """

    signals: ClassVar[tuple[str, ...]] = ("reward", "right", *STEPS, "diverse")
    stage: SrpoConfig
    entropy_coef: float  # TRL's
    _last_world_entropy: float

    def __init__(self, base: Base, config: SrpoConfig, rows: Sequence[Row], stages: Sequence[int]) -> None:
        self.stages = list(stages)
        super().__init__(base, config, rows)

    def _arguments(self, config: Any, **more: Any) -> Any:
        # TRL's controller raises its entropy bonus while the entropy is below the target, which the first batch that
        # learns sets; a run that goes on keeps it.
        path = config.output / FLOOR
        target = float(json.loads(path.read_text())) if path.is_file() else 0.0
        return super()._arguments(config, use_adaptive_entropy=True, entropy_target=target, **more)

    def dataset(self) -> Dataset:
        """With each row's curriculum stage."""
        return super().dataset().add_column("stage", self.stages)

    def values(self, answers: Sequence[Sequence[int]], rows: Sequence[Row]) -> list[tuple[float, ...]]:
        """Outcome, step rewards (verifier first, then the judge, if there is one), and whether it is diverse enough."""
        found = [self.base.answers.said(ids) for ids in answers]
        verified = [self._verified(said.rationale, row) for said, row in zip(found, rows, strict=True)]
        judged = self._judged([said.rationale for said in found], verified, rows)
        kept: list[bool] = []
        for start in range(0, len(found), self.num_generations):
            texts = [_words(said.rationale) for said in found[start : start + self.num_generations]]
            kept += diverse(texts, cap=self.stage.cap)
        return [
            (
                *self.score(said, row),
                *(step_reward(v, judged.get((n, s))) for s, v in enumerate(verified[n])),
                float(kept[n]),
            )
            for n, (said, row) in enumerate(zip(found, rows, strict=True))
        ]

    def _verified(self, rationale: Rationale | None, row: Row) -> tuple[bool | None, ...]:
        """Closed-set gold on category, attributes and context; a missing rationale is wrong from its first step on."""
        gold = self.base.answers.gold_steps(row)
        if rationale is None:
            return (False, None, None, None)
        said = dict(rationale.attributes)
        attributes = all(said.get(n) is v for n, v in gold.attributes.items()) if gold.attributes else None
        category = None if gold.category is None else rationale.category is gold.category
        use = row.context_use if row.context else ContextUse.IGNORE
        return (category, attributes, None if use is None else rationale.context is use, None)

    def _judged(
        self, rationales: Sequence[Rationale | None], verified: Sequence[tuple[bool | None, ...]], rows: Sequence[Row]
    ) -> dict[tuple[int, int], bool | None]:
        if self.stage.judge is None:
            return {}
        places, asked = [], []
        for n, rationale in enumerate(rationales):
            if rationale is None:
                continue
            texts = (str(rationale.category), str(dict(rationale.attributes)), str(rationale.context), rationale.reason)
            for s, text in enumerate(texts):
                if verified[n][s] is None:
                    places.append((n, s))
                    asked.append((rows[n], STEPS[s], text))
        return dict(zip(places, judge_steps(self.stage.judge, asked), strict=True))

    def advantages(self, values: Tensor) -> Tensor:
        """Outcome advantages [Q, G]; answers beyond the cap of their cluster get zero."""
        return super().advantages(values) * values[..., self.signals.index("diverse")]

    def complete(self, output: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
        """Advantages of tokens instead of answers: [B, T]."""
        grouped = self._values.view(-1, self.num_generations, len(self.signals))
        first = self.signals.index(STEPS[0])
        rewards = grouped[..., first : first + len(STEPS)]
        right = grouped[..., self.signals.index("right")] > 0
        count = len(inputs)
        by_step = self.mine(clamp(step_advantages(rewards), self.stage.clamp).flatten(0, 1), count)
        weights = self.mine(step_weights(rewards, right).flatten(0, 1), count)
        outcome = output["advantages"]
        alive = self.kept(grouped)[:, None] * grouped[..., self.signals.index("diverse")]
        live = self.mine(alive.flatten(), count)[:, None]
        spans = torch.zeros_like(output["completion_ids"])
        for n, ids in enumerate(output["completion_ids"].tolist()):
            spans[n] = torch.tensor(self.base.answers.spans(ids))
        share = torch.tensor([STAGE_SHARES[x["stage"]] for x in inputs], device=outcome.device)
        output["advantages"] = token_advantages(outcome, by_step * live, weights, spans, share)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        before = self.entropy_coef, self._last_world_entropy
        loss: Tensor = super()._compute_loss(model, inputs)
        if self._last_world_entropy == 0:  # every group of the batch was dropped: that is no collapse
            self.entropy_coef, self._last_world_entropy = before
        seen = self._metrics["train"]["entropy"]
        if not self.args.entropy_target and seen and math.isfinite(seen[-1]) and seen[-1] > 0:
            self.args.entropy_target = entropy_floor(seen[-1])
            if self.is_world_process_zero():
                (self.stage.output / FLOOR).write_text(json.dumps(self.args.entropy_target) + "\n")
        return loss


def trainer(base: Base, config: SrpoConfig) -> StepTrainer:
    """The stage's trainer; rows go from easy over doubtful to hard ones, tiers in turns within each."""
    rows = learned_rows(base, config)
    sure = confidences(base, rows)
    stages = [curriculum_stage(p, hard=row.hard) for row, p in zip(rows, sure, strict=True)]
    order = staged_order(stages, [base.answers.tier(row) for row in rows])
    return StepTrainer(base, config, [rows[n] for n in order], [stages[n] for n in order])


def _words(rationale: Rationale | None) -> frozenset[str]:
    if rationale is None:
        return frozenset()
    told = " ".join(f"{name} {verdict}" for name, verdict in rationale.attributes)
    return frozenset(f"{rationale.category} {told} {rationale.reason}".split())
