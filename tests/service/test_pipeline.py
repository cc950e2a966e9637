"""The pipeline around a fake engine: what it adds, and what it never changes."""

from __future__ import annotations

import asyncio
import string
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.errors import EngineBusyError, EngineUnavailableError
from models.prompt import Item
from service.compute import INLINE_MS
from service.errors import DeadlineError, NotReadyError, OverloadedError
from service.fetch import Fetcher
from service.pipeline import Pipeline
from service.reply import AttributeJudgement, RationaleFields
from service.request import Call, Candidate, OwnContext, ScoreRequest
from tests.service.conftest import FakeKnowledge, OverlapEngine, judge_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from service.reply import ItemResult, ScoreReply


@pytest.fixture(scope="session")
def pipeline_on(checkpoint: Path) -> Callable[..., Pipeline]:
    """Make a pipeline around a fake engine and fake knowledge."""

    def make(engine: OverlapEngine | None = None, knowledge: FakeKnowledge | None = None, **options: Any) -> Pipeline:
        return Pipeline(judge_on(checkpoint, engine or OverlapEngine()), Fetcher(knowledge, 5_000.0), **options)

    return make


@pytest.fixture(scope="module")
def pipeline(pipeline_on: Callable[..., Pipeline]) -> Pipeline:
    """A pipeline without faults or knowledge."""
    return pipeline_on()


def call(deadline: Deadline | None = None) -> Call:
    """A call that starts now."""
    return Call(id="r1", deadline=deadline or Deadline.never(), started=time.monotonic())


def request(*titles: str, **options: Any) -> ScoreRequest:
    """A request for these titles, ids by position."""
    return ScoreRequest("abcd", tuple(Candidate(f"i{n}", Item(t)) for n, t in enumerate(titles)), **options)


async def test_results_are_best_first_and_complete(pipeline_on: Callable[..., Pipeline]) -> None:
    """Score decides the order, position breaks ties, and every field of a verdict is there."""
    reply = await pipeline_on().score(request("wxyz", "abcd", "abxy", "abcd"), call())
    assert [r.index for r in reply.results] == [1, 3, 2, 0]
    best = reply.results[0]
    assert (best.id, best.status, best.tier, best.label, best.band) == (
        "i1", ItemStatus.OK, "4-Excellent", "excellent", "Good",
    )  # fmt: skip
    assert best.probabilities is not None
    assert list(best.probabilities) == ["4-Excellent", "3-Related", "2-Mismatch", "1-Irrelevant"]
    assert best.score is not None
    assert best.margin is not None


async def test_versions_usage_and_timings_come_along(pipeline_on: Callable[..., Pipeline]) -> None:
    """An answer says what produced it, what it cost and where the time went."""
    engine = OverlapEngine()
    reply = await pipeline_on(engine, FakeKnowledge()).score(request("abcd", "wx"), call())
    ((prefix, suffixes),) = engine.calls
    assert reply.usage.prompt_tokens == len(prefix) + sum(map(len, suffixes))
    assert (reply.versions.index, reply.versions.checkpoint.partition("@")[0]) == ("index-1", "tiny")
    assert list(reply.timings_ms) == ["fetch", "embed", "search", "write", "score", "judge", "total"]
    parts = sum(ms for stage, ms in reply.timings_ms.items() if stage not in ("embed", "search"))  # within fetch
    assert parts <= 2 * reply.timings_ms["total"] + 0.01


async def test_top_n_cuts_after_ranking(pipeline_on: Callable[..., Pipeline]) -> None:
    """The best of all items stay, not the first of them."""
    reply = await pipeline_on().score(request("wxyz", "abxy", "abcd", top_n=2), call())
    assert [r.index for r in reply.results] == [2, 1]


