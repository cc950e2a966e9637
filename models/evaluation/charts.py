"""The plots of a report, as SVG drawn by hand: no plotting library, no script, no request to anywhere.

Colours are classes of page.css, so that a plot follows the page's light or dark scheme.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.evaluation.markup import Markup, element

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.evaluation.bootstrap import Estimate
    from models.evaluation.reports import ReliabilityBin, SweepPoint

_WIDTH: Final = 440
_HEIGHT: Final = 300
_LEFT: Final = 46
_RIGHT: Final = 14
_TOP: Final = 12
_BOTTOM: Final = 42


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot area and the ranges of its axes."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Data -> pixels."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    def axes(self, x_label: str, y_label: str, *, x_step: float, y_step: float) -> Markup:
        """Grid, tick labels and axis labels."""
        parts: list[Markup] = []
        for value in _ticks(*self.x, x_step):
            x, bottom = self.at(value, self.y[0])
            parts.append(element("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="grid"))
            parts.append(element("text", _short(value), x=x, y=bottom + 16, text_anchor="middle"))
        for value in _ticks(*self.y, y_step):
            left, y = self.at(self.x[0], value)
            parts.append(element("line", x1=left, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
            parts.append(element("text", _short(value), x=left - 6, y=y + 4, text_anchor="end"))
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(element("text", x_label, x=middle, y=_HEIGHT - 6, text_anchor="middle", class_="axis"))
        half = (_TOP + _HEIGHT - _BOTTOM) / 2
        turned = f"rotate(-90 12 {half})"
        parts.append(element("text", y_label, x=12, y=half, transform=turned, text_anchor="middle", class_="axis"))
        return Markup.of(parts)

    def line(self, points: Sequence[tuple[float, float]], class_: str) -> Markup:
        """A polyline."""
        path = " ".join(f"{x},{y}" for x, y in (self.at(*p) for p in points))
        return element("polyline", points=path, class_=class_)


def _ticks(low: float, high: float, step: float) -> list[float]:
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 6) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    return f"{value:g}"


def _svg(label: str, *children: object, width: float = _WIDTH, height: float = _HEIGHT) -> Markup:
    return element("svg", *children, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def _legend(names: Sequence[str], frame: Frame) -> Markup:
    if len(names) < 2:  # noqa: PLR2004 - one series needs no legend
        return Markup()
    left, top = frame.at(frame.x[0], frame.y[1])
    return Markup.of(
        Markup.of(
            [
                element("rect", x=left + 10, y=top + 8 + 17 * n, width=12, height=4, class_=f"fill{n}"),
                element("text", name, x=left + 28, y=top + 14 + 17 * n),
            ]
        )
        for n, name in enumerate(names)
    )


def reliability_chart(series: Mapping[str, Sequence[ReliabilityBin]]) -> Markup:
    """Observed share of Good against its predicted probability; a dot's area is its share of the pairs."""
    frame = Frame((0, 1), (0, 1))
    parts = [frame.axes("predicted probability of Good", "observed share of Good", x_step=0.2, y_step=0.2)]
    parts.append(frame.line([(0, 0), (1, 1)], "ideal"))
    for n, bins in enumerate(series.values()):
        parts.append(frame.line([(b.predicted, b.observed) for b in bins], f"series{n}"))
        total = sum(b.pairs for b in bins) or 1
        for b in bins:
            x, y = frame.at(b.predicted, b.observed)
            radius = round(2 + 9 * math.sqrt(b.pairs / total), 1)
            told = f"predicted {b.predicted:.3f}, observed {b.observed:.3f}, {b.pairs} pairs"
            parts.append(element("circle", element("title", told), cx=x, cy=y, r=radius, class_=f"dot{n}"))
    return _svg("reliability curve", *parts, _legend(list(series), frame))


