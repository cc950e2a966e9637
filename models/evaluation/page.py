"""A report as one HTML file that needs nothing else: styles and plots inside, no script, every text escaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from models.evaluation import blocks, charts
from models.evaluation.blocks import figure_label, interval, number, plot, plots, section, signed, tiles
from models.evaluation.markup import Markup, element
from models.evaluation.reports import AttackReport, Calibration, Comparison, Evaluation, ProbeReport

if TYPE_CHECKING:
    from models.evaluation.reports import CrossFit, Report

_STYLE: Final = Path(__file__).with_name("page.css")
_HEAD: Final = Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">')
_BINS: Final = "ten bins of equal mass; a dot's area is its share of the pairs"


def render(report: Report) -> str:
    """The whole page."""
    match report:
        case Evaluation():
            title, body = f"Evaluation of {report.subject.checkpoint}", _evaluation(report)
        case Comparison():
            title, body = f"{report.b.checkpoint} against {report.a.checkpoint}", _comparison(report)
        case Calibration():
            title, body = f"Calibration of {report.subject.checkpoint}", _calibration(report)
        case AttackReport():
            title, body = f"Attacks on {report.subject.checkpoint}", _attacks(report)
        case ProbeReport():
            title, body = f"Context probes of {report.subject.checkpoint}", _probes(report)
    style = element("style", Markup(_STYLE.read_text(encoding="utf-8")))
    head = element("head", _HEAD, element("title", title), style)
    return f"<!doctype html>\n{element('html', head, element('body', element('h1', title), *body), lang='en')}\n"


def _evaluation(report: Evaluation) -> list[Markup]:
    subject, figures = report.subject, report.systems[0].figures
    heads = [(n, figures[n]) for n in ("ndcg@10", "auc", "macro_f1", "accuracy", "calibration_error")]
    return [
        blocks.subject_line(subject),
        blocks.data_line(report.data),
        tiles({figure_label(n): (number(e.value), interval(e)) for n, e in heads}),
        section(
            "Figures",
            "Below each figure its 95 % interval by bootstrap over query clusters.",
            blocks.figures_table(report.systems, shared=True),
        ),
        blocks.difference_plots(report.differences),
        section(
            "Tiers",
            "",
            blocks.figures_table(report.systems, shared=False),
            plots(
                plot(
                    "Confusion, cumulative", f"beta {subject.beta:g}", charts.heatmap(report.confusion, subject.tiers)
                ),
                plot("Confusion, argmax", "likeliest tier", charts.heatmap(report.confusion_argmax, subject.tiers)),
                plot("Reliability", _BINS, charts.reliability_chart({"Good": report.reliability})),
                plot(
                    "Beta sweep",
                    "on these pairs, for information: nothing is chosen here",
                    charts.sweep_chart({"these pairs": report.sweep}, [("in use", subject.beta)]),
                ),
                plot(
                    "Score by true tier",
                    "each tier scaled to its own highest bar",
                    charts.distribution_chart(report.histograms, subject.tiers),
                ),
            ),
        ),
        section(
            "Worst errors",
            "Wrong tiers, farthest score first, three of a query at most.",
            blocks.pairs_table(report.worst, subject.tiers),
        ),
    ]


def _comparison(report: Comparison) -> list[Markup]:
    names = [s.name for s in report.systems]
    counts, changed = report.flip_counts, report.difference.figures
    good, same, bad = report.good_same_bad
    flipped = sum(counts[n] for n in ("better", "worse", "neither"))
    betas = [("A", report.a.beta), ("B", report.b.beta)]
    return [
        blocks.subject_line(report.a, "A: "),
        blocks.subject_line(report.b, "B: "),
        blocks.data_line(report.data),
        tiles(
            {
                **{
                    f"{figure_label(n)}, B - A": (signed(changed[n].value), interval(changed[n]))
                    for n in ("ndcg@10", "macro_f1")
                },
                "GSB of B's first pages": (signed(report.gsb.value), f"{good} good, {same} same, {bad} bad"),
                "tiers flipped": (flipped, f"{counts['better']} better, {counts['worse']} worse"),
                "bands flipped": (counts["band"], f"of {report.data.pairs:,} pairs"),
            }
        ),
        section("Figures", "", blocks.figures_table(report.systems, shared=True)),
        blocks.difference_plots([report.difference]),
        section(
            "Tiers",
            "",
            plots(
                *(
                    plot(f"Confusion of {name}", "cumulative tiers", charts.heatmap(matrix, report.a.tiers))
                    for name, matrix in zip(names, report.confusion, strict=True)
                ),
                plot(
                    "Reliability",
                    _BINS,
                    charts.reliability_chart(dict(zip(names, report.reliability, strict=True))),
                ),
                plot(
                    "Beta sweep",
                    "for information: nothing is chosen here",
                    charts.sweep_chart(dict(zip(names, report.sweeps, strict=True)), betas),
                ),
            ),
        ),
        section("Flips", "What B made worse first, then by how far the score moved.", blocks.flips_table(report.flips)),
    ]


def _calibration(report: Calibration) -> list[Markup]:
    chosen, current = report.chosen, report.current
    written = ("written", "into tierwise.json") if report.written else ("unchanged", "--write puts the choice into it")
    reliability = {"chosen": report.reliability, "current": report.reliability_before}
    parts = [
        blocks.subject_line(report.subject),
        blocks.data_line(report.data),
        tiles(
            {
                "beta": (f"{chosen.beta:.2f}", f"was {current.beta:.2f}"),
                "temperature": (f"{chosen.temperature:g}", f"was {current.temperature:g}"),
                "macro-F1": (number(chosen.macro_f1), f"was {number(current.macro_f1)}"),
                "manifest": written,
            }
        ),
        section("Before and after", "", blocks.choices_table({"current": current, "chosen": chosen})),
        section("Do the tiers separate?", "", blocks.separation_table(report.separation)),
        section(
            "Plots",
            "",
            plots(
                plot(
                    "Beta sweep",
                    "under the chosen temperature",
                    charts.sweep_chart({"labelled pairs": report.sweep}, [("chosen", chosen.beta)]),
                ),
                plot("Reliability", _BINS, charts.reliability_chart(reliability)),
            ),
        ),
    ]
    return [*parts, _cross_fit(report.cross_fit)] if report.cross_fit else parts


def _cross_fit(cross: CrossFit) -> Markup:
    head = ["betas of the folds", "macro-F1 cross-fitted", "at the chosen setting", "at the current setting"]
    figures = (cross.macro_f1, cross.macro_f1_at_chosen, cross.macro_f1_at_current)
    return section(
        "What human grades would have chosen",
        "Each fold of query clusters is judged with the beta of the other folds. Reported, never shipped.",
        blocks.table(head, [[", ".join(f"{b:.2f}" for b in cross.betas), *map(number, figures)]]),
        blocks.data_line(cross.data),
    )


def _attacks(report: AttackReport) -> list[Markup]:
    word, class_ = ("passed", "verdict pass") if report.passed else ("failed", "verdict fail")
    tried = f"{report.attacks} attacks on {report.items - report.already_good} Irrelevant items: "
    found = {"Crashes": report.crashes, "Reserved ids": report.reserved}
    lifted = [[w.attack, w.query, w.title, f"{w.before:.3f}", f"{w.after:.3f}"] for w in report.worst]
    parts = [
        blocks.subject_line(report.subject),
        element("p", tried, element("span", word, class_=class_), "."),
        tiles(
            {
                "lifted to a Good band": (f"{report.overall.share:.2%}", f"limit {report.limit:.0%}"),
                "crashes": (len(report.crashes), "attacks"),
                "reserved ids": (len(report.reserved), "attacks"),
                "Good before any attack": (report.already_good, f"of {report.items}, left out"),
            }
        ),
        section("By kind", "", blocks.attack_table([*report.by_kind, report.overall, report.stuffing])),
        section("By place", "Keyword stuffing left out.", blocks.attack_table(report.by_place)),
        *(
            section(name, "", element("ul", *(element("li", t) for t in texts)))
            for name, texts in found.items()
            if texts
        ),
    ]
    if lifted:
        head = ["attack", "query", "item", "score before", "after"]
        parts.append(section("Lifted furthest", "", blocks.table(head, lifted)))
    return parts


def _probes(report: ProbeReport) -> list[Markup]:
    heads = {f.chunk: f for f in report.by_chunk}
    changes = [(f"{f.chunk} minus none", f.change) for f in report.by_chunk if f.change is not None]
    return [
        blocks.subject_line(report.subject),
        blocks.data_line(report.data),
        tiles({f"accuracy, {n}": (number(f.accuracy.value), interval(f.accuracy)) for n, f in heads.items()}),
        section(
            "What a chunk does",
            "Below, differences on the same probes; coloured where the interval excludes zero.",
            blocks.table(blocks.PROBE_HEAD, [blocks.probe_cells(f) for f in report.by_chunk]),
            plots(plot("Accuracy against no chunk", "cumulative tiers", charts.forest_chart(changes))),
        ),
        section("Rationales", "", element("p", blocks.consistency_line(report))),
        section(
            "Misled",
            "Right without a chunk, wrong with the misleading one.",
            blocks.pairs_table(report.misled, report.subject.tiers),
        ),
    ]
