"""`tierwise train dpo`: pass@N self-correction (arXiv 2508.12365, stage 2; warm start of 2510.11122).

Answers are sampled once from the base, which is also the frozen reference; the pairs go to `pairs.jsonl`, so that a run
that is started again does not sample again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from datasets import Dataset
from trl import DPOConfig as TrlDpoConfig
from trl import DPOTrainer

from models.errors import TrainingError
from models.train.data.schema import read_training_rows
from models.train.endpoint import teacher_answer
from models.train.objectives.preference import choose_pair, pass_at
from models.train.stages.run import adapters, arguments, main_process_first
from models.train.stages.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.train.data.schema import Row
    from models.train.stages.base import Base
    from models.train.stages.config import DpoConfig

PAIRS: Final = "pairs.jsonl"
PASSED: Final = "pass_at.json"


class PairTrainer(DPOTrainer):  # type: ignore[misc]  # TRL's base classes are not typed
    """TRL's DPO over pairs that are token ids already."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def make_pairs(base: Base, config: DpoConfig, progress: Callable[[str, int, int], None]) -> dict[str, float]:
    """Sample, choose pairs, write them; returns pass@1 .. pass@N over all prompts.

    Raises:
        TrainingError: the base answers everything right, or nothing that can be used.
    """
    rows = read_training_rows(config.train, base.manifest.tiers)
    asked = [(row, True) for row in rows]
    if config.without_context:
        asked += [(row, False) for row in rows if row.context]
    prompts = [base.answers.prompt(row, context=context) for row, context in asked]
    rights: list[int] = []
    made: list[dict[str, Any]] = []
    sampled = sample(
        base.model,
        prompts,
        count=config.samples,
        temperature=config.temperature,
        longest=base.answers.longest_answer,
        ends=[base.manifest.rationale.end_token_id],
        pad=base.tokenizer.pad_token_id,
        batch=config.sampling_batch,
    )
    for number, samples in sampled:
        row = asked[number][0]
        right = [base.answers.said(s.ids).tier == base.answers.tier(row) for s in samples]
        rights.append(sum(right))
        choice = choose_pair(right, [s.log_prob for s in samples])
        if choice is not None:
            chosen = list(samples[choice.chosen].ids) if choice.chosen is not None else _teachers(base, config, row)
            rejected = list(samples[choice.rejected].ids)
            made.append({"row": number, "prompt_ids": prompts[number], "chosen_ids": chosen, "rejected_ids": rejected})
        progress("sample answers", len(rights), len(prompts))
    if not made:
        raise TrainingError("every sampled answer has the gold tier: there is nothing to correct; raise temperature")
    made.sort(key=lambda pair: pair["row"])
    _write(config.output / PAIRS, "".join(json.dumps(pair) + "\n" for pair in made))
    passed = {
        f"pass@{n}": round(sum(pass_at(config.samples, r, n) for r in rights) / len(rights), 4)
        for n in range(1, config.samples + 1)
    }
    _write(config.output / PASSED, json.dumps(passed) + "\n")
    return passed


def _teachers(base: Base, config: DpoConfig, row: Row) -> list[int]:
    """The teacher's answer to a row: an endpoint's rationale for the gold tier, or the gold row itself."""
    if config.teacher is None:
        return base.answers.gold(row)
    return base.answers.answer(base.answers.tier(row), teacher_answer(config.teacher, row))


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def trainer(base: Base, config: DpoConfig, progress: Callable[[str, int, int], None]) -> PairTrainer:
    """The stage's trainer; samples pairs first where the run has none yet."""
    path = config.output / PAIRS
    with main_process_first():
        if not path.is_file() or not (config.output / PASSED).is_file():
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
    passed: dict[str, float] = json.loads((config.output / PASSED).read_text())
    return {"pass_at": passed, "pairs": len((config.output / PAIRS).read_text().splitlines())}
