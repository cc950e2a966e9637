"""DPO samples, pairs, learns, and remembers what it sampled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from models.manifest import load_manifest
from models.train.objectives.preference import dpo_loss
from models.train.stages import dpo, run
from models.train.stages.base import open_base
from models.train.stages.config import DpoConfig
from models.train.stages.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Callable


def test_samples_know_their_probability(run_settings: Callable[..., dict[str, Any]]) -> None:
    """A sample's log-probability is that of a plain forward pass over its ids."""
    base = open_base(DpoConfig(**run_settings()))
    prompts, end = [[5, 6, 7], [8, 9, 10, 11]], base.manifest.rationale.end_token_id
    torch.manual_seed(0)
    found = dict(sample(base.model, prompts, count=2, temperature=1.0, longest=6, ends=[end], pad=0, batch=4))
    for number, samples in found.items():
        for one in samples:
            ids = torch.tensor([[*prompts[number], *one.ids]])
            logits = base.model(ids).logits[0, len(prompts[number]) - 1 : -1].log_softmax(-1)
            expected = logits.gather(-1, torch.tensor(one.ids)[:, None]).sum().item()
            assert one.log_prob == pytest.approx(expected, abs=1e-3)
            assert end not in one.ids[:-1]


def test_stage(run_settings: Callable[..., dict[str, Any]]) -> None:
    """Pairs hold right answers against wrong ones, the first loss is log 2, and the checkpoint tells pass@N."""
    config = DpoConfig(
        **run_settings(rows=8, context=True, samples=2, max_steps=3, warmup_share=0, learning_rate=1e-3, batch_size=16)
    )
    base = open_base(config)
    run.prepared(config, "dpo")
    trainer = dpo.trainer(base, config, lambda *_: None)
    pairs = [json.loads(line) for line in (config.output / dpo.PAIRS).read_text().splitlines()]
    assert len(pairs) > 8  # every row is asked with its context and without
    for pair in pairs:
        assert base.answers.said(pair["chosen_ids"]).tier != base.answers.said(pair["rejected_ids"]).tier
    run.train(trainer, config)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    start = torch.zeros(1)
    assert losses[0] == pytest.approx(dpo_loss(start, start, start, start, 0.1).item(), abs=1e-3)
    assert losses[-1] < losses[0]
    run.finish(trainer, base, config, {"method": "dpo", **dpo.record(config)})
    remembered = load_manifest(config.output / run.CHECKPOINT).training
    assert remembered["pass_at"]["pass@1"] <= remembered["pass_at"]["pass@2"]
    before = (config.output / dpo.PAIRS).stat().st_mtime_ns
    dpo.trainer(open_base(config), config, lambda *_: None)
    assert (config.output / dpo.PAIRS).stat().st_mtime_ns == before
