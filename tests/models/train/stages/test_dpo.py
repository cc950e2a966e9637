"""DPO samples, pairs, learns, and remembers what it sampled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from models.errors import RequestRefusedError
from models.manifest import load_manifest
from models.rationale import CategoryVerdict, ContextUse, Rationale
from models.train.data.schema import read_training_rows
from models.train.objectives.preference import PairChoice, dpo_loss
from models.train.stages import dpo, finish, run
from models.train.stages.base import open_base
from models.train.stages.config import DpoConfig, Endpoint
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


def test_equal_seeds_give_equal_pairs(run_settings: Callable[..., dict[str, Any]]) -> None:
    """What is sampled follows from the seed alone, and other rows are sampled anew."""
    config = DpoConfig(**run_settings(rows=8, samples=2))
    config.output.mkdir()
    found: list[str] = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(found))  # whatever a process did before
        one = config.model_copy(update={"seed": seed})
        dpo.make_pairs(open_base(one), one, lambda *_: None)
        found.append(dpo.pairs_file(one).read_text())
    assert found[0] == found[1] != found[2]
    before = dpo.pairs_file(config)
    config.train.write_text(config.train.read_text().replace("laptop", "lamp"))
    assert dpo.pairs_file(config) != before


def test_an_answer_without_words(run_settings: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a teacher explains nothing, or another tier, its label is set against the wrong label, and no more."""
    teacher = Endpoint(url="http://nowhere/v1", model="m")
    config = DpoConfig(**run_settings(rows=8, samples=2), teacher=teacher)
    config.output.mkdir()
    base = open_base(config)
    off = Rationale(CategoryVerdict.MISMATCH, (), ContextUse.IGNORE, "no")  # implies Irrelevant
    monkeypatch.setattr(dpo, "teacher_answer", lambda *_, **__: off)
    monkeypatch.setattr(dpo, "choose_pair", lambda *_: PairChoice(None, 0))  # none is right
    dpo.make_pairs(base, config, lambda *_: None)
    rows = read_training_rows(config.train, base.manifest.tiers)
    for line in dpo.pairs_file(config).read_text().splitlines():
        pair = json.loads(line)
        explained = base.answers.tier(rows[pair["row"]]) == 3
        assert (len(pair["chosen_ids"]) > 1) is explained
        assert explained or len(pair["rejected_ids"]) == 1


def test_a_refused_row_is_taught_without_words(
    run_settings: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that the teacher does not take keeps its label against the wrong one, and the run says so."""

    def refused(*_: object, **__: object) -> Rationale:
        raise RequestRefusedError("filtered")

    config = DpoConfig(**run_settings(rows=8, samples=2), teacher=Endpoint(url="http://nowhere/v1", model="m"))
    config.output.mkdir()
    monkeypatch.setattr(dpo, "teacher_answer", refused)
    monkeypatch.setattr(dpo, "choose_pair", lambda *_: PairChoice(None, 0))
    dpo.make_pairs(open_base(config), config, lambda *_: None)
    lines = dpo.pairs_file(config).read_text().splitlines()
    assert lines
    assert all(len(json.loads(line)["chosen_ids"]) == 1 for line in lines)
    assert "filtered" in caplog.text


def test_stage(run_settings: Callable[..., dict[str, Any]]) -> None:
    """Pairs hold right answers against wrong ones, the first loss is log 2, and the checkpoint tells pass@N."""
    config = DpoConfig(
        **run_settings(rows=8, context=True, samples=2, max_steps=3, warmup_share=0, learning_rate=1e-3, batch_size=16)
    )
    base = open_base(config)
    run.prepared(config, "dpo")
    trainer = dpo.trainer(base, config, lambda *_: None)
    pairs = [json.loads(line) for line in dpo.pairs_file(config).read_text().splitlines()]
    assert len(pairs) > 8  # every row is asked with its context and without
    for pair in pairs:
        assert base.answers.said(pair["chosen_ids"]).tier != base.answers.said(pair["rejected_ids"]).tier
    run.train(trainer, config)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    start = torch.zeros(1)
    assert losses[0] == pytest.approx(dpo_loss(start, start, start, start, 0.1).item(), abs=1e-3)
    assert losses[-1] < losses[0]
    finish.finish(trainer, base, config, {"method": "dpo", **dpo.record(config)})
    remembered = load_manifest(config.output / finish.CHECKPOINT).training
    assert remembered["pass_at"]["pass@1"] <= remembered["pass_at"]["pass@2"]
    before = dpo.pairs_file(config).stat().st_mtime_ns
    dpo.trainer(open_base(config), config, lambda *_: None)
    assert dpo.pairs_file(config).stat().st_mtime_ns == before
