"""The three measurements from start to report: evaluate, compare, calibrate. No files, no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models import tiers
from models.evaluation import calibration, raters
from models.evaluation.bootstrap import RESAMPLES, Bootstrap
from models.evaluation.compare import flip_counts, flips, side_by_side
from models.evaluation.evaluate import (
    Judged,
    difference,
    histograms,
    integer_confusion,
    is_good,
    pair_view,
    ranking_statistics,
    reliability,
    sweep,
    system,
    worst_first,
)
from models.evaluation.figures import judged_pairs, measure
from models.evaluation.pairs import Sample
from models.evaluation.progress import counting
from models.evaluation.reports import Calibration, Comparison, CrossFit, Data, Evaluation, Subject, System
from models.evaluation.scoring import rationale_of, score_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from models.evaluation.pairs import LabelledPair
    from models.evaluation.progress import Progress
    from models.evaluation.scoring import Judge

    Ranking = NDArray[np.float64] | str  # scores [n], or why there are none

WORST = 25


def subject_of(judge: Judge, index: str | None) -> Subject:
    """Every version that can move a figure."""
    m = judge.manifest
    return Subject(
        checkpoint=m.checkpoint_id,
        engine=judge.engine.name,
        prompt=m.prompt_hash,
        beta=m.beta,
        temperature=m.temperature,
        index=index,
        tiers=tuple(t.name for t in m.tiers),
    )


def data_of(name: str, sha256: str, pairs: Sequence[LabelledPair], tier_count: int) -> Data:
    """What the pairs are."""
    return Data(
        name=name,
        sha256=sha256,
        pairs=len(pairs),
        queries=len({p.query for p in pairs}),
        clusters=len({p.cluster for p in pairs}),
        tier_counts=tuple(int(c) for c in np.bincount([p.tier for p in pairs], minlength=tier_count)),
        with_chunk=sum(p.chunk is not None for p in pairs),
    )


async def evaluate(
    judge: Judge,
    pairs: Sequence[LabelledPair],
    data: Data,
    rankings: Mapping[str, Ranking],
    progress: Progress,
    *,
    index: str | None = None,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Score pairs, and set the judge beside other rankings of the same pairs.

    Args:
        judge: checkpoint and warm engine.
        pairs: n labelled pairs.
        data: goes into the report.
        rankings: baseline -> its scores [n], or the reason why there are none.
        progress: told of every stage.
        index: version of the knowledge that the pairs' chunks are from.
        resamples: of the bootstrap.

    Raises:
        EngineError: the engine did not answer for a pair.
    """
    found = await measure(judge, pairs, resamples=resamples, progress=progress)
    sample, scored, judged, own = found.sample, found.scored, found.judged, found.draws
    good = is_good(sample, judge.manifest)
    bootstrap = Bootstrap(sample.clusters, resamples=resamples)
    known = {name: scores for name, scores in rankings.items() if not isinstance(scores, str)}
    count = counting(progress, "bootstrap, others", resamples * len(known))
    others = {name: bootstrap.draw(ranking_statistics(sample, scores, good), count) for name, scores in known.items()}
    worst = []
    rows = worst_first(sample, judged, limit=WORST)
    for done, row in enumerate(rows, start=1):
        rationale = await rationale_of(judge, pairs[row], int(judged.verdicts.tiers[row]))
        worst.append(pair_view(pairs[row], row, judged, rationale))
        progress("rationales", done, len(rows))
    name = judge.manifest.name
    people = [
        system(line, human[0], f"{note}, {human[1]:,} pairs")
        for line, note in raters.NOTES.items()
        if (human := raters.rater_draws(pairs, judge.manifest, line, resamples=resamples, progress=progress))
    ]
    absent = [System(name=n, figures={}, note=why) for n, why in rankings.items() if isinstance(why, str)]
    return Evaluation(
        subject=subject_of(judge, index),
        data=data,
        systems=(system(name, own), *(system(n, draws) for n, draws in others.items()), *people, *absent),
        differences=tuple(difference(name, n, own, draws) for n, draws in others.items()),
        confusion=integer_confusion(sample, judged.verdicts.tiers),
        confusion_argmax=integer_confusion(sample, judged.argmax),
        reliability=reliability(judged.good_probability, good),
        sweep=sweep(sample, judged.verdicts.probabilities),
        histograms=histograms(sample, judged.scores),
        worst=tuple(worst),
        truncated=scored.truncated,
        tokens=scored.tokens,
        seconds=scored.seconds,
    )


