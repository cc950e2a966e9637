"""The pieces that report pages are put together from: head lines, tiles, tables, plots with their captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.evaluation import charts
from models.evaluation.bootstrap import Estimate
from models.evaluation.markup import Markup, element

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from models.evaluation.reports import (
        AttackFigures,
        Choice,
        ChunkFigures,
        Data,
        Difference,
        Flip,
        PairView,
        ProbeReport,
        Separation,
        Subject,
        System,
    )

NOTHING: Final = Estimate(value=None, low=None, high=None)  # a figure that a system does not have
LABELS: Final[Mapping[str, str]] = {
    "ndcg@10": "nDCG@10",
    "auc": "AUC, mean over queries",
    "auc_pooled": "AUC, all pairs",
    "query_goodrate": "Query Goodrate",
    "item_goodrate": "Item Goodrate",
    "macro_f1": "macro-F1, cumulative",
    "macro_f1_argmax": "macro-F1, argmax",
    "accuracy": "accuracy, cumulative",
    "accuracy_argmax": "accuracy, argmax",
    "quadratic_kappa": "quadratic kappa",
    "calibration_error": "calibration error (Good)",
}


def figure_label(name: str) -> str:
    """A figure's name for readers."""
    return LABELS.get(name, name.replace("f1 ", "F1 of "))


def subject_line(subject: Subject, before: str = "") -> Markup:
    """What was measured, on one line."""
    index = f", knowledge {subject.index}" if subject.index else ", no knowledge"
    settings = f"prompt {subject.prompt}, beta {subject.beta:g}, temperature {subject.temperature:g}"
    return element("p", f"{before}{subject.checkpoint} on {subject.engine}, {settings}{index}", class_="dim")


def data_line(data: Data) -> Markup:
    """On what, on one line."""
    counts = " / ".join(f"{c:,}" for c in data.tier_counts)
    told = f"{data.name}: {data.pairs:,} pairs, {data.queries:,} queries in {data.clusters:,} clusters"
    chunk = f", {data.with_chunk:,} with a chunk" if data.with_chunk else ""
    return element("p", f"{told}{chunk}; tiers best first {counts}; sha256 {data.sha256[:12]}", class_="dim")


def section(title: str, note: str, *content: Markup) -> Markup:
    """A heading, a remark if there is one, and what follows."""
    remark = [element("p", note, class_="dim")] if note else []
    return Markup.of([element("h2", title), *remark, *content])


def tiles(shown: Mapping[str, tuple[object, str]]) -> Markup:
    """Numbers with their name above and a note below."""
    return element(
        "div",
        *(
            element("div", element("small", name), element("b", value), element("small", note), class_="tile")
            for name, (value, note) in shown.items()
        ),
        class_="tiles",
    )


def plots(*figures: Markup) -> Markup:
    """Plots side by side as far as they fit."""
    return element("div", *figures, class_="plots")


def plot(title: str, note: str, chart: Markup) -> Markup:
    """A chart with its caption."""
    return element("figure", element("figcaption", title, element("small", note, class_="dim")), chart)


def figures_table(systems: Sequence[System], *, shared: bool) -> Markup:
    """Figures side by side, intervals below: those that every system has, or those that only judges have."""
    known = [s for s in systems if s.figures]
    common = set.intersection(*(set(s.figures) for s in known))
    names = [n for n in dict.fromkeys(n for s in known for n in s.figures) if (n in common) == shared]
    shown = [s for s in known if any(n in s.figures for n in names)]
    head = element("tr", element("th", "figure"), *(element("th", s.name, class_="number") for s in shown))
    rows = (
        element("tr", element("td", figure_label(n), class_="name"), *(_cell(s.figures.get(n, NOTHING)) for s in shown))
        for n in names
    )
    notes = (element("p", f"{s.name}: {s.note}", class_="dim") for s in systems if s.note and shared)
    return Markup.of([element("div", element("table", head, *rows), class_="wide"), *notes]) if names else Markup()


def _cell(estimate: Estimate) -> Markup:
    return element("td", number(estimate.value), element("small", interval(estimate), class_="dim"), class_="number")


def difference_plots(differences: Iterable[Difference]) -> Markup:
    """A forest plot for each paired difference, under one heading."""
    note = "Coloured where the interval excludes zero. For the calibration error, lower is better."
    shown = [
        plot(
            f"{d.first} minus {d.second}",
            "",
            charts.forest_chart([(figure_label(name), e) for name, e in d.figures.items()]),
        )
        for d in differences
    ]
    return section("Paired differences", note, plots(*shown)) if shown else Markup()


