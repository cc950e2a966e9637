"""Fetching the chunk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from models.deadline import Deadline
from service.fetch import Fetched, Fetcher
from service.request import OwnContext
from tests.service.conftest import FakeHit, FakeKnowledge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.request import ContextChoice


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Keeps a search from ending until the test does."""
    event = threading.Event()
    yield event
    event.set()


async def fetch(knowledge: FakeKnowledge | None, context: ContextChoice = "auto", budget_ms: float = 5_000) -> Fetched:
    """Fetch once."""
    fetcher = Fetcher(knowledge, budget_ms)
    try:
        return await fetcher.fetch("q", context, Deadline.never())
    finally:
        fetcher.close()


async def test_a_hit_comes_with_its_reference_and_the_index_version() -> None:
    """The caller can name the chunk that helped."""
    fetched = await fetch(FakeKnowledge())
    assert (fetched.chunk, fetched.index, fetched.failed) == ("a helpful chunk", "index-1", False)
    assert fetched.reference is not None
    assert (fetched.reference.chunk_id, fetched.reference.source, fetched.reference.score) == ("card-1", "cards", 0.75)


async def test_below_the_gate_there_is_no_chunk_and_no_flag() -> None:
    """Nothing fitting is an answer, not a failure."""
    assert await fetch(FakeKnowledge(hit=None)) == Fetched(index="index-1")


@pytest.mark.parametrize("context", ["none", OwnContext("mine")])
async def test_a_caller_can_do_without(context: ContextChoice) -> None:
    """Neither `none` nor an own context searches."""
    fetched = await fetch(FakeKnowledge(raises=AssertionError("searched")), context)
    assert not fetched.failed
    assert fetched.chunk == (context.text if isinstance(context, OwnContext) else None)


async def test_without_knowledge_auto_means_none() -> None:
    """No snapshot is configured, so nothing failed."""
    assert await fetch(None) == Fetched()


async def test_a_failing_search_is_flagged() -> None:
    """The judge goes on without a chunk, and the answer says so."""
    assert await fetch(FakeKnowledge(raises=OSError("disk"))) == Fetched(index="index-1", failed=True)


async def test_a_slow_search_is_flagged_and_does_not_stop_the_others(gate: threading.Event) -> None:
    """Even when every thread hangs, a request loses only its budget."""
    fetcher = Fetcher(FakeKnowledge(wait=gate.wait), budget_ms=1)
    for _ in range(4):
        assert await fetcher.fetch("q", "auto", Deadline.never()) == Fetched(index="index-1", failed=True)
    fetcher.close()


async def test_a_tenant_with_knowledge_of_its_own_sees_no_other() -> None:
    """Its chunks and its version; every other tenant has the shared one."""
    own = Fetcher(FakeKnowledge(version="index-a", hit=FakeHit(text="only for a")), 5_000)
    fetcher = Fetcher(FakeKnowledge(), 5_000, {"a": own})
    fetched = {t: await fetcher.of(t).fetch("q", "auto", Deadline.never()) for t in ("a", "b", "public")}
    assert (fetched["a"].chunk, fetched["a"].index) == ("only for a", "index-a")
    assert fetched["b"] == fetched["public"]
    assert (fetched["b"].chunk, fetched["b"].index) == ("a helpful chunk", "index-1")
    fetcher.close()


async def test_a_tenants_hanging_search_takes_no_thread_of_another(gate: threading.Event) -> None:
    """Each snapshot is searched by threads of its own."""
    hanging = Fetcher(FakeKnowledge(wait=gate.wait), budget_ms=1)
    fetcher = Fetcher(FakeKnowledge(), 5_000, {"a": hanging})
    for _ in range(4):
        assert (await fetcher.of("a").fetch("q", "auto", Deadline.never())).failed
    assert (await fetcher.of("b").fetch("q", "auto", Deadline.never())).chunk == "a helpful chunk"
    fetcher.close()


async def test_the_deadline_bounds_the_search(gate: threading.Event) -> None:
    """A budget longer than the deadline is no licence."""
    fetcher = Fetcher(FakeKnowledge(wait=gate.wait), budget_ms=1e9)
    assert (await fetcher.fetch("q", "auto", Deadline.after(1))).failed
    fetcher.close()


def test_the_basis_of_a_choice_names_all_that_can_change_it() -> None:
    """Another snapshot, gate, own text or wish to do without is another basis; so is no other thing."""
    knowledge, stricter, newer = FakeKnowledge(), FakeKnowledge(tau=0.6), FakeKnowledge(version="index-2")
    bases = [
        Fetcher(knowledge, 1.0).basis("auto"),
        Fetcher(stricter, 1.0).basis("auto"),
        Fetcher(newer, 1.0).basis("auto"),
        Fetcher(knowledge, 1.0).basis("none"),
        Fetcher(knowledge, 1.0).basis(OwnContext("none")),
        Fetcher(knowledge, 1.0).basis(OwnContext("mine")),
    ]
    assert len({basis.parts for basis in bases}) == len(bases)
    assert Fetcher(None, 1.0).basis("auto").parts == Fetcher(newer, 1.0).basis("none").parts
    assert [basis.index for basis in bases[:3]] == ["index-1", "index-1", "index-2"]
