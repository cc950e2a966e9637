"""`tierwise train average`: weights between checkpoints of one lineage, for judges that each know a part.

Fine-tuned models that share an origin lie in one basin, and their mean is often better than either (2203.05482); with
the origin itself in the mean, less of what it knew fades (2109.01903). No step is trained: what comes out is decided on
held-out pairs, as any other checkpoint.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from models.errors import TrainingError
from models.train.minilm import save_weights
from models.train.release import checkpoint_files, release
from models.train.stages.base import manifest_of
from models.train.stages.finish import canary_row, origin, reference_engine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.manifest import Manifest
    from models.train.data.schema import Row


def average(
    checkpoints: Sequence[Path], shares: Sequence[float], output: Path, rows: Sequence[Row], *, name: str
) -> Manifest:
    """Write the weighted mean of checkpoints as a checkpoint of its own, with canaries, beta and temperature set back.

    Args:
        checkpoints: folders of one template and one shape; config and tokenizer are the first one's.
        shares: of each in the mean; they add up to 1.
        output: new folder.
        rows: labelled pairs that none was trained on, to pick canaries from.
        name: of the result.

    Raises:
        TrainingError: shares that do not add up, checkpoints of another template or shape, a folder in use.
        CheckpointError: a folder whose files are not what its manifest says.
    """
    if len(shares) != len(checkpoints) or abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:  # noqa: PLR2004 - rounding
        told = ", ".join(f"{share:g}" for share in shares)
        raise TrainingError(f"{len(checkpoints)} checkpoints want as many shares that add up to 1, not {told}")
    if output.exists() and any(output.iterdir()):
        raise TrainingError(f"{output} is not empty: use a new folder")
    first, *others = (manifest_of(folder, name) for folder in checkpoints)
    for folder, manifest in zip(checkpoints[1:], others, strict=True):
        if (manifest.prompt, manifest.tiers) != (first.prompt, first.tiers):
            raise TrainingError(f"{folder} has another template or other tiers than {checkpoints[0]}")
    files = checkpoint_files(checkpoints[0])
    for file in (name for name in files if name.endswith(".safetensors")):  # first, because they may not fit
        mean = _mean(checkpoints, shares, file)
        output.mkdir(parents=True, exist_ok=True)
        save_weights(mean, output / file)
    for file in (name for name in files if not name.endswith(".safetensors")):
        shutil.copyfile(checkpoints[0] / file, output / file)
    parts = [{"share": share, **origin(folder, str(folder))} for share, folder in zip(shares, checkpoints, strict=True)]
    canaries = [canary_row(row, first) for row in rows]
    record: dict[str, Any] = {"method": "average", "of": parts}
    return asyncio.run(release(output, first, canaries, record, reference_engine(output, first)))


def _mean(checkpoints: Sequence[Path], shares: Sequence[float], file: str) -> dict[str, torch.Tensor]:
    """Tensor name -> mean, summed in float32 and kept in the first one's type."""
    sums: dict[str, torch.Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for folder, share in zip(checkpoints, shares, strict=True):
        try:
            with safe_open(folder / file, framework="pt") as tensors:
                found = {name: tensors.get_tensor(name) for name in sorted(tensors.keys())}
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{folder} has no readable {file}: {error}") from error
        shapes = {name: tensor.shape for name, tensor in found.items()}
        sums = sums or {name: torch.zeros(tensor.shape) for name, tensor in found.items()}
        types = types or {name: tensor.dtype for name, tensor in found.items()}
        if shapes != {name: tensor.shape for name, tensor in sums.items()}:
            raise TrainingError(f"{folder} holds weights of another shape than {checkpoints[0]}")
        for name, tensor in found.items():
            sums[name] += share * tensor.float()
    return {name: tensor.to(types[name]) for name, tensor in sums.items()}