def sweep_chart(series: Mapping[str, Sequence[SweepPoint]], marks: Sequence[tuple[str, float]]) -> Markup:
    """Macro-F1 over beta, with vertical marks such as the chosen beta."""
    values = [p.macro_f1 for points in series.values() for p in points]
    low, high = math.floor(min(values) * 20) / 20, math.ceil(max(values) * 20 + 0.2) / 20
    frame = Frame((0.3, 0.8), (low, high))
    parts = [frame.axes("beta", "macro-F1", x_step=0.1, y_step=0.05 if high - low <= 0.5 else 0.1)]  # noqa: PLR2004
    for n, points in enumerate(series.values()):
        parts.append(frame.line([(p.beta, p.macro_f1) for p in points], f"series{n}"))
    for n, (name, beta) in enumerate(marks):
        x, bottom = frame.at(min(max(beta, 0.3), 0.8), low)
        parts.append(element("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="mark"))
        end = beta > 0.65  # noqa: PLR2004 - near the right edge the label goes to the left of its line
        parts.append(
            element(
                "text",
                f"{name} {beta:.2f}",
                x=x + (-5 if end else 5),
                y=bottom - 8 - 16 * n,
                text_anchor="end" if end else None,
                class_="strong",
            )
        )
    return _svg("beta sweep", *parts, _legend(list(series), frame))


def heatmap(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Markup:
    """Confusion: rows are true tiers, columns predicted; shade is the share of the row."""
    k, cell, left, top = len(names), 78, 104, 40
    parts: list[Markup] = [
        element("text", "predicted", x=left + k * cell / 2, y=14, text_anchor="middle", class_="axis")
    ]
    for n, name in enumerate(names):
        parts.append(element("text", name, x=left + n * cell + cell / 2, y=32, text_anchor="middle"))
        parts.append(element("text", name, x=left - 8, y=top + n * 50 + 30, text_anchor="end"))
    for row, counts in enumerate(matrix):
        total = sum(counts)
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            x, y = left + column * cell, top + row * 50
            shade = element(
                "rect",
                element("title", f"true {names[row]}, predicted {names[column]}: {count}"),
                x=x + 1,
                y=y + 1,
                width=cell - 2,
                height=48,
                rx=3,
                class_="hit" if row == column else "miss",
                fill_opacity=f"{0.06 + 0.8 * share:.3f}",
            )
            ink = " inverse" if share > 0.6 else ""  # noqa: PLR2004 - from here on the shade is dark
            at = {"x": x + cell / 2, "text_anchor": "middle"}
            parts += [
                shade,
                element("text", count, y=y + 23, class_=f"strong{ink}", **at),
                element("text", f"{share:.0%}", y=y + 39, class_=f"share{ink}", **at),
            ]
    return _svg("confusion matrix", *parts, width=left + k * cell + 8, height=top + k * 50 + 8)


def distribution_chart(rows: Sequence[Sequence[int]], names: Sequence[str]) -> Markup:
    """One histogram of the score for each true tier, each scaled to its own highest bar."""
    frame = Frame((0, 1), (0, 1))
    band = (_HEIGHT - _TOP - _BOTTOM) / len(rows)
    parts = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        x, bottom = frame.at(value, 0)
        parts.append(element("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="grid"))
        parts.append(element("text", _short(value), x=x, y=bottom + 16, text_anchor="middle"))
    for n, (name, counts) in enumerate(zip(names, rows, strict=True)):
        base, highest = _TOP + band * (n + 1), max([*counts, 1])
        width = (_WIDTH - _LEFT - _RIGHT) / len(counts)
        for b, count in enumerate(counts):
            height = round((band - 16) * count / highest, 1)
            told = element("title", f"{name}: {count} pairs")
            x = round(_LEFT + b * width + 1, 1)
            parts.append(
                element(
                    "rect",
                    told,
                    x=x,
                    y=round(base - height, 1),
                    width=round(width - 2, 1),
                    height=height,
                    class_=f"tier{_shade(n, len(names))}",
                )
            )
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=base, y2=base, class_="grid"))
        parts.append(element("text", f"true {name} ({sum(counts)})", x=_LEFT + 4, y=base - band + 12))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(element("text", "score", x=middle, y=_HEIGHT - 6, text_anchor="middle", class_="axis"))
    return _svg("score distributions", *parts)


def _shade(column: int, tiers: int) -> int:
    """A tier's colour among the four of the page, best first."""
    return round(3 * column / max(tiers - 1, 1))


def probability_bar(probabilities: Sequence[float], names: Sequence[str]) -> Markup:
    """One thin stacked bar, best tier first."""
    x, parts = 0.0, []
    for n, (p, name) in enumerate(zip(probabilities, names, strict=True)):
        told = element("title", f"{name} {p:.3f}")
        width = round(120 * p, 2)
        shade = f"tier{_shade(n, len(names))}"
        parts.append(element("rect", told, x=round(x, 2), y=0, width=width, height=10, class_=shade))
        x += width
    return element("svg", *parts, viewBox="0 0 120 10", class_="bar", role="img", aria_label="probabilities")


def forest_chart(rows: Sequence[tuple[str, Estimate]]) -> Markup:
    """Paired differences with their intervals; right of the zero line the first is better."""
    known = [(name, e, e.value, e.low, e.high) for name, e in rows]
    drawn = [(n, e, v, lo, hi) for n, e, v, lo, hi in known if v is not None and lo is not None and hi is not None]
    if not drawn:
        return Markup()
    reach = max(max(abs(lo), abs(hi)) for *_, lo, hi in drawn) * 1.08 or 0.1
    left, line = 165, 24
    height = line * len(drawn) + 40
    middle, half = left + 135, 125

    def at(value: float) -> float:
        return round(middle + half * value / reach, 1)

    parts: list[Markup] = []
    for value in (-reach / 1.08, 0.0, reach / 1.08):
        parts.append(element("line", x1=at(value), x2=at(value), y1=6, y2=height - 28, class_="grid"))
        parts.append(element("text", f"{value:+.3f}", x=at(value), y=height - 12, text_anchor="middle"))
    parts.append(element("line", x1=middle, x2=middle, y1=6, y2=height - 28, class_="mark"))
    for n, (name, estimate, value, low, high) in enumerate(drawn):
        y = 20 + line * n
        clear = "clear" if estimate.excludes_zero else "unclear"
        told = element("title", f"{name}: {value:+.4f}, 95 % from {low:+.4f} to {high:+.4f}")
        parts.append(element("text", name, x=left - 12, y=y + 4, text_anchor="end"))
        parts.append(element("line", x1=at(low), x2=at(high), y1=y, y2=y, class_=clear))
        parts.append(element("circle", told, cx=at(value), cy=y, r=4.5, class_=f"{clear} point"))
    return _svg("paired differences", *parts, width=left + 275, height=height)