def pairs_table(pairs: Sequence[PairView], tiers: Sequence[str]) -> Markup:
    """Pairs with their verdicts, rationale and chunk."""
    head = ["query", "item", "true", "predicted", "probabilities, best first", "why"]
    return table(head, [[p.query, _item(p), p.truth, p.predicted, _probabilities(p, tiers), _why(p)] for p in pairs])


def flips_table(flips: Sequence[Flip]) -> Markup:
    """Pairs whose tier differs between A and B."""
    rows = [
        [
            f.a.query,
            _item(f.a),
            f.a.truth,
            f"{f.a.predicted} ({f.a.score:.2f})",
            f"{f.b.predicted} ({f.b.score:.2f})",
            f"{f.harm:+d}",
        ]
        for f in flips
    ]
    return table(["query", "item", "true", "A", "B", "harm in tiers"], rows)


def _item(pair: PairView) -> Markup:
    return Markup.of([pair.title, element("br"), element("small", f"{pair.id} {pair.brand}")])


def _probabilities(pair: PairView, tiers: Sequence[str]) -> Markup:
    told = f"score {pair.score:.3f}, margin {pair.margin:.3f}"
    return Markup.of([charts.probability_bar(pair.probabilities, tiers), element("small", told)])


def _why(pair: PairView) -> Markup:
    parts = []
    if pair.rationale:
        parts.append(element("details", element("summary", "rationale"), element("pre", pair.rationale)))
    if pair.chunk:
        parts.append(element("details", element("summary", "chunk"), element("pre", pair.chunk)))
    return Markup.of(parts)


def choices_table(choices: Mapping[str, Choice]) -> Markup:
    """What each setting gives."""
    head = ["", "beta", "temperature", "macro-F1", "accuracy", "log-loss", "calibration error"]
    rows = [
        [
            name,
            f"{c.beta:.2f}",
            f"{c.temperature:g}",
            number(c.macro_f1),
            number(c.accuracy),
            number(c.log_loss),
            number(c.calibration_error),
        ]
        for name, c in choices.items()
    ]
    return table(head, rows)


def separation_table(found: Sequence[Separation]) -> Markup:
    """Neighbouring tiers and how well scores keep them apart."""
    rows = [
        [f"{s.better} over {s.worse}", f"{s.pairs[0]} / {s.pairs[1]}", f"{number(s.auc.value)} {interval(s.auc)}"]
        for s in found
    ]
    return table(["neighbours", "pairs", "AUC"], rows)


ATTACK_HEAD: Final = ("attacks", "trials", "lifted", "share", "mean rise", "highest rise")


def attack_cells(figures: AttackFigures) -> list[str]:
    """A row under `ATTACK_HEAD`; a rise is of the score, in [0, 1]."""
    counts = (f"{n:,}" for n in (figures.attacks, figures.trials, figures.lifted))
    return [*counts, f"{figures.share:.2%}", signed(figures.rise), signed(figures.highest)]


def attack_table(rows: Iterable[AttackFigures]) -> Markup:
    """Trials and lifted items, a row each."""
    return table(["", *ATTACK_HEAD], [[r.kind, *attack_cells(r)] for r in rows])


PROBE_HEAD: Final = ("chunk", "rows", "accuracy", "minus none, paired", "accuracy, argmax", "minus none, paired")


def probe_cells(f: ChunkFigures) -> list[str]:
    """A row under `PROBE_HEAD`."""
    return [
        f.chunk,
        f"{f.rows:,}",
        f"{number(f.accuracy.value)} {interval(f.accuracy)}",
        f"{signed(f.change.value)} {interval(f.change)}" if f.change else "",
        f"{number(f.accuracy_argmax.value)} {interval(f.accuracy_argmax)}",
        f"{signed(f.change_argmax.value)} {interval(f.change_argmax)}" if f.change_argmax else "",
    ]


def consistency_line(report: ProbeReport) -> str:
    """Rule consistency in words."""
    e = report.rule_consistency
    if e.value is None:
        return "No rationale could be decoded: rule consistency is unknown."
    told = f"{number(e.value)} {interval(e)} of {report.decoded:,} decoded rationales"
    return f"Rule consistency: {told} give verdicts that allow their own tier."


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """A plain table; cells are escaped unless they are Markup, and the second column may be long."""
    first = element("tr", *(element("th", h) for h in head))
    rest = [
        element("tr", *(element("td", cell, class_="words" if i == 1 else None) for i, cell in enumerate(row)))
        for row in rows
    ]
    return element("div", element("table", first, *rest), class_="wide")


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Three digits with a sign, or a dash."""
    return "-" if value is None else f"{value:+.3f}"


def interval(estimate: Estimate) -> str:
    """`[low, high]`, or nothing."""
    return "" if estimate.low is None or estimate.high is None else f"[{estimate.low:.3f}, {estimate.high:.3f}]"
