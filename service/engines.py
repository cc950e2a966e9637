"""Which engine stands behind the port. Imports are lazy: only the chosen engine's libraries need to be installed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from service.settings import EngineName, SettingsError

if TYPE_CHECKING:
    from models.engines.port import Engine
    from models.manifest import Manifest
    from service.settings import Settings

EMBEDDED = frozenset({EngineName.ONNX_INT8, EngineName.ONNX_FLOAT32, EngineName.VLLM})


def open_engine(settings: Settings, manifest: Manifest) -> Engine:
    """The configured engine on the configured checkpoint, not yet warm.

    Raises:
        CheckpointError: the checkpoint does not fit the engine.
        SettingsError: the engine's libraries are not installed.
    """
    match settings.engine:
        case EngineName.ONNX_INT8 | EngineName.ONNX_FLOAT32:
            onnx = import_module("models.engines.onnx")
            precision = settings.engine.removeprefix("onnx-")
            engine: Engine = onnx.OnnxEngine.load(
                settings.checkpoint,
                manifest,
                precision=precision,
                threads=settings.threads,
                cache_dir=settings.cache_dir,
            )
            return engine
        case EngineName.VLLM | EngineName.VLLM_SERVER:
            raise SettingsError(f"engine (TIERWISE_ENGINE): {settings.engine} is not part of this version")
