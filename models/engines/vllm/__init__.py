"""vLLM in the service's process: AsyncLLM on CUDA or on the CPU build, kept alive and watched."""

import os

# vLLM reads these when it is imported, so they stand before that. What the operator has set stays.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from models.engines.vllm.engine import VllmEngine

__all__ = ["VllmEngine"]
