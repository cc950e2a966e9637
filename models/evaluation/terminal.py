"""A report as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from models.evaluation.blocks import (
    ATTACK_HEAD,
    NOTHING,
    PROBE_HEAD,
    attack_cells,
    consistency_line,
    figure_label,
    interval,
    number,
    probe_cells,
    signed,
)
from models.evaluation.reports import AttackReport, Calibration, Comparison, Evaluation, ProbeReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from models.evaluation.bootstrap import Estimate
    from models.evaluation.reports import AttackFigures, Data, Difference, Flip, Report, Subject, System

FLIPS = 10


def render(report: Report) -> RenderableType:
    """The report's main figures."""
    match report:
        case Evaluation():
            parts = _evaluation(report)
        case Comparison():
            parts = _comparison(report)
        case Calibration():
            parts = _calibration(report)
        case AttackReport():
            parts = _attacks(report)
        case ProbeReport():
            parts = _probes(report)
    return Group(*parts)


def _evaluation(report: Evaluation) -> list[RenderableType]:
    rate = report.data.pairs / report.seconds if report.seconds else 0.0
    cost = f"{report.seconds:.1f} s, {rate:.0f} pairs/s; {report.truncated:,} pairs had a field cut to its budget"
    return [
        _subject(report.subject),
        _data(report.data),
        *_figures(report.systems),
        *_differences(report.differences),
        Text(cost, style="dim"),
    ]


def _comparison(report: Comparison) -> list[RenderableType]:
    good, same, bad = report.good_same_bad
    counts = report.flip_counts
    flipped = ", ".join(f"{counts[n]} {n}" for n in ("better", "worse", "neither"))
    told = (
        f"GSB {signed(report.gsb.value)} {interval(report.gsb)}: {good} good, {same} same, {bad} bad. "
        f"Tiers flipped: {flipped}; {counts['band']} across bands."
    )
    return [
        _subject(report.a),
        _subject(report.b),
        _data(report.data),
        *_figures(report.systems),
        *_differences([report.difference]),
        Text(told),
        _flips(report.flips[:FLIPS]),
    ]


def _calibration(report: Calibration) -> list[RenderableType]:
    table = Table("", "beta", "temperature", "macro-F1", "accuracy", "log-loss", "calibration error", box=SIMPLE_HEAD)
    for name, c in (("current", report.current), ("chosen", report.chosen)):
        figures = map(number, (c.macro_f1, c.accuracy, c.log_loss, c.calibration_error))
        table.add_row(name, f"{c.beta:.2f}", f"{c.temperature:g}", *figures)
    neighbours = Table("neighbouring tiers", "pairs", "AUC", box=SIMPLE_HEAD)
    for s in report.separation:
        auc = f"{number(s.auc.value)} {interval(s.auc)}"
        neighbours.add_row(Text(f"{s.better} over {s.worse}"), f"{s.pairs[0]} / {s.pairs[1]}", Text(auc))
    parts: list[RenderableType] = [_subject(report.subject), _data(report.data), neighbours, table]
    if cross := report.cross_fit:
        betas = ", ".join(f"{b:.2f}" for b in cross.betas)
        parts += [
            Text(
                f"Human grades, reported only: folds would choose beta {betas}; macro-F1 {number(cross.macro_f1)} "
                f"cross-fitted, {number(cross.macro_f1_at_chosen)} at the chosen setting, "
                f"{number(cross.macro_f1_at_current)} at the current one."
            ),
            _data(cross.data),
        ]
    return parts


