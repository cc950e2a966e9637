"""SFT learns, resumes to the same figures, and ends in a checkpoint that the service loads."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback

from models.deadline import Deadline
from models.engines.onnx import OnnxEngine
from models.errors import TrainingError
from models.manifest import load_manifest
from models.rationale import ContextUse
from models.train.data.schema import read_training_rows
from models.train.stages import finish, run, sft
from models.train.stages.adapter import ADAPTER
from models.train.stages.base import open_base
from models.train.stages.config import SftConfig
from models.train.stages.registry import estimate_stage, run_stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.engines.port import Scores
    from models.manifest import Manifest


def trained(config: SftConfig) -> tuple[Any, dict[str, Any]]:
    base = open_base(config)
    run.prepared(config, "sft")
    trainer = sft.trainer(base, config)
    run.train(trainer, config)
    figures = finish.finish(trainer, base, config, {"method": "sft"})
    assert figures is not None
    return base, figures


def test_learns_and_serves(run_settings: Callable[..., dict[str, Any]]) -> None:
    """The label is learned, the folder loads with every hash checked, and the engine gives transformers' scores."""
    config = SftConfig(**run_settings(rows=64, epochs=4))
    base, figures = trained(config)
    assert figures["accuracy"] > 0.8
    folder = config.output / finish.CHECKPOINT
    manifest = load_manifest(folder)
    assert manifest.name == "judge"
    assert manifest.training["method"] == "sft"
    assert manifest.canaries
    assert list((config.output / "tensorboard").glob("events*"))
    row = read_training_rows(config.train, manifest.tiers)[0]
    scores = asyncio.run(scored(folder, manifest, base.answers.prompt(row)))
    assert scores.logprobs[0].argmax() == base.answers.tier(row)


async def scored(folder: Path, manifest: Manifest, prompt: list[int]) -> Scores:
    engine = OnnxEngine.load(folder, manifest, precision="float32")
    try:
        return await engine.score([], [prompt], Deadline.never())
    finally:
        await engine.close()


def test_a_hidden_chunk_is_not_used(run_settings: Callable[..., dict[str, Any]]) -> None:
    """A row that is shown without its chunk is taught as one that has none, in the prompt and in the answer."""
    config = SftConfig(**run_settings(rows=8, context=True), drop_context=1)
    lines = [{**json.loads(line), "context_use": "adopt"} for line in config.train.read_text().splitlines()]
    config.train.write_text("".join(json.dumps(line) + "\n" for line in lines))
    base = open_base(config)
    rows = read_training_rows(config.train, base.manifest.tiers)
    for row, taught in zip(rows, sft.dataset(rows, base, config), strict=True):
        prompt = base.answers.prompt(row, context=False)
        assert taught["input_ids"][: len(prompt)] == prompt
        answer = taught["input_ids"][len(prompt) :]
        said = base.answers.said(answer).rationale
        assert said is not None
        assert said.context is ContextUse.IGNORE
        shown = base.answers.said(base.answers.gold(row)).rationale
        assert shown is not None
        assert shown.context is ContextUse.ADOPT


def test_carrier_stays(run_settings: Callable[..., dict[str, Any]], tiny: Path) -> None:
    """The layer that adds nothing still adds nothing, and the other one has moved."""
    config = SftConfig(**run_settings(max_steps=2))
    trained(config)
    before, after = load_file(tiny / "model.safetensors"), load_file(config.output / "checkpoint" / "model.safetensors")
    moved = {n.split(".")[3] for n in after if "layers" in n and not torch.equal(after[n], before[n].bfloat16())}
    assert moved == {"1"}


