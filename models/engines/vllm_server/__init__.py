"""A pool of vLLM's OpenAI-compatible servers behind the engine port. Needs httpx, not vLLM."""

from models.engines.vllm_server.engine import VllmServerEngine

__all__ = ["VllmServerEngine"]
