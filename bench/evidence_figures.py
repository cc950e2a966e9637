"""Figures of one checkpoint for the table of evidence.

Draws are kept with the figures, so that rows can be subtracted later: all rows are measured on the same pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.catalogue import read_catalogue
from models.engines.onnx import OnnxEngine
from models.evaluation.calibration import choose
from models.evaluation.figures import judged_pairs, measure, rule_consistency
from models.evaluation.pairs import read_judgements, read_labelled
from models.evaluation.probes import probe_figures, read_probes
from models.evaluation.scoring import Judge
from models.manifest import load_manifest
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.evaluation.bootstrap import Draws

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the pairs are: the folder of generated rows, and human grades with their catalogue, if there are any."""

    rows: Path
    judgements: Path | None
    catalogue: Path


async def measured(checkpoint: Path, sources: Sources) -> dict[str, Any]:
    """Every figure of a checkpoint on the int8 engine, as it is served: {table: {figure: {value, samples}}}.

    Beta and temperature are chosen on the calibration rows, as `tierwise calibrate` does.
    """
    manifest = load_manifest(checkpoint)
    tokenizer = FieldTokenizer(checkpoint)
    engine = OnnxEngine.load(checkpoint, manifest, precision="int8")
    try:
        await engine.warm_up()
        judge = Judge(manifest, tokenizer, PromptWriter(manifest, tokenizer), engine)
        pairs = read_labelled(sources.rows / "calibration.jsonl", manifest.tiers)
        sample, scored, _ = await judged_pairs(judge, pairs)
        beta, temperature = choose(sample, scored.logprobs)
        manifest = manifest.model_copy(update={"beta": beta, "temperature": temperature})
        judge = Judge(manifest, tokenizer, judge.writer, engine)
        labelled = read_labelled(sources.rows / "valid.jsonl", manifest.tiers)
        valid = await measure(judge, labelled, resamples=RESAMPLES)
        consistent = await rule_consistency(judge, labelled, valid.judged)
        probed = await probe_figures(
            judge, read_probes(sources.rows / "probes.jsonl", manifest.tiers), resamples=RESAMPLES, rationales=0
        )
        found: dict[str, Any] = {
            "beta": beta,
            "temperature": temperature,
            "rule_consistency": round(float(np.nanmean(consistent)), 4),
            "valid": _kept(valid.draws),
            "context": _kept(probed.accuracy),
        }
        if sources.judgements is not None:
            graded = read_judgements(sources.judgements, read_catalogue(sources.catalogue), len(manifest.tiers))
            found["dev"] = _kept((await measure(judge, graded, resamples=RESAMPLES)).draws)
    finally:
        await engine.close()
    return found


def _kept(draws: Mapping[str, Draws]) -> dict[str, Any]:
    return {
        name: {"value": round(d.value, 5), "samples": [round(float(s), 5) for s in d.samples]}
        for name, d in draws.items()
    }
