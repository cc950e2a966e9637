"""`tierwise train grpo`, and what dyknow, agrl and srpo share with it: one trainer, pluggable rewards and advantages.

TRL samples, scores log-probabilities and steps; a subclass says what an answer is worth (`score`) and how the values of
a group become advantages (`advantages`). Every value that `score` gives is gathered over all processes and logged as
`rewards/NAME/mean`; the first is the reward. Prompts are token ids as serving writes them, in TRL's own generation as
in vLLM's.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from accelerate.utils import gather
from datasets import Dataset
from trl import GRPOConfig as TrlGrpoConfig
from trl import GRPOTrainer

from models.errors import TrainingError
from models.train.data.schema import read_training_rows
from models.train.objectives.policy import (
    balanced_order,
    clamp,
    dropped_out,
    group_advantages,
    kept_groups,
    outcome_reward,
)
from models.train.stages.reader import label_logprobs
from models.train.stages.run import adapters, arguments, on_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from models.train.answers import Said
    from models.train.data.schema import Row
    from models.train.stages.base import Base
    from models.train.stages.config import GrpoConfig

_log = logging.getLogger(__name__)


class RolloutTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL's base classes are not typed
    """GRPO over label-first answers (2508.12365, stage 3).

    Args:
        base: the opened base.
        config: of the stage.
        rows: training rows, in the order in which they are to be learned.
    """

    signals: ClassVar[tuple[str, ...]] = ("reward", "right")

    def __init__(self, base: Base, config: GrpoConfig, rows: Sequence[Row]) -> None:
        self.base, self.stage, self.rows = base, config, list(rows)
        self._values: Tensor = torch.empty(0)
        super().__init__(
            model=base.model,
            reward_funcs=[_named(name) for name in self.signals],
            args=self._arguments(config),
            train_dataset=self.dataset(),
            processing_class=base.tokenizer,
            peft_config=adapters(config, base),
        )

    def _arguments(self, config: GrpoConfig, **more: Any) -> TrlGrpoConfig:
        settings = {
            **arguments(config),
            **sampled_by(config),
            "vllm_max_model_length": self._room() if config.vllm == "colocate" else None,
            "num_generations": config.group,
            "max_completion_length": self.base.answers.longest_answer,
            "temperature": config.temperature,
            "top_k": config.top_k,
            "beta": config.kl,
            "epsilon": config.clip,
            "loss_type": "grpo",
            "scale_rewards": "group",
            "reward_weights": [1.0] + [0.0] * (len(self.signals) - 1),
            "shuffle_dataset": False,
        }
        return TrlGrpoConfig(**{**settings, **more})

    def _room(self) -> int:
        """Tokens that vLLM keeps for an answer and its prompt; a base's whole context may not fit beside training."""
        most = max(map(self.longest_prompt, self.rows)) + self.base.answers.longest_answer
        return min(most, getattr(self.base.model.config, "max_position_embeddings", most))

    def longest_prompt(self, row: Row) -> int:
        """Tokens of the longest prompt that is sampled for a row."""
        return len(self.base.answers.prompt(row))

    def dataset(self) -> Dataset:
        """A row for each prompt: its ids and the number of its training row."""
        prompts = [self.base.answers.prompt(row) for row in self.rows]
        return Dataset.from_dict({"prompt": prompts, "row": list(range(len(self.rows)))})

    def score(self, said: Said, row: Row) -> tuple[float, ...]:
        """What one answer is worth, a value for each of `signals`."""
        gold = self.base.answers.tier(row)
        worth = outcome_reward(said.tier, gold, well_formed=said.rationale is not None)
        return worth, float(said.tier == gold)

    def advantages(self, values: Tensor) -> Tensor:
        """Values of all processes' groups, float [Q, G, S] -> advantages [Q, G]."""
        return clamp(group_advantages(values[..., 0]), self.stage.clamp)

    def kept(self, values: Tensor) -> Tensor:
        """Difficulty-based dynamic sampling: which groups are learned from, bool [Q]."""
        return kept_groups(values[..., self.signals.index("right")], self.stage.gamma)

    def values(self, answers: Sequence[Sequence[int]], rows: Sequence[Row]) -> list[tuple[float, ...]]:
        """`score` of every answer."""
        return [self.score(self.base.answers.said(ids), row) for ids, row in zip(answers, rows, strict=True)]

    # What TRL calls.

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(ids) for ids in prompts], None, {}

    def _calculate_rewards(self, inputs: list[dict[str, Any]], *rest: Any) -> Tensor:
        answers = rest[-1]
        values = self.values(answers, [self.rows[x["row"]] for x in inputs])
        gathered: Tensor = gather(torch.tensor(values, dtype=torch.float32, device=self.accelerator.device))
        self._values = gathered
        return gathered

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        grouped = self._values.view(-1, self.num_generations, len(self.signals))
        kept = self.kept(grouped)
        self._metrics["train"]["groups/kept"].append(kept.float().mean().item())
        found = dropped_out(self.advantages(grouped), kept)
        output["advantages"] = self.mine(found.flatten(0, 1), len(inputs))
        # Dropped groups pay no KL either.
        silent = ~self.mine(kept.repeat_interleave(self.num_generations), len(inputs))
        output["completion_mask"] = output["completion_mask"].masked_fill(silent[:, None], 0)
        self.complete(output, inputs)
        return output

    def mine(self, values: Tensor, count: int) -> Tensor:
        """This process's part of values of all processes."""
        start = self.accelerator.process_index * count
        return values[start : start + count]

    def complete(self, output: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
        """Add to a scored batch what a method's own loss needs."""


def sampled_by(config: GrpoConfig) -> dict[str, Any]:
    """TRL's settings of where answers are sampled.

    vLLM tells probabilities among the top k, the trainer among all words. TRL's correction of one by the other would
    take an answer's rare words for a drift of the weights and scale its advantage down: by a third for the shipped
    judge. It stays where nothing is cut off.

    Raises:
        TrainingError: vLLM is asked for and not installed.
    """
    if config.vllm == "off":
        return {"use_vllm": False}
    if find_spec("vllm") is None:
        raise TrainingError(
            f"vllm: {config.vllm} samples with vLLM, which is not installed here: pip install 'tierwise[train,vllm]', "
            "or set vllm: off"
        )
    return {
        "use_vllm": True,
        "vllm_mode": config.vllm,
        "vllm_server_base_url": config.vllm_url,
        "vllm_importance_sampling_correction": config.top_k == 0,
    }


def _named(name: str) -> Any:
    """A name for TRL's log; values come from `_calculate_rewards`."""

    def values(**_: Any) -> list[float]:
        raise AssertionError("values are computed together, not one by one")

    values.__name__ = name
    return values


def learned_rows(base: Base, config: GrpoConfig, *, where: Callable[[Row], bool] = lambda _: True) -> list[Row]:
    """The rows of a run: those of the pool, balanced over the tiers, in turns.

    The pool holds rows whose likeliest tier has less than `pool_confidence` under the base: below 0.7 the error rate of
    an SFT model nears one half (2510.11122, section on the RL pool).

    Raises:
        TrainingError: the pool is empty or too small for one step.
    """
    rows = [row for row in read_training_rows(config.train, base.manifest.tiers) if where(row)]
    if config.pool_confidence < 1:
        sure = confidences(base, rows)
        rows = [row for row, p in zip(rows, sure, strict=True) if p < config.pool_confidence]
    if config.balanced:
        order = balanced_order([base.answers.tier(row) for row in rows], config.seed)
        if len(order) < len(rows):
            _log.warning(
                "balanced: %d of %d rows are left, as many of every tier as of the rarest; `balanced: false` takes all",
                len(order),
                len(rows),
            )
        rows = [rows[n] for n in order]
    least = max(1, config.batch_size * config.accumulate // config.group)
    if len(rows) < least:
        raise TrainingError(
            f"{len(rows)} rows are left of {config.train.name} for a step of {least} prompts: give more rows (dyknow "
            "needs a context in them), raise pool_confidence, or lower batch_size"
        )
    return rows


def confidences(base: Base, rows: Sequence[Row]) -> list[float]:
    """Probability of the likeliest tier under the base, row by row."""
    prompts = [base.answers.prompt(row) for row in rows]
    found = label_logprobs(on_device(base.model), prompts, base.manifest.label_token_ids, base.tokenizer.pad_token_id)
    return [float(p) for p in torch.from_numpy(found).exp().max(-1).values]
