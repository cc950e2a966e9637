"""Tests of the written report: nothing from outside gets in, and no text gets out of its element."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from rich.console import Console

from models.evaluation import charts, page, runs, terminal
from models.evaluation.attack_run import run_attacks
from models.evaluation.bootstrap import Estimate
from models.evaluation.markup import Markup, element
from models.evaluation.reports import ReliabilityBin, Report, SweepPoint
from models.prompt import Item

if TYPE_CHECKING:
    from models.evaluation.pairs import LabelledPair
    from models.evaluation.scoring import Judge

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202e\x00"
TIERS = ("4-Excellent", "3-Related", "2-Mismatch", "1-Irrelevant")


def silent(*_: object) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module", params=["evaluation", "comparison", "calibration", "attacks"])
def report(request: pytest.FixtureRequest, overlap_judge: Judge, labelled_pairs: list[LabelledPair]) -> Report:
    """One report of each kind, made from hostile text."""
    judge = overlap_judge
    pairs = [replace(p, item=replace(p.item, title=f"{p.item.title} {HOSTILE}"), chunk=HOSTILE) for p in labelled_pairs]
    about = runs.data_of(f"{HOSTILE}.csv", "0" * 64, pairs, 4)
    match request.param:
        case "evaluation":
            rankings: dict[str, runs.Ranking] = {f"by {HOSTILE}": HOSTILE}
            return asyncio.run(runs.evaluate(judge, pairs, about, rankings, silent, index=HOSTILE, resamples=100))
        case "comparison":
            changed = [replace(p, item=Item("v u")) if p.tier == 0 else p for p in pairs]
            return asyncio.run(runs.compare(judge, judge, (pairs, changed), about, silent, resamples=100))
        case "calibration":
            own = [replace(p, query=f"{p.query} {w}", cluster=w + p.cluster, chunk=None) for p in pairs for w in "mnop"]
            own = [replace(p, item=Item(" ".join([*p.query.split()[: 3 - p.tier], "t"]))) for p in own]
            return asyncio.run(runs.calibrate(judge, own, about, silent, human=(own, about)))
        case _:
            victim = replace(pairs[3], chunk=None)
            return asyncio.run(run_attacks(judge, [victim], runs.subject_of(judge, HOSTILE)))


class Tags(HTMLParser):
    """Collects elements and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.found.append((tag, dict(attrs)))


def test_a_page_is_self_contained_and_inert(report: Report) -> None:
    """No script, no handler, no link, no request to anywhere, whatever items and chunks say."""
    text = page.render(report)
    tags = Tags()
    tags.feed(text)
    assert {"script", "img", "link", "iframe", "a", "object"}.isdisjoint({t for t, _ in tags.found})
    names = {name for _, attributes in tags.found for name in attributes}
    assert not {n for n in names if n.startswith("on") or n in {"src", "href", "style"}}
    assert "url(" not in text
    assert "@import" not in text
    assert "\u202e" not in text
    assert "\x00" not in text


def test_every_report_survives_json(report: Report) -> None:
    """The JSON file is the report: reading it back gives the same page."""
    again = TypeAdapter[Report](Report).validate_json(report.model_dump_json())
    assert again == report
    assert page.render(again) == page.render(report)


def test_plots_are_well_formed(report: Report) -> None:
    """Every drawing parses as XML and says what it is."""
    for drawing in re.findall(r"<svg.*?</svg>", page.render(report), re.DOTALL):
        root = ET.fromstring(drawing)  # noqa: S314 - the same
        assert root.get("aria-label")
        assert not [v for e in root.iter() for v in e.attrib.values() if "nan" in v.lower()]


def test_the_terminal_shows_the_figures(report: Report) -> None:
    """Tables hold the names of figures and tiers; text that looks like console markup stays text."""
    console = Console(width=160, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(terminal.render(report))
    text = captured.get()
    assert {
        "evaluation": "macro-F1, cumulative",
        "comparison": "GSB",
        "calibration": "temperature",
        "attacks": "Irrelevant items",
    }[report.kind] in text


@given(text=st.text())
def test_text_is_escaped_wherever_it_stands(text: str) -> None:
    """Any text as child or attribute leaves exactly one element."""
    made = element("p", text, title=text)
    tags = Tags()
    tags.feed(made)
    assert [t for t, _ in tags.found] == ["p"]
    assert made.count("<") == 2


def test_markup_is_not_escaped_twice() -> None:
    """An element inside an element stays one; a plain string beside it does not become one."""
    assert element("p", element("b", "x"), "<b>") == "<p><b>x</b>&lt;b&gt;</p>"
    assert Markup.of(["a", element("br")]) == "a<br>"
    assert element("p", class_="x", aria_label=None) == '<p class="x"></p>'


def test_a_confusion_plot_holds_every_count() -> None:
    """Each cell's count is written out, not only coloured."""
    drawing = charts.heatmap([[5, 1], [0, 0]], ["Good", "Bad"])
    assert "true Good, predicted Bad: 1" in drawing
    assert "83%" in drawing


def test_a_sweep_marks_the_chosen_beta() -> None:
    """The mark carries its value."""
    points = [SweepPoint(beta=b / 100, macro_f1=b / 100, accuracy=0.5) for b in range(30, 81)]
    assert "chosen 0.47" in charts.sweep_chart({"pairs": points}, [("chosen", 0.47)])


def test_charts_take_degenerate_figures() -> None:
    """Undefined differences are left out, empty bins and equal values draw."""
    undefined = Estimate(value=None, low=None, high=None)
    assert charts.forest_chart([("x", undefined)]) == ""
    assert "x" in charts.forest_chart([("x", Estimate(value=0.0, low=0.0, high=0.0))])
    assert "<circle" in charts.reliability_chart({"a": [ReliabilityBin(predicted=0, observed=1, pairs=1)]})
    assert charts.probability_bar([0.25] * 4, TIERS).count("<rect") == 4
    flat = [SweepPoint(beta=0.3, macro_f1=0.5, accuracy=0.5), SweepPoint(beta=0.8, macro_f1=0.5, accuracy=0.5)]
    assert "polyline" in charts.sweep_chart({"a": flat}, [])
