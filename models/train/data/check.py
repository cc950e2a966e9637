"""`tierwise data check`: what is wrong with training data before a model learns it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.errors import DataError
from models.rows import read_rows
from models.train.data.schema import parse_row, query_words, tier_column

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.manifest import FieldName, Manifest
    from models.tokenizer import FieldTokenizer
    from models.train.data.schema import Row

_SHOWN: Final = 20  # findings of a kind that are listed; all are counted
_FIELDS: Final[tuple[FieldName, ...]] = (
    "query",
    "chunk",
    "title",
    "brand",
    "category",
    "attributes",
    "description",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at, where it is, and whether training on it would be wrong."""

    kind: str
    place: str
    message: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Length:
    """Lengths of a field: tokens with a checkpoint, characters without; `cut` is the share beyond the budget."""

    median: float
    p95: float
    longest: int
    cut: float | None


@dataclass(slots=True)
class Report:
    """What `tierwise data check` says.

    Attributes:
        rows: good rows in each file.
        tiers: rows of each tier.
        variation: coefficient of variation of the tiers' counts; 0 is balanced (2508.12365 ties quality to it).
        clusters: distinct clusters.
        unlabelled: rows without a tier.
        with_context: rows with a chunk.
        with_verdicts: rows with step verdicts.
        lengths: of each field that occurs.
        unit: of the lengths.
        counts: findings of each kind.
        findings: the first of each kind.
    """

    rows: dict[str, int] = field(default_factory=dict)
    tiers: dict[str, int] = field(default_factory=dict)
    variation: float = 0.0
    clusters: int = 0
    unlabelled: int = 0
    with_context: int = 0
    with_verdicts: int = 0
    lengths: dict[str, Length] = field(default_factory=dict)
    unit: str = "characters"
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def fatal(self) -> bool:
        """Whether anything was found that must not be trained on."""
        return any(f.fatal for f in self.findings)

    def add(self, finding: Finding) -> None:
        """Count a finding, and list it while there are few of its kind."""
        self.counts[finding.kind] = self.counts.get(finding.kind, 0) + 1
        if self.counts[finding.kind] <= _SHOWN:
            self.findings.append(finding)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "fatal": self.fatal}


def check(
    files: Sequence[Path], *, manifest: Manifest | None = None, tokenizer: FieldTokenizer | None = None
) -> Report:
    """Check files that are meant to be used together: several are the sides of a split.

    Bad rows, unknown tiers and leaks are fatal; duplicates, disagreements and cut fields are for a person to judge.

    Args:
        files: training data.
        manifest: its tiers are the ones allowed, its budgets the limit of lengths.
        tokenizer: counts tokens; goes with the manifest.

    Raises:
        DataError: a file that cannot be read at all.
    """
    report = Report()
    placed: list[tuple[str, str, Row]] = []
    for path in files:
        good = _good_rows(path, report)
        report.rows[path.name] = len(good)
        placed += [(path.name, place, row) for place, row in good]
    rows = [row for _, _, row in placed]
    report.unlabelled = sum(row.tier is None for row in rows)
    report.with_context = sum(row.context is not None for row in rows)
    report.with_verdicts = sum(row.verdicts is not None for row in rows)
    report.clusters = len({row.group for row in rows})
    _tiers(placed, manifest, report)
    _same_pairs(placed, report)
    _leaks(placed, report)
    _lengths(rows, manifest, tokenizer, report)
    return report


def _good_rows(path: Path, report: Report) -> list[tuple[str, Row]]:
    good = []
    for place, value in read_rows(path):
        try:
            good.append((place, parse_row(place, value)))
        except DataError as error:
            message = str(error).removeprefix(f"{place}: ")
            report.add(Finding("bad row", place, message, fatal=True))
    return good


def _tiers(placed: Sequence[tuple[str, str, Row]], manifest: Manifest | None, report: Report) -> None:
    counts: Counter[str] = Counter()
    for _, place, row in placed:
        if row.tier is None:
            continue
        name = row.tier
        if manifest is not None:
            column = tier_column(name, manifest.tiers)
            if column is None:
                known = ", ".join(t.name for t in manifest.tiers)
                report.add(Finding("unknown tier", place, f"no tier {name!r}; known are {known}", fatal=True))
                continue
            name = manifest.tiers[column].name
        counts[name] += 1
    names = [t.name for t in manifest.tiers] if manifest else sorted(counts, reverse=True)
    report.tiers = {name: counts[name] for name in names}
    values = np.array(list(report.tiers.values()), dtype=np.float64)
    report.variation = round(float(values.std() / values.mean()), 3) if values.sum() else 0.0
    for name, count in report.tiers.items():
        if counts and count == 0:
            report.add(Finding("missing tier", name, "no row has this tier; the model cannot learn it", fatal=False))


def _same_pairs(placed: Sequence[tuple[str, str, Row]], report: Report) -> None:
    seen: dict[tuple[str, str, str], tuple[str, Row]] = {}
    for _, place, row in placed:
        first = seen.setdefault(row.pair, (place, row))
        if first[0] == place:
            continue
        if first[1].tier == row.tier:
            if not row.rater or row.rater == first[1].rater:
                report.add(Finding("duplicate", place, f"the same pair as {first[0]}", fatal=False))
            continue
        raters = f" ({first[1].rater or 'unnamed'} and {row.rater or 'unnamed'})" if row.rater or first[1].rater else ""
        told = f"{row.tier}, but {first[1].tier} at {first[0]}{raters}"
        report.add(Finding("disagreement", place, told, fatal=False))


def _leaks(placed: Sequence[tuple[str, str, Row]], report: Report) -> None:
    home: dict[str, tuple[str, str]] = {}
    for file, place, row in placed:
        where = home.setdefault(row.group, (file, place))
        if where[0] != file:
            told = f"cluster {row.group!r} is also in {where[0]} ({where[1]}): the sides of a split share it"
            report.add(Finding("leak", place, told, fatal=True))
    clusters: dict[str, dict[str, str]] = defaultdict(dict)
    for _, place, row in placed:
        clusters[" ".join(query_words(row.query))].setdefault(row.group, place)
    for spelled, places in clusters.items():
        if spelled and len(places) > 1:
            (one, _), (other, place) = list(places.items())[:2]
            told = f"queries of the words {spelled!r} are in the clusters {one!r} and {other!r}: give them one cluster"
            report.add(Finding("torn cluster", place, told, fatal=True))


def _lengths(rows: Sequence[Row], manifest: Manifest | None, tokenizer: FieldTokenizer | None, report: Report) -> None:
    if manifest is not None and tokenizer is not None:
        report.unit = "tokens"
    for name in _FIELDS:
        texts = [t for t in (_field(row, name) for row in rows) if t]
        budget = manifest.prompt.budgets.get(name) if manifest else None
        if not texts or (manifest is not None and budget is None):
            continue
        if tokenizer is None or budget is None:
            lengths = np.array([len(t) for t in texts])
        else:
            # Counted up to four times the budget: what lies beyond is cut anyway.
            lengths = np.array([len(e.ids) for e in tokenizer.fields(texts, [4 * budget] * len(texts))])
        report.lengths[name] = Length(
            median=float(np.median(lengths)),
            p95=float(np.percentile(lengths, 95)),
            longest=int(lengths.max()),
            cut=round(float((lengths > budget).mean()), 4) if budget is not None and tokenizer else None,
        )


def _field(row: Row, name: str) -> str:
    if name == "query":
        return row.query
    if name == "chunk":
        return row.context or ""
    return str(getattr(row.item, name))
