"""LoRA adapters: several judges, one per market or category, over one base model in memory (arXiv 2106.09685)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from vllm.lora.request import LoRARequest

from models.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vLLM sizes its buffers to one of these


def adapter_requests(adapters: Mapping[str, Path]) -> dict[str, LoRARequest]:
    """The handle of each adapter, by name.

    Raises:
        CheckpointError: a folder holds no adapter, or one of a rank that vLLM cannot take.
    """
    for name, folder in adapters.items():
        if _rank(name, folder) > _RANKS[-1]:
            raise CheckpointError(f"adapter {name}: rank {_rank(name, folder)}, vLLM takes up to {_RANKS[-1]}")
    return {
        name: LoRARequest(lora_name=name, lora_int_id=number, lora_path=str(folder))
        for number, (name, folder) in enumerate(adapters.items(), start=1)
    }


def highest_rank(adapters: Mapping[str, Path]) -> int:
    """The size that vLLM must set aside: the least of its sizes that holds every adapter."""
    needed = max(_rank(name, folder) for name, folder in adapters.items())
    return next(rank for rank in _RANKS if rank >= needed)


def _rank(name: str, folder: Path) -> int:
    path = folder / "adapter_config.json"
    try:
        return int(json.loads(path.read_bytes())["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"adapter {name}: {path} is missing or does not state the rank r") from error
