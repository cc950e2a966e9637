"""The demo's table: what was asked, what came back, and how sure the model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BAR: Final = 12
WIDE: Final = 110
GAPS: Final = 19  # the column of milliseconds, and the space between columns
# Shades and colours both tell the tiers apart: a table in a log has no colours.
SHADES: Final = "█▓▒░"
COLOURS: Final = ("green", "yellow", "dark_orange", "red")


def scores_table(answers: Sequence[tuple[str, dict[str, Any], float]], titles: Mapping[str, str], width: int) -> Table:
    """A table of replies to `POST /v1/score`.

    Args:
        answers: query, reply, and the round trip in milliseconds.
        titles: item id -> title.
        width: columns of the terminal; readable from 80.
    """
    reply = answers[0][1]
    names = list(reply["results"][0]["probabilities"])
    legend = "  ".join(f"{_shade(n)} {name}" for n, name in enumerate(names))
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"{reply['model']} on real products (Icecat)",
        caption=f"P: probability of each tier  {legend}\nms: the whole round trip for the query's items, over HTTP",
        caption_justify="left",
    )
    tier, side = max(map(len, names)), 18 if width >= WIDE else 12
    table.add_column("query", style="bold", overflow="fold", width=side)
    table.add_column("item", no_wrap=True, overflow="ellipsis", width=max(side, width - tier - BAR - 2 * side - GAPS))
    table.add_column("tier", no_wrap=True, width=tier)
    table.add_column("P", no_wrap=True, width=BAR)
    table.add_column("chunk used", no_wrap=True, overflow="ellipsis", width=side)
    table.add_column("ms", justify="right", width=6)
    for query, answered, milliseconds in answers:
        context = answered["context"]
        for n, result in enumerate(answered["results"]):
            last = n == len(answered["results"]) - 1
            table.add_row(
                query if n == 0 else "",
                titles[result["id"]],
                result["tier"] or result["status"],
                probability_bar(list((result["probabilities"] or {}).values())),
                (context["chunk_id"] if context else "none") if n == 0 else "",
                f"{milliseconds:.1f}" if n == 0 else "",
                end_section=last,
            )
    return table


def probability_bar(probabilities: Sequence[float]) -> Text:
    """Probabilities side by side, best tier first; widths are proportional and add up to the bar's."""
    bar = Text()
    drawn = 0
    reached = 0.0
    for n, probability in enumerate(probabilities):
        reached += probability
        width = round(reached * BAR) - drawn
        drawn += width
        bar.append(_shade(n) * width, style=COLOURS[min(n, len(COLOURS) - 1)])
    return bar


def _shade(n: int) -> str:
    return SHADES[min(n, len(SHADES) - 1)]
