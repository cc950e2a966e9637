"""The embedded engine: ONNX Runtime on the CPU, graphs built from the checkpoint itself. Needs no torch."""

from __future__ import annotations

from models.engines.onnx.engine import OnnxEngine

__all__ = ["OnnxEngine"]
