"""`tierwise train agrl`: rule-aware reward shaping, and guided replay for prompts that fail (arXiv 2510.08048)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from models.train.objectives.policy import kept_groups
from models.train.objectives.shaping import (
    GUIDED_KEPT,
    GUIDED_SHARE,
    replacements,
    replay_threshold,
    rule_gate,
    shaped_reward,
)
from models.train.stages.reader import left_padded
from models.train.stages.rollouts import RolloutTrainer

if TYPE_CHECKING:
    from torch import Tensor

    from models.train.answers import Said
    from models.train.data.schema import Row
    from models.train.stages.config import AgrlConfig


class GuidedTrainer(RolloutTrainer):
    """GRPO with the shaped reward and adaptive guided replay.

    A failing group is sampled again with hints in the prompt; right guided answers replace its worst. They are learned
    under the plain prompt. Their importance ratio against the guided behaviour policy is clipped to 1 +- clip from both
    sides: TRL alone would leave a label that only the hint made likely next to no weight.
    """

    signals: ClassVar[tuple[str, ...]] = ("reward", "right", "rule_consistent")
    stage: AgrlConfig

    def score(self, said: Said, row: Row) -> tuple[float, ...]:
        """Shaped reward, right tier, and whether the tier follows from the rationale's own verdicts."""
        gold = self.base.answers.gold_steps(row)
        reward = shaped_reward(said.tier, said.rationale, gold, self.base.answers.good)
        return reward, float(said.tier == gold.tier), float(rule_gate(said.tier, said.rationale))

    def kept(self, values: Tensor) -> Tensor:
        """Groups of mixed worth, except those that are right nearly always (gamma, 0.9).

        All-wrong groups stay when their rewards differ: the shaped reward tells better mistakes from worse.
        """
        right = values[..., self.signals.index("right")]
        mixed = values[..., 0].amax(-1) > values[..., 0].amin(-1)  # the deviation of equal rewards may round above 0
        return mixed & (kept_groups(right, self.stage.gamma) | (right.sum(-1) == 0))

    def longest_prompt(self, row: Row) -> int:
        """That of the second level of hints."""
        return len(self.base.answers.hinted(row, 2))

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._asked = [self.rows[x["row"]] for x in inputs]
        self._guides: dict[int, list[int]] = {}
        return super()._generate_and_score_completions(inputs)

    def _generate_single_turn(self, prompt_ids: list[list[int]], *rest: Any, **more: Any) -> tuple[Any, Any]:
        answers, log_probs = super()._generate_single_turn(prompt_ids, *rest, **more)
        if self.stage.guided and self.model.training:
            for level in (1, 2):
                self._replay(answers, level, rest, more)
            self._metrics["train"]["guided/share"].append(len(self._guides) / len(answers))
        return answers, None if self._guides else log_probs  # vLLM told those of the answers that were replaced

    def _replay(self, answers: list[list[int]], level: int, rest: tuple[Any, ...], more: dict[str, Any]) -> None:
        """Sample failing groups with hints of a level, and put right answers in the places of the worst."""
        size = self.num_generations
        threshold = replay_threshold(self.state.global_step / max(1, self.state.max_steps))
        values = self.values(answers, self._asked)
        failing = [
            start
            for start in range(0, len(answers), size)
            if sum(values[n][1] for n in range(start, start + size)) / size < threshold
        ]
        hints = [
            self.base.answers.hinted(self._asked[start], level) for start in failing for _ in range(self.stage.guided)
        ]
        most = self._most(len(hints))
        if most == 0:
            return
        padded = hints + [self.base.answers.prompt(self._asked[0])] * (most - len(hints))
        guided, _ = super()._generate_single_turn(padded, *rest, **more)
        room = int(GUIDED_SHARE * len(answers)) - len(self._guides)
        for number, start in enumerate(failing):
            mine = guided[number * self.stage.guided : (number + 1) * self.stage.guided]
            worth = self.values(mine, [self._asked[start]] * len(mine))
            open_places = [n for n in range(start, start + size) if n not in self._guides]
            found = replacements(
                [values[n][0] for n in open_places],
                [bool(w[1]) and w[0] > 0 for w in worth],
                limit=GUIDED_KEPT - (size - len(open_places)),
            )
            for place, guide in found[: max(0, room)]:
                answers[open_places[place]] = mine[guide]
                self._guides[open_places[place]] = hints[number * self.stage.guided]
                room -= 1

    def _most(self, count: int) -> int:
        """The greatest of all processes' counts: each runs the model as often as any, whose weights may be sharded."""
        return int(self.accelerator.gather(torch.tensor([count], device=self.accelerator.device)).max())

    def complete(self, output: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
        """The behaviour policy's log-probabilities: under the prompt, or under the hint, which is clipped."""
        del inputs
        most = self._most(len(self._guides))
        if most == 0:
            return
        device, length = self.accelerator.device, output["completion_ids"].size(1)
        with torch.no_grad():
            if "old_per_token_logps" not in output:
                ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
                mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
                output["old_per_token_logps"], _, _ = self._get_per_token_logps_and_entropies(
                    self.model, ids, mask, length, self.args.per_device_train_batch_size
                )
            places = sorted(self._guides)
            missing = most - len(places)
            prompts = [self._guides[n] for n in places] + [self.base.answers.prompt(self._asked[0])] * missing
            answers = places + [0] * missing
            hints, seen = left_padded(prompts, self.base.tokenizer.pad_token_id)
            ids = torch.cat([hints.to(device), output["completion_ids"][answers]], dim=1)
            mask = torch.cat([seen.to(device), output["completion_mask"][answers]], dim=1)
            found, _, _ = self._get_per_token_logps_and_entropies(
                self.model, ids, mask, length, self.args.per_device_train_batch_size
            )
            plain, clip = output["old_per_token_logps"][places], self.stage.clip
            ratio = (plain - found[: len(places)]).clamp(math.log(1 - clip), math.log(1 + clip))
            output["old_per_token_logps"][places] = plain - ratio
