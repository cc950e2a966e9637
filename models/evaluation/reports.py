"""What a command found, as values: the JSON file is one of these, and the page and the terminal table are made from it.

Lists over tiers are best tier first. Figures are fractions, not percent.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from models.evaluation.bootstrap import Estimate

Figures = dict[str, Estimate]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Subject(_Frozen):
    """What was measured: every version that can move a figure."""

    checkpoint: str
    engine: str
    prompt: str
    beta: float
    temperature: float
    index: str | None = None
    tiers: tuple[str, ...]


class Data(_Frozen):
    """On what."""

    name: str
    sha256: str
    pairs: int
    queries: int
    clusters: int
    tier_counts: tuple[int, ...]
    with_chunk: int = 0


class System(_Frozen):
    """One ranking or judge and its figures. `note` says why there are none."""

    name: str
    figures: Figures
    note: str = ""


class Difference(_Frozen):
    """First minus second on the same pairs and resamples."""

    first: str
    second: str
    figures: Figures


class ReliabilityBin(_Frozen):
    """Pairs of alike predicted probability of the Good event."""

    predicted: float
    observed: float
    pairs: int


class SweepPoint(_Frozen):
    """Tier figures at one beta."""

    beta: float
    macro_f1: float
    accuracy: float


class PairView(_Frozen):
    """One pair as a reader sees it."""

    query: str
    id: str
    title: str
    brand: str = ""
    truth: str
    predicted: str
    score: float
    margin: float
    probabilities: tuple[float, ...]
    chunk: str | None = None
    rationale: str = ""


class Evaluation(_Frozen):
    """`tierwise eval`."""

    kind: Literal["evaluation"] = "evaluation"
    subject: Subject
    data: Data
    systems: tuple[System, ...]
    differences: tuple[Difference, ...]
    confusion: tuple[tuple[int, ...], ...]
    confusion_argmax: tuple[tuple[int, ...], ...]
    reliability: tuple[ReliabilityBin, ...]
    sweep: tuple[SweepPoint, ...]
    histograms: tuple[tuple[int, ...], ...]
    worst: tuple[PairView, ...]
    truncated: int
    tokens: int
    seconds: float


class Flip(_Frozen):
    """A pair whose tier differs between A and B. `harm` > 0: B is further from the true tier, in tiers."""

    a: PairView
    b: PairView
    harm: int


class Comparison(_Frozen):
    """`tierwise compare A B`."""

    kind: Literal["comparison"] = "comparison"
    a: Subject
    b: Subject
    data: Data
    systems: tuple[System, ...]
    difference: Difference
    gsb: Estimate
    good_same_bad: tuple[int, int, int]
    flips: tuple[Flip, ...]
    flip_counts: dict[str, int]
    confusion: tuple[tuple[tuple[int, ...], ...], ...]
    sweeps: tuple[tuple[SweepPoint, ...], ...]
    reliability: tuple[tuple[ReliabilityBin, ...], ...]


class Separation(_Frozen):
    """How well scores keep two neighbouring tiers apart: AUC of better against worse."""

    better: str
    worse: str
    pairs: tuple[int, int]
    auc: Estimate


class Choice(_Frozen):
    """One setting and what it gives on the calibration pairs."""

    beta: float
    temperature: float
    macro_f1: float
    accuracy: float
    log_loss: float
    calibration_error: float


class CrossFit(_Frozen):
    """What human grades would have chosen, each fold's beta from the other folds. Reported, never shipped."""

    data: Data
    betas: tuple[float, ...]
    macro_f1: float
    macro_f1_at_chosen: float
    macro_f1_at_current: float


class Calibration(_Frozen):
    """`tierwise calibrate`."""

    kind: Literal["calibration"] = "calibration"
    subject: Subject
    data: Data
    current: Choice
    chosen: Choice
    separation: tuple[Separation, ...]
    sweep: tuple[SweepPoint, ...]
    reliability: tuple[ReliabilityBin, ...]
    reliability_before: tuple[ReliabilityBin, ...]
    cross_fit: CrossFit | None = None
    written: bool = False


class AttackFigures(_Frozen):
    """One kind of attack. `lifted` of `trials` Irrelevant items came out in a Good band.

    `rise` and `highest` are the mean and the largest change of the score: how near the others came.
    """

    kind: str
    attacks: int
    trials: int
    lifted: int
    rise: float
    highest: float

    @property
    def share(self) -> float:
        """Lifted of all trials."""
        return self.lifted / self.trials if self.trials else 0.0


class LiftedItem(_Frozen):
    """An Irrelevant item that an attack made look Good."""

    attack: str
    query: str
    title: str
    before: float
    after: float


class AttackReport(_Frozen):
    """`tierwise eval --attacks`."""

    kind: Literal["attacks"] = "attacks"
    subject: Subject
    items: int
    already_good: int
    attacks: int
    limit: float
    overall: AttackFigures
    by_kind: tuple[AttackFigures, ...]
    by_place: tuple[AttackFigures, ...]
    stuffing: AttackFigures
    crashes: tuple[str, ...]
    reserved: tuple[str, ...]
    worst: tuple[LiftedItem, ...]

    @property
    def passed(self) -> bool:
        """No crash, no reserved id, and not more lifted than the limit allows."""
        return not self.crashes and not self.reserved and self.overall.share <= self.limit


class ChunkFigures(_Frozen):
    """Accuracy with one kind of chunk; `change` is it minus the accuracy without a chunk, paired over probes."""

    chunk: str
    rows: int
    accuracy: Estimate
    change: Estimate | None
    accuracy_argmax: Estimate
    change_argmax: Estimate | None


class ProbeReport(_Frozen):
    """`tierwise eval --probes`."""

    kind: Literal["probes"] = "probes"
    subject: Subject
    data: Data
    by_chunk: tuple[ChunkFigures, ...]
    rule_consistency: Estimate
    decoded: int
    misled: tuple[PairView, ...]


Report = Evaluation | Comparison | Calibration | AttackReport | ProbeReport