async def test_the_chunk_reaches_the_prompt_and_the_answer(pipeline_on: Callable[..., Pipeline]) -> None:
    """A retrieved chunk and a caller's own both sit in the shared prefix."""
    plain, helped, own = OverlapEngine(), OverlapEngine(), OverlapEngine()
    none = await pipeline_on(plain, FakeKnowledge()).score(request("a", context="none"), call())
    auto = await pipeline_on(helped, FakeKnowledge()).score(request("a"), call())
    mine = await pipeline_on(own, FakeKnowledge()).score(request("a", context=OwnContext("a helpful chunk")), call())
    assert none.context is None
    assert auto.context is not None
    assert auto.context.chunk_id == "card-1"
    assert mine.context is not None
    assert (mine.context.chunk_id, mine.context.source) == (None, "caller")
    assert len(plain.calls[0][0]) < len(helped.calls[0][0])
    assert helped.calls[0][0] == own.calls[0][0]


async def test_failed_retrieval_is_flagged(pipeline_on: Callable[..., Pipeline]) -> None:
    """The answer without a chunk says that one was wanted."""
    reply = await pipeline_on(knowledge=FakeKnowledge(raises=OSError("disk"))).score(request("abcd"), call())
    assert (reply.degraded, reply.context) == (("context",), None)


async def test_unfinished_items_stand_last_with_their_status(pipeline_on: Callable[..., Pipeline]) -> None:
    """A partial answer has every item, and no verdict where there is none."""
    engine = OverlapEngine(expired=frozenset({1}), failed=frozenset({0}))
    reply = await pipeline_on(engine).score(request("abcd", "abcd", "wxyz"), call())
    assert [(r.index, r.status) for r in reply.results] == [(2, "ok"), (0, "failed"), (1, "expired")]
    assert set(reply.degraded) == {"deadline", "engine"}
    for result in reply.results[1:]:
        assert (result.tier, result.label, result.band, result.score) == (None, None, None, None)
        assert (result.margin, result.probabilities, result.label_mass) == (None, None, None)


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (OverlapEngine(expired=frozenset({0, 1})), DeadlineError),
        (OverlapEngine(failed=frozenset({0, 1})), NotReadyError),
        (OverlapEngine(raises=EngineBusyError("full")), OverloadedError),
        (OverlapEngine(raises=EngineUnavailableError("dead")), NotReadyError),
    ],
)
async def test_nothing_scored_is_an_error(
    pipeline_on: Callable[..., Pipeline], engine: OverlapEngine, expected: type[Exception]
) -> None:
    """An answer without a single verdict must not look like one."""
    with pytest.raises(expected):
        await pipeline_on(engine).score(request("abcd", "ab"), call())


async def test_a_hanging_engine_costs_the_deadline_and_no_more(pipeline_on: Callable[..., Pipeline]) -> None:
    """The caller gets its answer in time even when the engine never gives one."""
    with pytest.raises(DeadlineError):
        await pipeline_on(OverlapEngine(hang=True), engine_grace_ms=0.0).score(request("a"), call(Deadline.after(5)))


async def test_after_the_deadline_the_engine_is_not_asked(pipeline_on: Callable[..., Pipeline]) -> None:
    """Late work is not begun."""
    engine = OverlapEngine()
    with pytest.raises(DeadlineError):
        await pipeline_on(engine).score(request("a"), call(Deadline.after(-1)))
    assert not engine.calls


async def test_cut_and_unknown_text_is_reported_for_each_item(pipeline_on: Callable[..., Pipeline]) -> None:
    """Fields of the item and shared ones are both named; a long request takes the same path in a thread."""
    pipeline = pipeline_on()
    much = 2 * INLINE_MS * pipeline.judge.tokenizer.characters_per_ms
    long = ScoreRequest(
        "q" * 100,
        (
            Candidate("a", Item("t" * much, description="ok")),
            Candidate("b", Item("耳机", description="d" * 50)),
        ),
        "none",
    )
    reply = await pipeline.score(long, call())
    by_id = {r.id: r for r in reply.results}
    assert by_id["a"].truncated == ("query", "title")
    assert by_id["b"].truncated == ("query", "description")
    assert (by_id["a"].unrepresentable, by_id["b"].unrepresentable) == ((), ("title",))


