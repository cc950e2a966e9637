"""What the operator chooses and what a checkpoint is -> vLLM's arguments."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform

from models.engines.vllm.adapters import highest_rank
from models.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.manifest import Manifest

CPU_BLOCK: Final = 32  # the default of 128 shares no shorter prefix; the CPU's kernels want multiples of 32
CPU_CACHE_BYTES: Final = 2**30


@dataclass(frozen=True, slots=True)
class Options:
    """Choices of the operator.

    Attributes:
        dtype: arithmetic; the checkpoint's own when None.
        threads: compute threads on the CPU; all cores when None.
        compiled: let torch compile the model: faster steps, a slower start. On a CPU vLLM does not compile adapters.
        cache_bytes: memory for keys and values; 1 GiB on the CPU when None, else what vLLM finds free.
        adapters: LoRA folders by name.
        more: further `AsyncEngineArgs`, e.g. `tensor_parallel_size`.
    """

    dtype: str | None = None
    threads: int | None = None
    compiled: bool = True
    cache_bytes: int | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def engine_arguments(folder: Path, manifest: Manifest, options: Options) -> AsyncEngineArgs:
    """Arguments for a checkpoint folder.

    Raises:
        CheckpointError: no config.json, no adapter where one should be, or a context too short for the manifest.
    """
    config = _config(folder)
    positions = int(config.get("max_position_embeddings") or manifest.max_tokens + 1)
    limit = int(options.more.get("max_model_len") or positions)
    if manifest.max_tokens >= limit:
        raise CheckpointError(
            f"{folder}: the manifest allows prompts of {manifest.max_tokens} tokens, but vLLM's limit is {limit} with "
            "the answer's token: lower max_tokens in the manifest"
        )
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": options.dtype or config.get("dtype") or config.get("torch_dtype") or "auto",
        "max_model_len": limit,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "enforce_eager": not options.compiled,
        "kv_cache_memory_bytes": options.cache_bytes,
        "generation_config": "vllm",  # the checkpoint's sampling defaults have no say in a label's probability
    }
    if current_platform.is_cpu():
        arguments |= {"block_size": CPU_BLOCK, "kv_cache_memory_bytes": options.cache_bytes or CPU_CACHE_BYTES}
        # By itself vLLM leaves one core to its scheduler, which on two cores is half of the machine.
        cores = sorted(os.sched_getaffinity(0))[: options.threads]
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))
    if options.adapters:
        arguments |= {
            "enable_lora": True,
            # One slot stays empty. In a batch that mixes adapters with the base model, vLLM's CPU kernels read slot -1,
            # the last one, for the base model's rows: with the last adapter in it, their scores would be wrong.
            "max_loras": len(options.adapters) + 1,
            "max_lora_rank": highest_rank(options.adapters),
        }
    return AsyncEngineArgs(**(arguments | dict(options.more)))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or not JSON") from error
    return config
