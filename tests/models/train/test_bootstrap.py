"""A bootstrap run trains, resumes to the same figures, and ends in a checkpoint that the engine takes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from models.deadline import Deadline
from models.engines.onnx import OnnxEngine
from models.errors import TrainingError
from models.manifest import load_manifest
from models.train import minilm
from models.train.bootstrap import Bootstrap, BootstrapConfig
from models.train.judging import losses
from models.train.release import release

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.catalogue import Product
    from models.train.pairs import Card

CONFIG = BootstrapConfig(
    pairs=4 * 2 * 8,
    groups_per_step=2,
    round_groups=8,
    warmup_steps=1,
    validation_groups=16,
    checkpoint_steps=2,
    held_out=0.2,
    fact_share=0.5,
)


@pytest.fixture(scope="module")
def start(stock: list[Product], cards: list[Card]) -> Callable[..., Bootstrap]:
    def begin(folder: Path, config: BootstrapConfig = CONFIG, base: Path | None = None) -> Bootstrap:
        return Bootstrap(stock, cards, folder, config, lambda *_: None, base=base)

    return begin


@pytest.fixture(scope="module")
def finished(
    start: Callable[..., Bootstrap], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bootstrap, dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("run")
    run = start(folder)
    return run, run.run(), folder


def test_log_and_figures(finished: tuple[Bootstrap, dict[str, Any], Path]) -> None:
    """Every step is done, validation figures are logged, and the loss is finite."""
    run, figures, folder = finished
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert run.step == CONFIG.steps == 4
    assert [row["step"] for row in rows] == [2, 4]
    assert np.isfinite(figures["valid_loss"])
    assert 0 <= figures["valid_auc"] <= 1


def test_resumes_to_the_same_figures(
    start: Callable[..., Bootstrap], finished: tuple[Bootstrap, dict[str, Any], Path], tmp_path: Path
) -> None:
    """A run that ends half-way and is prolonged has the weights of one that ran through."""
    # Half a run must not decay early: both have the steady rate up to the state that is resumed.
    half = replace(CONFIG, pairs=2 * 2 * 8, decay_share=1e-9)
    start(tmp_path, half).run()
    resumed = start(tmp_path)
    figures = resumed.run()
    assert figures["valid_loss"] == pytest.approx(finished[1]["valid_loss"], abs=0.02)


def test_other_settings_do_not_resume(
    start: Callable[..., Bootstrap], finished: tuple[Bootstrap, dict[str, Any], Path]
) -> None:
    """A folder that holds a run with another seed is refused, and the message names the setting."""
    other = replace(CONFIG, seed=9)
    with pytest.raises(TrainingError, match="seed"):
        start(finished[2], other).run()


def test_goes_on_from_a_checkpoint(
    start: Callable[..., Bootstrap], finished: tuple[Bootstrap, dict[str, Any], Path], tmp_path: Path
) -> None:
    """A run with a base starts from its weights, and a folder that holds none is refused by name."""
    run = start(tmp_path, CONFIG, finished[2] / "checkpoint")
    for name, tensor in finished[0].decoder.state_dict().items():
        torch.testing.assert_close(run.decoder.state_dict()[name], tensor, atol=0, rtol=2**-8)
    (tmp_path / "other").mkdir()
    with pytest.raises(TrainingError, match="other holds no judge"):
        start(tmp_path, CONFIG, tmp_path / "other")


def test_keeps_what_the_base_knows(
    start: Callable[..., Bootstrap], finished: tuple[Bootstrap, dict[str, Any], Path], tmp_path: Path
) -> None:
    """A run that keeps its base's words moves no vector of one, and unseen names have figures of their own."""
    config = replace(CONFIG, keep=1, freeze_words=True, held_out_names=0.5, pairs=2 * 2 * 8)
    base = finished[2] / "checkpoint"
    run = start(tmp_path / "run", config, base)
    before = run.decoder.tokens.weight.detach().clone()
    figures = run.run()
    moved = (run.decoder.tokens.weight != before).any(-1).nonzero().flatten().tolist()
    assert moved
    assert set(moved) <= set(minilm.RESERVED)
    assert figures["valid_unseen_pairs"] > 0
    assert 0 <= figures["valid_unseen_auc"] <= 1
    with pytest.raises(TrainingError, match="needs a base"):
        start(tmp_path / "none", config)
    assert not (tmp_path / "none").exists()


def test_shares_of_a_step() -> None:
    """Three of 16 groups of 8 pairs are 8 groups of 3 whose fact a chunk tells; a step keeps its pairs."""
    config = BootstrapConfig(fact_share=3 / 16)
    assert (config.plain_groups, config.fact_groups) == (13, 8)
    assert config.plain_groups * 8 + config.fact_groups * 3 == 128
    assert BootstrapConfig(fact_share=0).fact_groups == 0


def test_too_small_a_catalogue(stock: list[Product], tmp_path: Path) -> None:
    """A catalogue that cannot be split is refused with its size."""
    with pytest.raises(TrainingError, match="20 products"):
        Bootstrap(stock[:20], [], tmp_path, CONFIG, lambda *_: None)


async def test_release(finished: tuple[Bootstrap, dict[str, Any], Path]) -> None:
    """The released folder loads with every hash checked, and the engine's label logits are the network's."""
    run, figures, folder = finished
    rows = run.held_out(6)
    assert {row["tier"] for row in rows} <= {t.name for t in run.manifest.tiers}
    manifest = await release(folder / "checkpoint", run.manifest, rows, {"validation": figures})
    assert load_manifest(folder / "checkpoint") == manifest
    groups = run._valid.pairs.make(run._valid.queries.make(2, 11), 11)
    examples = run._valid_writer.write(groups, 1, rationales=False)
    rounded = {n: t.to(torch.bfloat16).float() for n, t in run.decoder.state_dict().items()}
    run.decoder.load_state_dict(rounded)
    with torch.inference_mode():
        _, _, logits = losses(run.decoder, examples, torch.tensor(manifest.label_token_ids))
    expected = torch.log_softmax(logits, -1).numpy()
    engine = OnnxEngine.load(folder / "checkpoint", manifest, precision="float32", cache_dir=folder / "graphs")
    try:
        found = await _scores(engine, examples)
    finally:
        await engine.close()
    np.testing.assert_allclose(found, expected, atol=1e-3)


async def _scores(engine: OnnxEngine, examples: Any) -> np.ndarray[Any, Any]:
    batch = examples.batch
    starts = batch.suffix_starts.tolist()
    ends = (examples.answers + 1).tolist()
    owners = {start: block.prefix for block in batch.blocks for start in block.rows.tolist()}
    rows = []
    for start, end in zip(starts, ends, strict=True):
        first, last = owners[start]
        scores = await engine.score(batch.ids[first:last].tolist(), [batch.ids[start:end].tolist()], Deadline.never())
        rows.append(scores.logprobs[0])
    return np.stack(rows)