def ids_of(checkpoint: Path, tokens: Sequence[str]) -> tuple[int, ...]:
    """Ids of whole tokens."""
    ids = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).token_to_id
    return tuple(number for token in tokens if (number := ids(token)) is not None)


async def test_explain_gives_the_parsed_fields(pipeline_on: Callable[..., Pipeline], checkpoint: Path) -> None:
    """What the model writes after the label comes back in the one schema, beside the verdict and the chunk."""
    written = [
        "[category]",
        "match",
        "[attributes]",
        "brand",
        "ok",
        "[context]",
        "adopt",
        "[reason]",
        "same",
        "brand",
        "[END]",
    ]
    engine = OverlapEngine(rationale=ids_of(checkpoint, written))
    reply = await pipeline_on(engine).explain(request("abcd", context=OwnContext("abcd")), call())
    assert reply.result.tier == "4-Excellent"
    assert reply.parsed
    assert reply.rationale == RationaleFields("match", (AttributeJudgement("brand", "ok"),), "adopt", "same brand")
    assert reply.text == " ".join(written[:-1])
    assert reply.chunk == "abcd"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + len(written) - 1
    assert "explain" in reply.timings_ms


async def test_a_rationale_outside_the_schema_comes_back_as_it_stands(
    pipeline_on: Callable[..., Pipeline], checkpoint: Path
) -> None:
    """The caller sees that it did not parse, and what was written."""
    engine = OverlapEngine(rationale=ids_of(checkpoint, ["[category]", "same"]))
    reply = await pipeline_on(engine).explain(request("abcd"), call())
    assert (reply.parsed, reply.rationale, reply.text) == (False, None, "[category] same")


titles = st.lists(
    st.text(string.ascii_letters + " ", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=6
)


def score(pipeline: Pipeline, asked: Sequence[str]) -> ScoreReply:
    """Score in a loop of its own, for tests that hypothesis runs many times."""
    return asyncio.run(pipeline.score(request(*asked), call()))


def verdict(result: ItemResult) -> tuple[Any, ...]:
    """What must not depend on the neighbours."""
    return (result.status, result.tier, result.score, result.margin, result.probabilities, result.truncated)


@settings(max_examples=40, deadline=None)
@given(titles, st.randoms(use_true_random=False))
def test_the_order_of_items_changes_no_verdict(pipeline: Pipeline, asked: list[str], random: Any) -> None:
    """Verdicts follow their item wherever it stands."""
    order = list(range(len(asked)))
    random.shuffle(order)
    plain = {r.index: verdict(r) for r in score(pipeline, asked).results}
    shuffled = {order[r.index]: verdict(r) for r in score(pipeline, [asked[n] for n in order]).results}
    assert plain == shuffled


@settings(max_examples=40, deadline=None)
@given(titles, st.integers(0, 6))
def test_splitting_a_request_changes_no_verdict(pipeline: Pipeline, asked: list[str], at: int) -> None:
    """Two requests answer what one does."""
    together = {r.index: verdict(r) for r in score(pipeline, asked).results}
    parts = [(0, asked[:at]), (at, asked[at:])]
    apart = {s + r.index: verdict(r) for s, part in parts if part for r in score(pipeline, part).results}
    assert together == apart


@settings(max_examples=40, deadline=None)
@given(titles)
def test_duplicates_get_the_same_verdict_and_probabilities_sum_to_one(pipeline: Pipeline, asked: list[str]) -> None:
    """An item repeated in a request is judged the same twice, and every distribution is one."""
    results = {r.index: r for r in score(pipeline, asked + asked).results}
    for n in range(len(asked)):
        assert verdict(results[n]) == verdict(results[n + len(asked)])
        assert sum((results[n].probabilities or {}).values()) == pytest.approx(1.0, abs=1e-5)
