"""An adapter: a judge of its own made of a base checkpoint and a small change to its weights (LoRA, arXiv 2106.09685).

Its folder holds PEFT's two files and a `tierwise.json` like any checkpoint's, which also names the base. Tokenizer and
most weights are the base's; tiers, prompt, beta, temperature and canaries are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from models.errors import CheckpointError
from models.manifest import MANIFEST_NAME, Manifest, file_hash, load_manifest

if TYPE_CHECKING:
    from pathlib import Path

FILES: Final = ("adapter_config.json", "adapter_model.safetensors")


def load_adapter(folder: Path, base: Manifest, *, name: str) -> Manifest:
    """Read and check an adapter's manifest.

    Args:
        folder: of the adapter.
        base: the manifest of the checkpoint that it shall lie over.
        name: what requests call it.

    Raises:
        CheckpointError: as of `load_manifest`; or it is another adapter, lies over another base, or its canaries could
            not tell it from one.
    """
    manifest = load_manifest(folder)
    problems = {
        f"it is called {manifest.name!r}": manifest.name != name,
        f"it lies over {manifest.base or 'nothing: base is not set'}, the checkpoint served is {base.checkpoint_id}": (
            manifest.base != base.checkpoint_id
        ),
        f"files must name {' and '.join(FILES)}": not set(FILES) <= manifest.files.keys(),
        "it needs canaries with probabilities, for the base may score the same tiers": not (
            manifest.canaries and all(canary.probabilities for canary in manifest.canaries)
        ),
        f"max_tokens is {manifest.max_tokens}, the base takes {base.max_tokens}": manifest.max_tokens > base.max_tokens,
    }
    found = [problem for problem, is_so in problems.items() if is_so]
    if found:
        raise CheckpointError(f"adapter {name}: {folder / MANIFEST_NAME}: {'; '.join(found)}")
    return manifest


def adapter_manifest(folder: Path, base: Manifest, *, name: str, **own: Any) -> Manifest:
    """The manifest of PEFT's files in a folder: the base's but for what is given.

    Args:
        folder: with the adapter's files.
        base: manifest of the checkpoint that it was trained over.
        name: what requests will call it.
        own: other fields in which it differs, `canaries` among them, whose probabilities `models.canaries.recorded`
            fills in.

    Raises:
        CheckpointError: a file is missing, or the fields do not make a manifest.
    """
    if missing := [file for file in FILES if not (folder / file).is_file()]:
        raise CheckpointError(f"{folder} is not an adapter: it has no {missing[0]}")
    fields = {
        **base.model_dump(),
        "name": name,
        "base": base.checkpoint_id,
        "files": {file: file_hash(folder / file) for file in FILES},
        "training": {},
        "figures": {},
        **({"prompt_hash": own["prompt"].hash} if "prompt" in own else {}),
        **own,
    }
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        raise CheckpointError(f"adapter {name}: {error}") from error
