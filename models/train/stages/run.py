"""What all stages share: arguments for the trainer, resuming, guards, dry run, and the release of a checkpoint."""

from __future__ import annotations

import asyncio
import json
import math
import resource
import shutil
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate import PartialState
from peft import LoraConfig
from torch.utils.tensorboard import SummaryWriter
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import get_last_checkpoint

from models.engines.onnx.architecture import read_architecture
from models.errors import CheckpointError, TrainingError
from models.manifest import MANIFEST_NAME, load_manifest
from models.train.data.schema import read_training_rows, tier_column
from models.train.release import release
from models.train.stages.adapter import ADAPTER, describe_adapter, save_adapter
from models.train.stages.figures import figures
from models.train.stages.reader import ReferenceEngine, label_logprobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from models.engines.port import Engine
    from models.manifest import Manifest
    from models.train.data.schema import Row
    from models.train.stages.base import Base
    from models.train.stages.config import StageConfig

STATE: Final = "state"
CHECKPOINT: Final = "checkpoint"
SETTINGS: Final = "settings.json"
REPORT: Final = "report.json"
TENSORBOARD: Final = "tensorboard"
# Changing these does not change what has been learned so far.
_FREE: Final = frozenset({"output", "valid", "save_steps", "log_steps", "name"})
_DRY_STEPS: Final = 3
_LONGEST_WAIT: Final = timedelta(days=2)  # sampling for DPO takes hours, and whoever waits must not give up
_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a dry run measured on real batches of this run.

    Attributes:
        parameters: all of the model's.
        trained: those that get a gradient.
        steps: optimiser steps of the whole run.
        step_s: seconds of one step, the first (warm-up) left out.
        hours: of the whole run.
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
        "activation_checkpointing": config.activation_checkpointing,
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


@contextmanager
def main_process_first() -> Iterator[None]:
    """What is made once for all processes of a run: the main one makes it, the others wait and find it done."""
    with PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT).main_process_first():
        yield


def train(trainer: Any, config: StageConfig) -> None:
    """Train from the last saved state, if there is one, to the end.

    Raises:
        TrainingError: the loss is not finite, or memory ran out; the message says what to change.
    """
    trainer.add_callback(FiniteGuard())
    if trainer.is_world_process_zero():
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(config.output / TENSORBOARD))))
    state = Path(trainer.args.output_dir)
    last = get_last_checkpoint(str(state)) if state.is_dir() else None
    try:
        trainer.train(resume_from_checkpoint=last)
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
    """Run a few real steps, save nothing, and say what the whole run would take."""
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


def finish(trainer: Any, base: Base, config: StageConfig, record: dict[str, Any]) -> dict[str, Any] | None:
    """Write the checkpoint, its manifest, canaries and figures; only the main process does.

    Args:
        trainer: done.
        base: what it started from.
        config: of the run.
        record: what the stage wants remembered, for the manifest's training record.

    Returns:
        Figures on the validation rows, empty without any; None in a process that is not the main one.
    """
    if not trainer.is_world_process_zero():
        return None
    folder = config.output / CHECKPOINT
    model = trainer.accelerator.unwrap_model(trainer.model)
    adapted = save_adapter(model, config.output / ADAPTER)
    write_checkpoint(model, base, folder)
    rows = read_training_rows(config.valid, base.manifest.tiers) if config.valid else []
    paths = {name for name, value in config if isinstance(value, Path)}
    training = {
        "settings": config.model_dump(mode="json", exclude={"base", *paths}),
        **origin(base.folder, config.base),
        "libraries": {name: version(name) for name in ("torch", "transformers", "trl")},
        **record,
    }
    reference = reference_engine(folder, base.manifest)
    canaries = [canary_row(row, base.manifest) for row in rows]
    manifest = asyncio.run(release(folder, base.manifest, canaries, training, reference))
    if adapted:
        describe_adapter(config.output / ADAPTER, base.folder, manifest)
    report = measured(folder, base, manifest, rows) if rows else {}
    (config.output / REPORT).write_text(json.dumps({"figures": report, "training": training}, indent=1) + "\n")
    return report


def origin(folder: Path, name: str) -> dict[str, Any]:
    """What a checkpoint came from, for the manifest: ids and records, never a path of the machine it was made on.

    Args:
        folder: the base's files.
        name: what the base was asked for by, a folder or a model's name.
    """
    if not (folder / MANIFEST_NAME).is_file():
        return {"base": folder.name if Path(name).is_dir() else name}
    known = load_manifest(folder)
    return {"base": known.checkpoint_id, "before": known.training}


def write_checkpoint(model: Any, base: Base, folder: Path) -> None:
    """Weights in bfloat16 under their transformers names, beside the base's config and tokenizer, byte for byte."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    model.to(torch.bfloat16).save_pretrained(str(folder), safe_serialization=True)
    for name in _TOKENIZER_FILES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)
    shape = json.loads((base.folder / "config.json").read_bytes())
    shape.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps({**shape, "dtype": "bfloat16"}, indent=1, sort_keys=True) + "\n")
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # a service runs as somebody else


def reference_engine(folder: Path, manifest: Manifest) -> Engine | None:
    """None where the embedded engine can compute the checkpoint in float32; else transformers itself."""
    try:
        read_architecture(folder)
    except CheckpointError:
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
        end = manifest.rationale.end_token_id
        return ReferenceEngine(model, manifest.label_token_ids, end, [end])
    return None


def measured(folder: Path, base: Base, manifest: Manifest, rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of the written weights on labelled rows."""
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    prompts = [base.answers.prompt(row) for row in rows]
    found = label_logprobs(model, prompts, manifest.label_token_ids, base.tokenizer.pad_token_id)
    return {"rows": len(rows), **figures(found, [base.answers.tier(row) for row in rows], base.answers.good)}


def canary_row(row: Row, manifest: Manifest) -> dict[str, Any]:
    """A labelled row as `release` takes it: the item's fields beside the query, the tier by name."""
    column = tier_column(row.tier or "", manifest.tiers)
    assert column is not None  # noqa: S101 - read_training_rows has refused any other
    tier = manifest.tiers[column].name
    context = {"context": row.context} if row.context else {}
    return {"query": row.query, "tier": tier, **row.item.model_dump(), **context}


def shown(estimate: Estimate, write: Callable[[str], object]) -> None:
    """A dry run's result, a line a figure."""
    for name, value in asdict(estimate).items():
        write(
            f"{name.replace('_', ' '):12}{value:,}" if isinstance(value, int) else f"{name.replace('_', ' '):12}{value}"
        )
