"""`tierwise train sft`: label first, then the rationale (arXiv 2508.12365, stage 1; 2510.11122, stage 1)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from trl import SFTConfig as TrlSftConfig
from trl import SFTTrainer

from models.train.data.schema import read_training_rows
from models.train.objectives.supervised import label_first_loss
from models.train.stages.run import adapters, arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from models.train.data.schema import Row
    from models.train.stages.base import Base
    from models.train.stages.config import SftConfig

IGNORED = -100


class LabelFirstTrainer(SFTTrainer):  # type: ignore[misc]  # TRL's base classes are not typed
    """TRL's SFT with one loss for the label and one for the rationale."""

    def __init__(self, *args: Any, rationale_weight: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rationale_weight = rationale_weight
        # The loss is a mean of means, so transformers is to average it over accumulated batches.
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """`label_first_loss` over the positions that the dataset marks; the first of a row is its label."""
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        learned = inputs["labels"][:, 1:] != IGNORED
        is_label = learned & (learned.cumsum(-1) == 1)
        right = outputs.is_top1.bool() & is_label
        mode = "train" if model.training else "eval"
        self._metrics[mode]["label_accuracy"].append((right.sum() / is_label.sum().clamp(min=1)).item())
        return label_first_loss(
            outputs.log_probs, is_label, learned & ~is_label, rationale_weight=self.rationale_weight
        )


def dataset(rows: Sequence[Row], base: Base, config: SftConfig) -> Dataset:
    """Ids and labels of every row; some rows with a chunk are shown without it, by seed."""
    rng = random.Random(config.seed)
    ids, labels = [], []
    for row in rows:
        shown = row.without_context() if row.context and rng.random() < config.drop_context else row
        prompt, answer = base.answers.prompt(shown), base.answers.gold(shown)
        ids.append([*prompt, *answer])
        labels.append([IGNORED] * len(prompt) + answer)
    return Dataset.from_dict({"input_ids": ids, "labels": labels})


def trainer(base: Base, config: SftConfig) -> LabelFirstTrainer:
    """The stage's trainer over the config's rows."""
    rows = read_training_rows(config.train, base.manifest.tiers)
    return LabelFirstTrainer(
        model=base.model,
        args=TrlSftConfig(**arguments(config, max_length=None, dataset_num_proc=None)),
        train_dataset=dataset(rows, base, config),
        processing_class=base.tokenizer,
        peft_config=adapters(config, base),
        rationale_weight=config.rationale_weight,
    )
