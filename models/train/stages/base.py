"""The model a stage starts from: a Tierwise checkpoint, or any causal language model with a template made for it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging
from trl.trainer import utils as trl_trainers

from models.errors import CheckpointError, TrainingError
from models.manifest import MANIFEST_NAME, SHIPPED, Manifest, load_manifest
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer
from models.train.answers import AnswerWriter
from models.train.template import text_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from models.train.stages.config import StageConfig

SHIPPED_NAME: Final = "tierwise-mini"


@dataclass(frozen=True, slots=True)
class Base:
    """An opened base.

    Attributes:
        folder: its files.
        model: float32 weights, on the CPU.
        tokenizer: transformers' view of the tokenizer, for padding and decoding.
        manifest: template, tiers and markers.
        answers: writes prompts and answers.
    """

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    manifest: Manifest
    answers: AnswerWriter


def score_answers_only() -> None:
    """Make TRL project only the positions that a loss looks at, on a CPU as on a GPU.

    Off Triton it projects every position, prompts included, for accelerators that compile anew for each shape. A CPU
    does not, and for a small model with a large vocabulary that is half of the arithmetic.
    """
    trl_trainers._use_triton = lambda device: device.type in {"cpu", "cuda"}  # noqa: SLF001 - no setting does it


def open_base(config: StageConfig) -> Base:
    """Load the base of a run, ready to train.

    Raises:
        TrainingError: no such model, no padding token, or labels that are not single tokens.
        CheckpointError: a manifest that does not fit its files.
    """
    folder = base_folder(config.base)
    manifest = manifest_of(folder, config.name)
    transformers_logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder} is not a causal language model that transformers loads: {error}") from error
    if tokenizer.pad_token_id is None:
        raise TrainingError(f"the tokenizer of {folder} has no padding token: name one in tokenizer_config.json")
    # TRL and PEFT ask transformers by a name that transformers is giving up.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
    score_answers_only()
    freeze_carriers(model)
    ends = model.generation_config.eos_token_id
    known = [ends] if isinstance(ends, int) else list(ends or ())
    end = manifest.rationale.end_token_id
    model.generation_config.eos_token_id = [end, *(token for token in known if token != end)]
    fields = FieldTokenizer(folder)
    answers = AnswerWriter(manifest, fields, PromptWriter(manifest, fields), rationale_tokens=config.rationale_tokens)
    return Base(folder, model, tokenizer, manifest, answers)


def base_folder(name: str) -> Path:
    """Folder of a base: a folder as it is, the shipped judge by its name, another name from the local model cache."""
    if name == SHIPPED_NAME:
        return SHIPPED
    folder = Path(name)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - comes with transformers
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(name))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TrainingError(f"the base {name!r} is neither a folder nor a model that can be fetched") from error


def manifest_of(folder: Path, name: str) -> Manifest:
    """The checkpoint's own manifest under the run's name, or one written for a plain language model.

    Beta and temperature are set back: they belong to the weights that training replaces.
    """
    if (folder / MANIFEST_NAME).is_file():
        known = load_manifest(folder)
        return known.model_copy(
            update={"name": name, "beta": 0.5, "temperature": 1.0, "canaries": (), "figures": {}, "training": {}}
        )
    try:
        shape = AutoConfig.from_pretrained(str(folder))
        limit, ends = int(shape.max_position_embeddings), shape.eos_token_id
        end = int(ends[0] if isinstance(ends, list) else ends)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise TrainingError(f"{folder} has no config.json of a causal language model with an end token") from error
    try:
        return text_manifest(name, FieldTokenizer(folder), limit, end)
    except CheckpointError as error:
        raise TrainingError(f"{folder}: {error}") from error


def freeze_carriers(model: Any) -> None:
    """Keep layers that add nothing as they are.

    The first layer of a bootstrapped judge only carries BERT's embedding norm (models/train/minilm.py); engines skip
    its arithmetic because its outputs are zero, and a gradient would end that.
    """
    if model.config.model_type != "opt":
        return
    for layer in model.model.decoder.layers:
        if not layer.self_attn.out_proj.weight.any() and not layer.fc2.weight.any():
            layer.requires_grad_(False)
