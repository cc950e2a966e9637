"""What all stages share: arguments for the trainer, resuming, guards, and the dry run."""

from __future__ import annotations

import hashlib
import json
import math
import resource
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate import PartialState
from peft import LoraConfig
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import get_last_checkpoint

from models.errors import TrainingError
from models.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models.train.stages.base import Base
    from models.train.stages.config import StageConfig

STATE: Final = "state"
SETTINGS: Final = "settings.json"
TENSORBOARD: Final = "tensorboard"
# Changing these does not change what has been learned so far.
_FREE: Final = frozenset({"output", "valid", "save_steps", "log_steps", "name"})
_DRY_STEPS: Final = 3
_LONGEST_WAIT: Final = timedelta(days=2)  # sampling for DPO takes hours, and whoever waits must not give up


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a dry run measured on real batches of this run.

    Attributes:
        parameters: all of the model's.
        trained: those that get a gradient.
        steps: optimiser steps of the whole run.
        step_s: seconds of one step, the first (warm-up) left out.
        hours: of all steps; answers and scores that the dry run has made are kept for the run.
        memory_gb: peak of the process, or of the GPU.
        device: what it was measured on.
    """

    parameters: int
    trained: int
    steps: int
    step_s: float
    hours: float
    memory_gb: float
    device: str


def arguments(config: StageConfig, **more: Any) -> dict[str, Any]:
    """Settings of transformers' TrainingArguments that every stage's TRL config takes."""
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if torch.cuda.is_available() else "float32"
    return {
        "output_dir": str(config.output / STATE),
        "seed": config.seed,
        "data_seed": config.seed,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.accumulate,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup_share,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.clip_norm,
        "bf16": precision == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": config.activation_checkpointing,  # its name in every transformers 5, that of vLLM too
        "save_steps": config.save_steps,
        "save_total_limit": 2,
        "logging_steps": config.log_steps,
        "logging_nan_inf_filter": False,
        "report_to": [],  # `train` adds TensorBoard: transformers takes its folder from the environment alone
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
        **more,
    }


def adapters(config: StageConfig, base: Base) -> Any:
    """PEFT's settings, or None for full training. Frozen layers get no adapter."""
    if config.lora is None:
        return None
    lora = config.lora
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    linear = [name for name, module in base.model.named_modules() if isinstance(module, torch.nn.Linear)]
    frozen = [name for name in linear if not base.model.get_submodule(name).weight.requires_grad]
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=frozen or None,
        task_type="CAUSAL_LM",
    )


def prepared(config: StageConfig, stage: str) -> None:
    """Make the run's folder, or check that the run in it is this one.

    Raises:
        TrainingError: the folder holds a run with other settings, which are named.
    """
    path = config.output / SETTINGS
    mine = {"stage": stage, **config.model_dump(mode="json")}
    if path.is_file():
        theirs = json.loads(path.read_text())
        changed = sorted(k for k in mine.keys() | theirs.keys() if k not in _FREE and mine.get(k) != theirs.get(k))
        if changed:
            raise TrainingError(f"{config.output} holds a run with another {', '.join(changed)}: use a new folder")
    config.output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(mine, indent=1) + "\n")


def on_device(model: Any) -> Any:
    """The model where this process computes, for what is sampled or scored before a trainer places it."""
    return model.to(PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT).device)


def made_once(config: StageConfig, stem: str, suffix: str, *settings: object) -> Path:
    """File of something that is made from the training rows before the first step, and made only once.

    Its name holds a digest of the rows' file, of the base and of the settings that decide what is in it: other rows or
    settings, after a dry run for instance, never meet what is not theirs.
    """
    manifest = Path(config.base) / MANIFEST_NAME
    base = manifest.read_bytes() if manifest.is_file() else config.base.encode()
    digest = hashlib.sha256(config.train.read_bytes())
    digest.update(repr((base, config.seed, *settings)).encode())
    return config.output / f"{stem}-{digest.hexdigest()[:12]}{suffix}"


@contextmanager
def main_process_first() -> Iterator[None]:
    """What is made once for all processes of a run: the main one makes it, the others wait and find it done."""
    with PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT).main_process_first():
        yield


def train(trainer: Any, config: StageConfig) -> None:
    """Train from the last saved state, if there is one, to the end.

    Raises:
        TrainingError: the loss is not finite, or there is nothing to learn; the message says what to change.
    """
    trainer.add_callback(FiniteGuard())
    if trainer.is_world_process_zero():
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(config.output / TENSORBOARD))))
    state = Path(trainer.args.output_dir)
    last = get_last_checkpoint(str(state)) if state.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    if trainer.state.global_step == 0:  # the base would be released as the result
        raise TrainingError(f"{config.train.name} is too small for one step of all processes: give more rows")


@contextmanager
def memory_guarded(config: StageConfig) -> Iterator[None]:
    """Running out of memory, wherever in a run, is told by the settings that help.

    Raises:
        TrainingError: memory ran out.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrainingError(_memory_advice(config)) from error
    except RuntimeError as error:
        if "memory" in str(error).lower() and "alloc" in str(error).lower():
            raise TrainingError(_memory_advice(config)) from error
        raise


def _memory_advice(config: StageConfig) -> str:
    return (
        f"out of memory with batch_size {config.batch_size}: halve it and double accumulate "
        f"({config.accumulate} now), or set activation_checkpointing or lora; the last saved state is kept"
    )


class FiniteGuard(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Stops a run whose loss or gradient is not a number, before that state is saved."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last state is saved whatever log_steps says, so its loss is looked at too."""
        del args
        control.should_log = control.should_log or state.global_step >= state.max_steps

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Called at every log_steps, before a state of the same step is saved."""
        del control
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if isinstance(value, float) and not math.isfinite(value):
                raise TrainingError(
                    f"{name} is {value} at step {state.global_step}: lower learning_rate ({args.learning_rate} now) "
                    "or clip_norm and start the same command again; it goes on from the last saved state"
                )


class _Stopwatch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Times the first steps, then stops."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, state, control
        self.ends.append(time.perf_counter())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, state
        self.ends.append(time.perf_counter())
        control.should_training_stop = len(self.ends) > _DRY_STEPS


def dry_run(trainer: Any) -> Estimate:
    """Run a few real steps, save no weights, and say what the whole run would take."""
    watch = _Stopwatch()
    trainer.add_callback(watch)
    trainer.args.save_strategy = "no"
    trainer.train()
    times = [b - a for a, b in zip(watch.ends[:-1], watch.ends[1:], strict=True)]
    step = sum(times[1:]) / len(times[1:]) if len(times) > 1 else times[0]
    steps = int(trainer.state.max_steps)
    if torch.cuda.is_available():
        peak, device = torch.cuda.max_memory_allocated(), torch.cuda.get_device_name()
    else:
        peak, device = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            f"{torch.get_num_threads()} CPU threads",
        )
    parameters = list(trainer.model.parameters())
    return Estimate(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        steps=steps,
        step_s=round(step, 3),
        hours=round(step * steps / 3600, 3),
        memory_gb=round(peak / 1e9, 2),
        device=device,
    )


def shown(estimate: Estimate, write: Callable[[str], object]) -> None:
    """A dry run's result, a line a figure."""
    for name, value in asdict(estimate).items():
        write(
            f"{name.replace('_', ' '):12}{value:,}" if isinstance(value, int) else f"{name.replace('_', ' '):12}{value}"
        )
