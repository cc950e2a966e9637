"""What must not change a verdict, on the real pipeline and the shipped checkpoint: order, company, batches, cache."""

from __future__ import annotations

import asyncio
import math
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import tiers
from models.deadline import Deadline
from models.prompt import Item
from service.cache.cache import ResultCache
from service.demo.candidates import QUERIES, read_catalogue
from service.fetch import Fetcher
from service.gateway import open_judge
from service.pipeline import Judge, Pipeline
from service.request import Call, Candidate, OwnContext, ScoreRequest
from service.settings import Settings
from tests.chaos.conftest import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from random import Random

    from service.reply import ItemResult
    from service.request import ContextChoice

PRODUCTS = read_catalogue()
many = settings(
    max_examples=300 if LONG else 12,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
products = st.sampled_from(PRODUCTS).map(
    lambda p: Item(title=p["title"], brand=p.get("brand", ""), category=p.get("category", ""))
)
anything = st.text(min_size=1, max_size=80).filter(lambda text: any(c.isalnum() for c in text))
items = st.lists(products | st.builds(Item, title=anything), min_size=1, max_size=9)
queries = st.sampled_from(QUERIES) | anything
none: ContextChoice = "none"
contexts = st.just(none) | st.builds(OwnContext, anything)


class Bench:
    """One judge, with and without a cache, and a loop to run them on."""

    def __init__(self, judge: Judge, runner: asyncio.Runner, chosen: Settings) -> None:
        self.judge = judge
        self._runner = runner
        fetcher = Fetcher(None, 1.0)
        self.plain = Pipeline(judge, fetcher)
        self.cached = Pipeline(judge, fetcher, cache=ResultCache(chosen.cache, judge.manifest, judge.engine.name))

    def score(
        self, query: str, chosen: Sequence[Item], context: ContextChoice, pipeline: Pipeline | None = None
    ) -> list[dict[str, Any]]:
        """Verdicts in the order of the items."""
        candidates = tuple(Candidate(str(n), item) for n, item in enumerate(chosen))
        request = ScoreRequest(query, candidates, context)
        call = Call(id="t", deadline=Deadline.never(), started=time.monotonic())
        reply = self._runner.run((pipeline or self.plain).score(request, call))
        assert {result.status for result in reply.results} == {"ok"}
        return [verdict(result) for result in sorted(reply.results, key=lambda r: r.index)]


def verdict(result: ItemResult) -> dict[str, Any]:
    """All that is said about the item itself."""
    return {
        "tier": result.tier,
        "score": result.score,
        "margin": result.margin,
        "probabilities": result.probabilities,
        "truncated": result.truncated,
    }


@pytest.fixture(scope="module")
def bench(folder: Path) -> Iterator[Bench]:
    """The shipped judge."""
    chosen = Settings(cache_dir=folder)
    with asyncio.Runner() as runner:
        judge = open_judge(chosen)
        yield Bench(judge, runner, chosen)
        runner.run(judge.engine.close())


@many
@given(query=queries, chosen=items, context=contexts, order=st.randoms(use_true_random=False))
def test_order_of_items_changes_nothing(
    bench: Bench, query: str, chosen: list[Item], context: ContextChoice, order: Random
) -> None:
    """Every item keeps its verdict to the last digit."""
    verdicts = bench.score(query, chosen, context)
    places = list(range(len(chosen)))
    order.shuffle(places)
    assert bench.score(query, [chosen[n] for n in places], context) == [verdicts[n] for n in places]


@many
@given(query=queries, chosen=items, context=contexts, cut=st.integers(1, 8))
def test_one_request_or_several_make_no_difference(
    bench: Bench, query: str, chosen: list[Item], context: ContextChoice, cut: int
) -> None:
    """Items judged together are judged as in any other company."""
    parts = [part for part in (chosen[:cut], chosen[cut:]) if part]
    apart = [result for part in parts for result in bench.score(query, part, context)]
    assert bench.score(query, chosen, context) == apart


@many
@given(query=queries, chosen=items, context=contexts)
def test_equal_items_get_equal_verdicts(bench: Bench, query: str, chosen: list[Item], context: ContextChoice) -> None:
    """Under two ids in one request."""
    twice = bench.score(query, [*chosen, *chosen], context)
    assert twice[: len(chosen)] == twice[len(chosen) :] == bench.score(query, chosen, context)


@many
@given(query=queries, chosen=items, context=contexts, known=st.integers(0, 9))
def test_the_cache_changes_nothing(
    bench: Bench, query: str, chosen: list[Item], context: ContextChoice, known: int
) -> None:
    """Nothing known, some items known, all known: the verdicts are those without a cache."""
    plain = bench.score(query, chosen, context)
    if part := chosen[:known]:
        assert bench.score(query, part, context, bench.cached) == plain[: len(part)]
    for _ in range(2):
        assert bench.score(query, chosen, context, bench.cached) == plain


@many
@given(query=queries, chosen=items, context=contexts, betas=st.lists(st.floats(0.05, 0.95), min_size=2, max_size=5))
def test_probabilities_sum_to_one_and_a_higher_beta_only_demotes(
    bench: Bench, query: str, chosen: list[Item], context: ContextChoice, betas: list[float]
) -> None:
    """What a caller computes from the probabilities is what the service says, at any beta."""
    verdicts = bench.score(query, chosen, context)
    probabilities = np.array([list(v["probabilities"].values()) for v in verdicts], np.float32)
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    names = [tier.name for tier in bench.judge.manifest.tiers]
    chosen_by_beta = [tiers.cumulative_tiers(probabilities, beta) for beta in sorted(betas)]
    for lower, higher in pairwise(chosen_by_beta):
        assert (higher >= lower).all()  # tiers are listed best first
    for result, place in zip(verdicts, tiers.cumulative_tiers(probabilities, bench.judge.manifest.beta), strict=True):
        assert result["tier"] == names[place] or result["margin"] < 1e-5
        assert not math.isnan(result["score"])
