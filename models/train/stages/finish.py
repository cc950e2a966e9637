"""The end of a stage: a checkpoint folder that serving takes, with its manifest, canaries and figures."""

from __future__ import annotations

import asyncio
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import AutoModelForCausalLM

from models.engines.onnx.architecture import read_architecture
from models.errors import CheckpointError
from models.manifest import MANIFEST_NAME, load_manifest
from models.train.data.schema import gold_column, read_training_rows
from models.train.release import TOKENIZER_FILES, release
from models.train.stages.adapter import ADAPTER, describe_adapter, save_adapter
from models.train.stages.figures import figures
from models.train.stages.reader import ReferenceEngine, label_logprobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.engines.port import Engine
    from models.manifest import Manifest
    from models.train.data.schema import Row
    from models.train.stages.base import Base
    from models.train.stages.config import StageConfig

CHECKPOINT: Final = "checkpoint"
REPORT: Final = "report.json"


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
    for name in TOKENIZER_FILES:
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
    tier = manifest.tiers[gold_column(row, manifest.tiers)].name
    context = {"context": row.context} if row.context else {}
    return {"query": row.query, "tier": tier, **row.item.model_dump(), **context}
