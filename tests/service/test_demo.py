"""What the demo asks and how it shows the answers. The command itself runs with the shipped checkpoint's tests."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from service.demo.candidates import PER_QUERY, PER_TYPE, QUERIES, candidates, read_catalogue
from service.demo.table import BAR, probability_bar, scores_table
from service.schemas import ItemBody

PRODUCTS = read_catalogue()


def test_the_sample_is_what_the_service_takes() -> None:
    """Every product of the committed sample passes as an item, unchanged."""
    assert len(PRODUCTS) > 500
    assert len({ItemBody.model_validate(product).id for product in PRODUCTS}) == len(PRODUCTS)


@pytest.mark.parametrize("query", QUERIES)
def test_candidates_hold_what_was_meant_and_hard_negatives(query: str) -> None:
    """Five products of at least three types, the same ones every time."""
    chosen = candidates(query, PRODUCTS)
    types = [product["category"] for product in chosen]
    assert len(chosen) == PER_QUERY
    assert max(map(types.count, types)) <= PER_TYPE
    assert chosen == candidates(query, PRODUCTS)


@pytest.mark.parametrize("probabilities", [[1.0, 0, 0, 0], [0.25] * 4, [0.03, 0.03, 0.04, 0.9], [0.5, 0.5], [0.2] * 5])
def test_a_bar_is_always_full(probabilities: list[float]) -> None:
    """Widths are rounded together, so that bars stand under each other, with any number of tiers."""
    assert probability_bar(probabilities).cell_len == BAR


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_every_column(width: int) -> None:
    """Query, item, tier, bar, chunk and milliseconds, in a terminal of the usual width and without colours."""
    names = ["4-Excellent", "3-Related", "2-Mismatch", "1-Irrelevant"]
    result: dict[str, Any] = {"id": "a", "tier": names[3], "status": "ok", "probabilities": dict.fromkeys(names, 0.25)}
    reply = {"model": "tiny", "context": {"chunk_id": "type:mouse"}, "results": [result]}
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(scores_table([("wireless mouse", reply, 1234.5)], {"a": "A mouse " * 30}, width))
    text = capture.get()
    for expected in ("wireless", "A mouse", "1-Irrelevant", "███▓▓▓▒▒▒░░░", "type:mouse", "1234.5", "█ 4-Excellent"):
        assert expected in text
    assert max(map(len, text.splitlines())) <= width
