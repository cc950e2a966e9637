"""`tierwise train dpo`: pass@N self-correction (arXiv 2508.12365, stage 2; warm start of 2510.11122).

Answers are sampled once from the base, which is also the frozen reference; the pairs go to a file, so that a run that
is started again does not sample again.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import set_seed
from trl import DPOConfig as TrlDpoConfig
from trl import DPOTrainer

from models.errors import RequestRefusedError, TrainingError
from models.train.data.schema import read_training_rows
from models.train.endpoint import teacher_answer
from models.train.objectives.preference import choose_pair, pass_at
from models.train.objectives.shaping import rule_gate
from models.train.stages.run import adapters, arguments, made_once, main_process_first, on_device
from models.train.stages.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.train.data.schema import Row
    from models.train.stages.base import Base
    from models.train.stages.config import DpoConfig

_log = logging.getLogger(__name__)


class PairTrainer(DPOTrainer):  # type: ignore[misc]  # TRL's base classes are not typed
    """TRL's DPO over pairs that are token ids already."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def make_pairs(base: Base, config: DpoConfig, progress: Callable[[str, int, int], None]) -> dict[str, float]:
    """Sample, choose pairs, write them; returns pass@1 .. pass@N over all prompts.

    Raises:
        TrainingError: the base answers everything right, or nothing that can be used.
    """
    asked = read_training_rows(config.train, base.manifest.tiers)
    if config.without_context:
        asked = asked + [row.without_context() for row in asked if row.context]
    prompts = [base.answers.prompt(row) for row in asked]
    set_seed(config.seed)
    rights: list[int] = []
    made: list[dict[str, Any]] = []
    sampled = sample(
        on_device(base.model),
        prompts,
        count=config.samples,
        temperature=config.temperature,
        longest=base.answers.longest_answer,
        ends=[base.manifest.rationale.end_token_id],
        pad=base.tokenizer.pad_token_id,
        batch=config.sampling_batch,
    )
    for number, samples in sampled:
        row = asked[number]
        right = [base.answers.said(s.ids).tier == base.answers.tier(row) for s in samples]
        rights.append(sum(right))
        choice = choose_pair(right, [s.log_prob for s in samples])
        if choice is not None:
            chosen = list(samples[choice.chosen].ids) if choice.chosen is not None else _teachers(base, config, row)
            rejected = list(samples[choice.rejected].ids)
            if len(chosen) == 1:  # nobody explains it: label against label, or the missing words would be the lesson
                rejected = rejected[:1]
            made.append({"row": number, "prompt_ids": prompts[number], "chosen_ids": chosen, "rejected_ids": rejected})
        progress("sample answers", len(rights), len(prompts))
    if not made:
        raise TrainingError("every sampled answer has the gold tier: there is nothing to correct; raise temperature")
    made.sort(key=lambda pair: pair["row"])
    _write(pairs_file(config), "".join(json.dumps(pair) + "\n" for pair in made))
    passed = {
        f"pass@{n}": round(sum(pass_at(config.samples, r, n) for r in rights) / len(rights), 4)
        for n in range(1, config.samples + 1)
    }
    _write(passed_file(config), json.dumps(passed) + "\n")
    return passed


def _teachers(base: Base, config: DpoConfig, row: Row) -> list[int]:
    """The teacher's answer to a row: an endpoint's rationale for the gold tier, or the gold row itself.

    The label alone where there is no rationale, or one whose verdicts imply another tier.
    """
    if config.teacher is None:
        return base.answers.gold(row)
    tier, rationale = base.answers.tier(row), None
    try:
        rationale = teacher_answer(config.teacher, row, tiers=base.manifest.tiers)
    except RequestRefusedError as refusal:
        _log.warning("a right label is taught without a rationale: %s", refusal)
    return base.answers.answer(tier, rationale if rule_gate(tier, rationale) else None)


def pairs_file(config: DpoConfig) -> Path:
    """Where the preference pairs of these rows and settings are."""
    return made_once(config, "pairs", ".jsonl", *_sampling(config))


def passed_file(config: DpoConfig) -> Path:
    """Where pass@1 .. pass@N of the same samples are."""
    return made_once(config, "pass_at", ".json", *_sampling(config))


def _sampling(config: DpoConfig) -> tuple[object, ...]:
    return config.samples, config.temperature, config.without_context, config.rationale_tokens, config.teacher


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def trainer(base: Base, config: DpoConfig, progress: Callable[[str, int, int], None]) -> PairTrainer:
    """The stage's trainer; samples pairs first where the run has none yet."""
    path = pairs_file(config)
    with main_process_first():
        if not path.is_file() or not passed_file(config).is_file():
            config.output.mkdir(parents=True, exist_ok=True)
            make_pairs(base, config, progress)
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    for pair in pairs:
        pair.pop("row")
    return PairTrainer(
        model=base.model,
        args=TrlDpoConfig(**arguments(config, beta=config.beta, max_length=None)),
        train_dataset=Dataset.from_list(pairs),
        processing_class=base.tokenizer,
        peft_config=adapters(config, base),
    )


def record(config: DpoConfig) -> dict[str, Any]:
    """What the checkpoint remembers of the sampling."""
    passed: dict[str, float] = json.loads(passed_file(config).read_text())
    return {"pass_at": passed, "pairs": len(pairs_file(config).read_text().splitlines())}
