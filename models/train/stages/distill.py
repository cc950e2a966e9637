"""`tierwise train distill`: a big judge's soft labels into a small one (arXiv 1503.02531, 2110.08551).

The teacher is a checkpoint folder, which scores every row once (kept in a file, so that a run that is started again
does not score again), or whatever wrote `probabilities` into the rows: an endpoint, an ensemble, several raters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import SFTConfig as TrlSftConfig
from trl import SFTTrainer

from models.errors import TrainingError
from models.manifest import load_manifest
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer
from models.train.answers import AnswerWriter
from models.train.data.schema import read_training_rows
from models.train.objectives.distillation import prototype_targets, soft_label_loss, tempered
from models.train.stages.reader import label_logprobs, left_padded
from models.train.stages.run import adapters, arguments, made_once, main_process_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from models.train.data.schema import Row
    from models.train.stages.base import Base
    from models.train.stages.config import DistillConfig


@dataclass(frozen=True, slots=True)
class Collator:
    """Prompts padded on the left, so that the answer position is the last, and the teacher's rows."""

    pad: int

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Examples -> input_ids, attention_mask [B, L], targets [B, K]."""
        ids, mask = left_padded([e["input_ids"] for e in examples], self.pad)
        targets = torch.tensor([e["targets"] for e in examples], dtype=torch.float32)
        return {"input_ids": ids, "attention_mask": mask, "targets": targets}


class SoftLabelTrainer(SFTTrainer):  # type: ignore[misc]  # TRL's base classes are not typed
    """TRL's SFT with the soft label loss at the answer position; nothing else of the vocabulary is learned."""

    def __init__(self, *args: Any, base: Base, temperature: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._labels = torch.tensor(base.manifest.label_token_ids)
        self._temperature = temperature
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """`soft_label_loss` of the batch."""
        targets = inputs.pop("targets")
        logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        return soft_label_loss(logits[:, self._labels.to(logits.device)].float(), targets, self._temperature)


def teacher_rows(rows: Sequence[Row], base: Base, config: DistillConfig) -> NDArray[np.float64]:
    """The teacher's tier probabilities, [N, K].

    Raises:
        TrainingError: neither a teacher nor probabilities, or a teacher of other tiers.
    """
    if config.teacher is None:
        if any(not row.probabilities for row in rows):
            raise TrainingError(
                f"{config.train.name} has rows without probabilities, and no teacher is named to score them"
            )
        return np.array([row.probabilities for row in rows], dtype=np.float64)
    known = load_manifest(config.teacher, verify=False)  # hashing a big teacher takes long, and is for whoever asks it
    path = made_once(config, "teacher", ".npy", known.checkpoint_id, known.tiers_id)
    if path.is_file():
        found: NDArray[np.float64] = np.load(path)
        return found
    manifest = load_manifest(config.teacher)
    if [t.name for t in manifest.tiers] != [t.name for t in base.manifest.tiers]:
        raise TrainingError(
            f"the teacher's tiers are {', '.join(t.name for t in manifest.tiers)}, the student's differ"
        )
    tokenizer = FieldTokenizer(config.teacher)
    answers = AnswerWriter(manifest, tokenizer, PromptWriter(manifest, tokenizer), rationale_tokens=1)
    model = AutoModelForCausalLM.from_pretrained(str(config.teacher), dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    pad = model.config.pad_token_id or 0
    logprobs = label_logprobs(model, [answers.prompt(row) for row in rows], manifest.label_token_ids, pad)
    scaled = tempered(np.exp(logprobs.astype(np.float64)), manifest.temperature)  # as the teacher would be served
    config.output.mkdir(parents=True, exist_ok=True)
    np.save(path, scaled)
    return scaled


def targets_of(rows: Sequence[Row], base: Base, config: DistillConfig) -> NDArray[np.float64]:
    """What the student is to say: the teacher's rows, doubtful ones pulled to what is usual, at temperature T."""
    with main_process_first():
        teacher = teacher_rows(rows, base, config)
    names = {name: n for n, name in enumerate(dict.fromkeys(row.domain for row in rows))}
    domains = np.array([names[row.domain] for row in rows])
    return tempered(prototype_targets(teacher, domains, strength=config.prototype_strength), config.temperature)


def trainer(base: Base, config: DistillConfig) -> SoftLabelTrainer:
    """The stage's trainer over the config's rows, labelled or not."""
    rows = read_training_rows(config.train, base.manifest.tiers, labelled=False)
    prompts = [base.answers.prompt(row) for row in rows]
    targets = targets_of(rows, base, config)
    return SoftLabelTrainer(
        model=base.model,
        args=TrlSftConfig(
            **arguments(config, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
        ),
        train_dataset=Dataset.from_dict({"input_ids": prompts, "targets": targets.tolist()}),
        data_collator=Collator(base.tokenizer.pad_token_id),
        processing_class=base.tokenizer,
        peft_config=adapters(config, base),
        base=base,
        temperature=config.temperature,
    )


def record(config: DistillConfig) -> dict[str, Any]:
    """Whose probabilities the checkpoint has learned."""
    return {"teacher": load_manifest(config.teacher).checkpoint_id if config.teacher else "rows"}
