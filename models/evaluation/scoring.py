"""Scores labelled pairs through the engine port: the same prompt writer and the same arithmetic as serving.

Knows nothing about where a chunk comes from; a pair carries its own.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from models import rationale
from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from models.engines.port import Engine
    from models.evaluation.pairs import LabelledPair
    from models.manifest import Manifest
    from models.prompt import PromptWriter
    from models.tokenizer import FieldTokenizer

ITEMS_PER_CALL: Final = 64
CALLS_IN_FLIGHT: Final = 4  # enough for an engine to merge requests, few enough to stop soon


@dataclass(frozen=True, slots=True)
class Judge:
    """A checkpoint behind an engine, as an evaluation uses it."""

    manifest: Manifest
    tokenizer: FieldTokenizer
    writer: PromptWriter
    engine: Engine


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of n pairs.

    Attributes:
        logprobs: float32 [n, K], log-softmax over the labels, in the order of the pairs.
        truncated: pairs of which at least one field was cut to its budget.
        tokens: computed, shared prefixes counted once.
        seconds: wall time, prompt writing included.
    """

    logprobs: NDArray[np.float32]
    truncated: int
    tokens: int
    seconds: float


async def score_pairs(
    judge: Judge, pairs: Sequence[LabelledPair], progress: Callable[[int], object] | None = None
) -> Scored:
    """Score pairs, grouped by (query, chunk) so that each prefix is computed once.

    Args:
        judge: checkpoint and warm engine.
        pairs: n pairs in any order.
        progress: called with the number of pairs just done.

    Raises:
        EngineError: the engine did not answer for a pair; an evaluation with holes would be a wrong one.
    """
    started = time.perf_counter()
    logprobs = np.full((len(pairs), len(judge.manifest.tiers)), np.nan, dtype=np.float32)
    slots = asyncio.Semaphore(CALLS_IN_FLIGHT)
    tokens = truncated = 0

    async def run(rows: list[int]) -> None:
        nonlocal tokens, truncated
        async with slots:
            prompt = await asyncio.to_thread(
                judge.writer.write, pairs[rows[0]].query, pairs[rows[0]].chunk, [pairs[r].item for r in rows]
            )
            scores = await judge.engine.score(prompt.prefix.ids, [s.ids for s in prompt.suffixes], Deadline.never())
        bad = [s for s in scores.status if s is not ItemStatus.OK]
        if bad or not np.isfinite(scores.logprobs).all():
            raise EngineError(
                f"{judge.engine.name} gave no score for query {pairs[rows[0]].query!r}: {set(bad) or 'NaN'}"
            )
        logprobs[rows] = scores.logprobs
        tokens += prompt.tokens
        truncated += len(rows) if prompt.prefix.truncated else sum(bool(s.truncated) for s in prompt.suffixes)
        if progress is not None:
            progress(len(rows))

    try:
        async with asyncio.TaskGroup() as group:
            for rows in _calls(pairs):
                group.create_task(run(rows))
    except ExceptionGroup as failures:  # the first says what went wrong; the others are its echo
        raise failures.exceptions[0] from failures
    return Scored(logprobs, truncated, tokens, time.perf_counter() - started)


def _calls(pairs: Sequence[LabelledPair]) -> list[list[int]]:
    groups: dict[tuple[str, str | None], list[int]] = {}
    for row, pair in enumerate(pairs):
        groups.setdefault((pair.query, pair.chunk), []).append(row)
    return [
        rows[start : start + ITEMS_PER_CALL]
        for rows in groups.values()
        for start in range(0, len(rows), ITEMS_PER_CALL)
    ]


async def decoded(judge: Judge, pair: LabelledPair, tier: int) -> str | None:
    """What the judge says after a tier's label; None when the engine cannot decode."""
    prompt = judge.writer.write(pair.query, pair.chunk, [pair.item])
    tokens = judge.engine.explain(
        prompt.prefix.ids,
        prompt.suffixes[0].ids,
        Deadline.never(),
        label=judge.manifest.label_token_ids[tier],
        max_tokens=judge.manifest.rationale.max_tokens,
    )
    try:
        return judge.tokenizer.decode([token async for token in tokens])
    except EngineError:
        return None


async def rationale_of(judge: Judge, pair: LabelledPair, tier: int) -> str:
    """What the judge says after a tier's label: one line for each field, or the raw text when it breaks the schema.

    Empty when the engine cannot decode.
    """
    text = await decoded(judge, pair, tier)
    if text is None:
        return ""
    parsed = rationale.parse(text, judge.manifest.rationale)
    if parsed is None:
        return f"(not in the schema) {text}"
    attributes = ", ".join(f"{name} {verdict}" for name, verdict in parsed.attributes) or "none"
    return f"category: {parsed.category}\nattributes: {attributes}\ncontext: {parsed.context}\nreason: {parsed.reason}"
