"""One entry for every stage: from a config to a trained checkpoint, or to a dry run's estimate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from models.train.stages import distill, dpo, dyknow, sft, srpo
from models.train.stages.agrl import GuidedTrainer
from models.train.stages.base import open_base
from models.train.stages.config import (
    AgrlConfig,
    DistillConfig,
    DpoConfig,
    DyknowConfig,
    GrpoConfig,
    SftConfig,
    SrpoConfig,
    StageConfig,
)
from models.train.stages.finish import finish
from models.train.stages.rollouts import RolloutTrainer, learned_rows
from models.train.stages.run import Estimate, dry_run, memory_guarded, prepared, train

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.train.stages.base import Base

Progress = Callable[[str, int, int], None]


def run_stage(stage: str, config: StageConfig, progress: Progress) -> dict[str, Any] | None:
    """Train a stage to its end, going on where an earlier start stopped.

    Returns:
        Figures on the validation rows; None in a process that is not the main one of its run.

    Raises:
        TrainingError, DataError, CheckpointError: what has to be changed.
    """
    with memory_guarded(config):
        base = open_base(config)  # first: a base that cannot be opened leaves no folder that holds to its name
        prepared(config, stage)
        trainer = trainer_of(base, config, progress)
        train(trainer, config)
    found = record(config)
    return finish(trainer, base, config, {"method": stage, "rows": len(trainer.train_dataset), **found})


def record(config: StageConfig) -> dict[str, Any]:
    """What a stage wants remembered beside its settings."""
    if isinstance(config, DpoConfig):
        return dpo.record(config)
    return distill.record(config) if isinstance(config, DistillConfig) else {}


def estimate_stage(config: StageConfig, progress: Progress) -> Estimate:
    """A few real steps. What comes before them, DPO's answers and a teacher's scores, is kept for the run itself.

    Raises:
        TrainingError, DataError, CheckpointError: what has to be changed.
    """
    with memory_guarded(config):
        return dry_run(trainer_of(open_base(config), config, progress))


def trainer_of(base: Base, config: StageConfig, progress: Progress) -> Any:
    """The trainer that a config asks for."""
    return _TRAINERS[type(config)](base, config, progress)


_TRAINERS: Final[Mapping[type[StageConfig], Callable[[Base, Any, Progress], Any]]] = {
    SftConfig: lambda base, config, _: sft.trainer(base, config),
    DpoConfig: dpo.trainer,
    GrpoConfig: lambda base, config, _: RolloutTrainer(base, config, learned_rows(base, config)),
    DyknowConfig: lambda base, config, _: dyknow.trainer(base, config),
    AgrlConfig: lambda base, config, _: GuidedTrainer(base, config, learned_rows(base, config)),
    SrpoConfig: lambda base, config, _: srpo.trainer(base, config),
    DistillConfig: lambda base, config, _: distill.trainer(base, config),
}