def _attacks(report: AttackReport) -> list[RenderableType]:
    tried = f"{report.attacks} attacks on {report.items - report.already_good} Irrelevant items"
    left = f"{report.already_good} of {report.items} were Good before any attack and are left out"
    verdict = Text("passed", style="bold green") if report.passed else Text("FAILED", style="bold red")
    return [
        _subject(report.subject),
        Text(f"{tried}; {left}."),
        _attack_table("kind", [*report.by_kind, report.overall, report.stuffing]),
        _attack_table("place", report.by_place),
        *(Text(f"crash: {text}", style="red") for text in report.crashes),
        *(Text(f"reserved id: {text}", style="red") for text in report.reserved),
        Text.assemble(f"Lifted {report.overall.share:.2%} of trials, limit {report.limit:.0%}: ", verdict),
    ]


def _probes(report: ProbeReport) -> list[RenderableType]:
    table = Table(*PROBE_HEAD, box=SIMPLE_HEAD)
    for figures in report.by_chunk:
        table.add_row(*(Text(cell) for cell in probe_cells(figures)))
    return [_subject(report.subject), _data(report.data), table, Text(consistency_line(report))]


def _subject(subject: Subject) -> Text:
    index = f", knowledge {subject.index}" if subject.index else ", no knowledge"
    settings = f"prompt {subject.prompt}, beta {subject.beta:g}, temperature {subject.temperature:g}"
    return Text(f"{subject.checkpoint} on {subject.engine}, {settings}{index}", style="bold")


def _data(data: Data) -> Text:
    counts = " / ".join(f"{c:,}" for c in data.tier_counts)
    told = f"{data.name}: {data.pairs:,} pairs, {data.queries:,} queries in {data.clusters:,} clusters"
    return Text(f"{told}; tiers best first {counts}; {data.with_chunk:,} with a chunk", style="dim")


def _figures(systems: Sequence[System]) -> list[RenderableType]:
    """Figures that all have side by side; below, what only judges have."""
    known = [s for s in systems if s.figures]
    common = set.intersection(*(set(s.figures) for s in known))
    parts: list[RenderableType] = []
    for shared in (True, False):
        names = [n for n in dict.fromkeys(n for s in known for n in s.figures) if (n in common) == shared]
        shown = [s for s in known if any(n in s.figures for n in names)]
        if names:
            table = Table("ranking" if shared else "tiers", *(Column(escape(s.name)) for s in shown), box=SIMPLE_HEAD)
            for name in names:
                table.add_row(Text(figure_label(name)), *(_estimate(s.figures.get(name, NOTHING)) for s in shown))
            parts.append(table)
    return [*parts, *(Text(f"{s.name}: {s.note}", style="yellow") for s in systems if s.note)]


def _differences(found: Sequence[Difference]) -> list[RenderableType]:
    """Paired differences of one system to the others; bold where the interval excludes zero."""
    if not found:
        return []
    heads = (Column(escape(f"minus {d.second}")) for d in found)
    table = Table(Column(escape(f"{found[0].first}, paired")), *heads, box=SIMPLE_HEAD)
    for name in found[0].figures:
        table.add_row(Text(figure_label(name)), *(_estimate(d.figures[name], sign=True) for d in found))
    return [table, Text("Brackets: 95 % interval over query clusters. Bold: it excludes zero.", style="dim")]


def _estimate(e: Estimate, *, sign: bool = False) -> Text:
    style = "bold" if sign and e.excludes_zero else ""
    return Text.assemble((signed(e.value) if sign else number(e.value), style), "\n", (interval(e), "dim"))


def _flips(flips: Sequence[Flip]) -> RenderableType:
    table = Table(
        "worst flips", Column("item", no_wrap=True, ratio=1), "true", "A", "B", "harm", box=SIMPLE_HEAD, expand=True
    )
    for f in flips:
        cells = (f.a.query, f.a.title, f.a.truth, f.a.predicted, f.b.predicted, f"{f.harm:+d}")
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _attack_table(heading: str, rows: Sequence[AttackFigures]) -> RenderableType:
    table = Table(heading, *ATTACK_HEAD, box=SIMPLE_HEAD)
    for r in rows:
        table.add_row(Text(r.kind), *attack_cells(r))
    return table
