"""From a checkpoint folder to the two graphs and their weight file, in a folder of their own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnxruntime

from models.canaries import canary_prompts
from models.engines.onnx.architecture import Architecture, Precision, read_architecture
from models.engines.onnx.batch import LANES
from models.errors import CheckpointError
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer

if TYPE_CHECKING:
    from models.engines.onnx.decoder import Family
    from models.engines.onnx.weights import Checkpoint
    from models.manifest import Manifest

SCORE: Final = "score.onnx"
EXTEND: Final = "extend.onnx"
WEIGHTS: Final = "weights.bin"
PROBE: Final = "probe.onnx"
FILES: Final = (SCORE, EXTEND, WEIGHTS)
_BUILDER: Final = ("architecture", "build", "decoder", "graph", "llama", "observe", "opt", "weights")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything the graphs of a checkpoint depend on.

    Attributes:
        prompt: tokens of the longest prompt.
        rationale: tokens that may be decoded after it, label included.
        examples: prompts like those to come, from the canaries; int8 evens out channels by what it sees in them, so
            what they ask is part of `Manifest.weights_id`.
        unsigned: int8 weights in the form that no processor sums wrongly; slower where the other form is right.
    """

    folder: Path
    files: tuple[tuple[str, str], ...]
    labels: tuple[int, ...]
    prompt: int
    rationale: int
    precision: Precision
    examples: tuple[tuple[int, ...], ...] = ()
    unsigned: bool = False

    @classmethod
    def of(cls, folder: Path, manifest: Manifest, precision: Precision) -> Recipe:
        """The recipe for a checkpoint whose manifest has been read."""
        return cls(
            folder=folder,
            files=tuple(sorted(manifest.files.items())),
            labels=manifest.label_token_ids,
            prompt=manifest.max_tokens,
            rationale=1 + manifest.rationale.max_tokens,
            precision=precision,
            examples=_examples(folder, manifest) if precision == "int8" else (),
        )

    @property
    def key(self) -> str:
        """16 hex digits that change with the checkpoint, the recipe, this builder's source and ONNX Runtime."""
        return _key(replace(self, folder=Path()))


def probe_key() -> str:
    """The probe's key, of the same form as a recipe's."""
    return _key(PROBE)


def _key(what: object) -> str:
    digest = hashlib.sha256()
    for module in _BUILDER:
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    digest.update(repr((what, onnxruntime.__version__)).encode())
    return digest.hexdigest()[:16]


def _examples(folder: Path, manifest: Manifest) -> tuple[tuple[int, ...], ...]:
    if not manifest.canaries:
        return ()
    writer = PromptWriter(manifest, FieldTokenizer(folder))
    return tuple(prefix + suffix for prefix, suffix in canary_prompts(manifest, writer))


def architecture_of(recipe: Recipe) -> Architecture:
    """Read `config.json` and check it against the recipe.

    Raises:
        CheckpointError: the prompts do not fit the model's positions, or a label is outside the vocabulary.
    """
    architecture = read_architecture(recipe.folder)
    outside = [i for i in recipe.labels if i >= architecture.vocabulary]
    if outside:
        raise CheckpointError(f"label token ids {outside} are outside the vocabulary of {architecture.vocabulary}")
    if recipe.prompt > architecture.positions:
        raise CheckpointError(
            f"the manifest allows prompts of {recipe.prompt} tokens, config.json has {architecture.positions} positions"
        )
    return architecture


def build(recipe: Recipe, target: Path) -> None:
    """Write FILES into an existing folder.

    Raises:
        CheckpointError: the checkpoint is not one that this engine computes.
    """
    # The onnx package is needed here alone: a start with cached graphs does without it.
    from models.engines.onnx.decoder import write_extend, write_score  # noqa: PLC0415
    from models.engines.onnx.graph import GraphWriter, WeightFile  # noqa: PLC0415
    from models.engines.onnx.observe import channel_peaks  # noqa: PLC0415
    from models.engines.onnx.weights import Checkpoint  # noqa: PLC0415

    architecture = architecture_of(recipe)
    with Checkpoint(recipe.folder) as checkpoint, (target / WEIGHTS).open("wb") as file:
        longest = recipe.prompt + recipe.rationale + LANES  # rows are padded
        family = _family(architecture, checkpoint, longest)
        weights = WeightFile(file, WEIGHTS)
        peaks = channel_peaks(family, recipe.examples, target) if recipe.examples else {}
        writers = [GraphWriter(weights, recipe.precision, unsigned=recipe.unsigned, peaks=peaks) for _ in range(2)]
        (target / SCORE).write_bytes(write_score(writers[0], family, recipe.labels))
        (target / EXTEND).write_bytes(write_extend(writers[1], family))


def build_probe(target: Path) -> None:
    """Write PROBE into an existing folder."""
    from models.engines.onnx.graph import write_probe  # noqa: PLC0415 - as in `build`

    (target / PROBE).write_bytes(write_probe())


def _family(architecture: Architecture, checkpoint: Checkpoint, longest: int) -> Family:
    from models.engines.onnx.llama import Llama  # noqa: PLC0415
    from models.engines.onnx.opt import Opt  # noqa: PLC0415

    if architecture.family == "opt":
        return Opt(architecture, checkpoint)
    return Llama(architecture, checkpoint, longest)
