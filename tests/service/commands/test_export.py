"""`tierwise export`: graphs ahead of the first start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import typer

from models.engines.onnx import OnnxEngine, cache
from models.manifest import SHIPPED, load_manifest
from service.commands.export import export
from service.settings import EngineName

if TYPE_CHECKING:
    from pathlib import Path


def test_a_start_finds_what_was_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an export the engine builds nothing."""
    export(output=tmp_path, engine=EngineName.ONNX_INT8)

    def build(*_: object) -> None:
        pytest.fail("the engine built graphs that the export should hold")

    monkeypatch.setattr(cache, "build", build)
    engine = OnnxEngine.load(SHIPPED, load_manifest(SHIPPED), cache_dir=tmp_path)
    asyncio.run(engine.close())


def test_an_engine_without_graphs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Servers of vLLM have no graphs here, and the message says which engine has."""
    with pytest.raises(typer.Exit) as stopped:
        export(output=tmp_path, engine=EngineName.VLLM_SERVER)
    assert stopped.value.exit_code == 2
    assert "choose onnx-int8" in capsys.readouterr().err