def test_resumes_to_the_same_weights(run_settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """A run stopped after its second step and started again ends where an unbroken run ends."""
    whole = SftConfig(**run_settings(max_steps=4))
    trained(whole)

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 3

    broken = whole.model_copy(update={"output": tmp_path / "broken"})
    trainer = sft.trainer(open_base(broken), broken)
    run.prepared(broken, "sft")
    trainer.add_callback(Stop())
    run.train(trainer, broken)
    _, figures = trained(broken)
    a, b = (load_file(c.output / "checkpoint" / "model.safetensors") for c in (whole, broken))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert figures["loss"] == json.loads((whole.output / finish.REPORT).read_text())["figures"]["loss"]


def test_other_settings_do_not_resume(run_settings: Callable[..., dict[str, Any]]) -> None:
    """A folder that holds a run with another seed is refused by the setting's name."""
    config = SftConfig(**run_settings())
    run.prepared(config, "sft")
    with pytest.raises(TrainingError, match="another seed"):
        run.prepared(config.model_copy(update={"seed": 9}), "sft")


def test_a_base_that_cannot_be_opened_leaves_no_run(
    run_settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Whoever names a wrong base mends the name and starts again in the same folder."""
    (tmp_path / "empty").mkdir()
    config = SftConfig(**{**run_settings(), "base": str(tmp_path / "empty")})
    with pytest.raises(TrainingError, match="empty has no"):
        run_stage("sft", config, lambda *_: None)
    assert not config.output.exists()


def test_stops_at_nan(run_settings: Callable[..., dict[str, Any]]) -> None:
    """A loss that is no number stops the run by name of the step and the setting to lower, and saves nothing."""
    config = SftConfig(**run_settings(max_steps=4))
    base = open_base(config)
    with torch.no_grad():
        base.model.model.decoder.embed_positions.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"at step 1: lower learning_rate"):
        run.train(sft.trainer(base, config), config)
    assert not list((config.output / run.STATE).glob("checkpoint-*"))


def test_the_last_state_is_looked_at(
    run_settings: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of fewer steps than log_steps stops at a loss that is no number too, and saves nothing."""
    config = SftConfig(**{**run_settings(max_steps=2), "log_steps": 10, "save_steps": 10})
    trainer = sft.trainer(open_base(config), config)
    loss = trainer.compute_loss
    monkeypatch.setattr(trainer, "compute_loss", lambda *a, **k: loss(*a, **k) * float("nan"))
    with pytest.raises(TrainingError, match=r"at step 2: lower learning_rate"):
        run.train(trainer, config)
    assert not list((config.output / run.STATE).glob("checkpoint-*"))


@pytest.mark.parametrize("start", [run_stage, lambda _, *rest: estimate_stage(*rest)], ids=["run", "dry run"])
def test_out_of_memory(
    start: Callable[..., Any], run_settings: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out of memory names the settings that would help, in a run as in a dry run."""
    config = SftConfig(**run_settings(max_steps=1))
    monkeypatch.setattr(sft.LabelFirstTrainer, "compute_loss", lambda *_, **__: torch.empty(1 << 60))
    with pytest.raises(TrainingError, match="batch_size 8: halve it"):
        start("sft", config, lambda *_: None)


def test_dry_run(run_settings: Callable[..., dict[str, Any]]) -> None:
    """A dry run tells steps, time and memory, and leaves no state."""
    config = SftConfig(**run_settings(epochs=5))
    estimate = run.dry_run(sft.trainer(open_base(config), config))
    assert estimate.steps == 20
    assert estimate.hours == pytest.approx(estimate.step_s * 20 / 3600, abs=1e-3)
    assert estimate.memory_gb > 0
    assert 0 < estimate.trained < estimate.parameters
    assert not list(config.output.glob("state/checkpoint-*"))


def test_lora(run_settings: Callable[..., dict[str, Any]], tiny: Path) -> None:
    """Adapters are merged into the checkpoint, which has the base's weights by name, and kept to be served."""
    config = SftConfig(**run_settings(max_steps=2, name="toys", lora={"rank": 2, "targets": ["q_proj", "v_proj"]}))
    trained(config)
    merged = load_manifest(config.output / finish.CHECKPOINT)
    names = load_file(config.output / "checkpoint" / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in names)
    adapter = load_manifest(config.output / ADAPTER)
    assert (adapter.name, adapter.base) == ("toys", load_manifest(tiny).checkpoint_id)
    assert adapter.canaries == merged.canaries
    over = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(tiny)), str(config.output / ADAPTER))
    for name, weight in over.merge_and_unload().state_dict().items():
        if name in names:
            assert torch.equal(weight.bfloat16(), names[name])


def test_record_names_no_path(run_settings: Callable[..., dict[str, Any]], tiny: Path) -> None:
    """A checkpoint remembers its base by id, with the base's own record, and no folder of the machine that made it."""
    config = SftConfig(**run_settings(max_steps=1))
    trained(config)
    training = load_manifest(config.output / finish.CHECKPOINT).training
    assert training["base"] == load_manifest(tiny).checkpoint_id
    assert training["before"] == load_manifest(tiny).training
    assert str(tiny.parent) not in json.dumps(training)
