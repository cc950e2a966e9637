"""`tierwise train dyknow`: two rollout groups and posterior-driven inter-group advantage scaling (arXiv 2510.11122).

The dataset holds each pair twice in a row: without its chunk (p) and with it (p'). TRL's loss over both groups is
(l0 + l1) / 2, since it averages over all rows; the third term is averaged the same way and the KL weight is halved, so
the objective is the paper's J times one half, its KL being the mean over the answers of both groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset

from models.train.objectives.policy import dropped_out, kept_groups
from models.train.objectives.posterior import accuracy_gap, transferred_objective, transferred_weights
from models.train.stages.reader import left_padded
from models.train.stages.rollouts import RolloutTrainer, learned_rows

if TYPE_CHECKING:
    from torch import Tensor

    from models.train.stages.base import Base
    from models.train.stages.config import DyknowConfig


class DyknowTrainer(RolloutTrainer):
    """Adds the transferred objective: answers without context, scored under the context prompt."""

    def _arguments(self, config: Any, **more: Any) -> Any:
        return super()._arguments(config, beta=config.kl / 2, **more)

    def dataset(self) -> Dataset:
        """Each row without context, then with it; `other` holds the context prompt's ids for both."""
        prompts, numbers, others = [], [], []
        for number, row in enumerate(self.rows):
            context = self.base.answers.prompt(row)
            prompts += [self.base.answers.prompt(row, context=False), context]
            numbers += [number, number]
            others += [context, context]
        return Dataset.from_dict({"prompt": prompts, "row": numbers, "other": others})

    def kept(self, values: Tensor) -> Tensor:
        """A pair is kept by its 2n answers together: all wrong without the chunk and all right with it says most."""
        right = values[..., self.signals.index("right")]
        kept = kept_groups(right.reshape(-1, 2 * self.num_generations), self.stage.gamma)
        return kept.repeat_interleave(2)

    def transferred(self, values: Tensor) -> Tensor:
        """T(A) of every answer, [2Q, G]: zero for answers with context."""
        pairs = values.view(-1, 2, *values.shape[1:])
        right = pairs[..., self.signals.index("right")]
        gap = accuracy_gap(right[:, 0], right[:, 1])
        self._metrics["train"]["dyknow/gap"].append(gap.mean().item())
        weights = transferred_weights(pairs[:, 0, :, 0], pairs[:, 1, :, 0], gap)
        return torch.stack([weights, torch.zeros_like(weights)], dim=1).flatten(0, 1)

    def complete(self, output: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
        """Context prompts and weights for the third term."""
        grouped = self._values.view(-1, self.num_generations, len(self.signals))
        weights = dropped_out(self.transferred(grouped), self.kept(grouped))
        weights = self.mine(weights.flatten(), len(inputs))
        ids, mask = left_padded([x["other"] for x in inputs], self.base.tokenizer.pad_token_id)
        device = self.accelerator.device
        output |= {"other_ids": ids.to(device), "other_mask": mask.to(device), "transferred": weights}

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor = super()._compute_loss(model, inputs)
        ids = torch.cat([inputs["other_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["other_mask"], inputs["completion_mask"]], dim=1)
        length = inputs["completion_ids"].size(1)
        log_probs, _, _ = self._get_per_token_logps_and_entropies(model, ids, mask, length)
        gained = transferred_objective(log_probs, inputs["completion_mask"], inputs["transferred"])
        self._metrics["train"]["dyknow/transferred"].append(gained.item())
        total: Tensor = loss - gained / self.current_gradient_accumulation_steps
        return total


def trainer(base: Base, config: DyknowConfig) -> DyknowTrainer:
    """The stage's trainer over the pool's rows that have a chunk."""
    return DyknowTrainer(base, config, learned_rows(base, config, where=lambda row: row.context is not None))