async def compare(
    a: Judge,
    b: Judge,
    pairs: tuple[Sequence[LabelledPair], Sequence[LabelledPair]],
    data: Data,
    progress: Progress,
    *,
    indexes: tuple[str | None, str | None] = (None, None),
    resamples: int = RESAMPLES,
) -> Comparison:
    """Score the same pairs with two judges by the same tiers; differences are B minus A.

    Args:
        a: the judge in use.
        b: its candidate successor.
        pairs: as A and as B read them: the same queries, items and tiers, perhaps other chunks.
        data: goes into the report.
        progress: told of every stage.
        indexes: versions of the knowledge that the chunks of A's and B's pairs are from.
        resamples: of the bootstrap.

    Raises:
        EngineError: an engine did not answer for a pair.
    """
    found = [
        await measure(judge, own, resamples=resamples, progress=_of(progress, name))
        for judge, own, name in zip((a, b), pairs, "AB", strict=True)
    ]
    sample, judged, draws = found[0].sample, [f.judged for f in found], [f.draws for f in found]
    bootstrap = Bootstrap(sample.clusters, resamples=resamples)
    count = counting(progress, "bootstrap pages", resamples)
    verdict, gsb = side_by_side(sample, judged[0].scores, judged[1].scores)
    names = [f"A {a.manifest.name}", f"B {b.manifest.name}"]
    return Comparison(
        a=subject_of(a, indexes[0]),
        b=subject_of(b, indexes[1]),
        data=data,
        systems=tuple(system(name, d) for name, d in zip(names, draws, strict=True)),
        difference=difference("B", "A", draws[1], draws[0]),
        gsb=bootstrap.draw({"gsb": gsb}, count)["gsb"].estimate(),
        good_same_bad=(int((verdict > 0).sum()), int((verdict == 0).sum()), int((verdict < 0).sum())),
        flips=flips(pairs[1], sample, *judged),
        flip_counts=flip_counts(sample, *judged),
        confusion=tuple(integer_confusion(sample, j.verdicts.tiers) for j in judged),
        sweeps=tuple(sweep(sample, j.verdicts.probabilities) for j in judged),
        reliability=tuple(reliability(j.good_probability, is_good(sample, j.manifest)) for j in judged),
    )


async def calibrate(
    judge: Judge,
    pairs: Sequence[LabelledPair],
    data: Data,
    progress: Progress,
    *,
    human: tuple[Sequence[LabelledPair], Data] | None = None,
    index: str | None = None,
) -> Calibration:
    """Choose temperature and beta on labelled pairs; human grades only show what they would have chosen.

    Raises:
        CalibrationError: the tiers do not separate, or there are too few pairs.
        EngineError: the engine did not answer for a pair.
    """
    manifest = judge.manifest
    sample, scored, before = await judged_pairs(judge, pairs, progress)
    logprobs = scored.logprobs
    separated = calibration.separation(sample, before.scores, manifest)
    calibration.check_separation(separated)
    beta, temperature = calibration.choose(sample, logprobs)
    after = Judged.of(manifest.model_copy(update={"beta": beta, "temperature": temperature}), logprobs)
    good = is_good(sample, manifest)
    cross = None
    if human is not None:
        graded = Sample.of(human[0], sample.tiers)
        found = await score_pairs(judge, human[0], counting(progress, "scoring judgements", len(human[0])))
        cross = _cross_fit(graded, found.logprobs, human[1], before=before, after=after)
    return Calibration(
        subject=subject_of(judge, index),
        data=data,
        current=calibration.choice(sample, logprobs, manifest, beta=manifest.beta, temperature=manifest.temperature),
        chosen=calibration.choice(sample, logprobs, manifest, beta=beta, temperature=temperature),
        separation=separated,
        sweep=sweep(sample, after.verdicts.probabilities),
        reliability=reliability(after.good_probability, good),
        reliability_before=reliability(before.good_probability, good),
        cross_fit=cross,
    )


def _cross_fit(graded: Sample, logprobs: NDArray[np.float32], data: Data, *, before: Judged, after: Judged) -> CrossFit:
    chosen = tiers.softmax(logprobs, after.manifest.temperature)
    current = tiers.softmax(logprobs, before.manifest.temperature)
    betas, macro_f1 = calibration.cross_fitted(graded, chosen)
    return CrossFit(
        data=data,
        betas=betas,
        macro_f1=macro_f1,
        macro_f1_at_chosen=calibration.macro_f1_at(graded, chosen, after.beta),
        macro_f1_at_current=calibration.macro_f1_at(graded, current, before.beta),
    )


def _of(progress: Progress, name: str) -> Progress:
    """The same with the judge's name behind each stage."""
    return lambda stage, done, total: progress(f"{stage} {name}", done, total)
