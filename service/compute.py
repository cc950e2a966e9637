"""The engine's part of a request: write the prompt, get room for its tokens, have it scored or a rationale decoded."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.engines.port import ItemStatus
from models.errors import ModelError
from service.errors import DeadlineError, from_model
from service.reply import Degraded
from service.rows import scored, unscored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.deadline import Deadline
    from models.engines.port import Scores
    from models.prompt import Item, Prompt
    from service.admission.admission import Admission
    from service.fetch import Fetched
    from service.pipeline import Judge
    from service.request import Call, ScoreRequest
    from service.rows import Rows

INLINE_MS = 1  # of writing a prompt, the most that the event loop may stand still for it
# Kept back of the deadline, but for a tenth of it at most: what the engine answered still has to be judged, written and
# sent, by a thread that may have to wait for its core.
ANSWER_SECONDS, ANSWER_SECONDS_PER_ITEM, ANSWER_SHARE = 0.005, 0.0001, 0.1
DECODE_TOKENS = 24  # of a prompt, that take as long as one step of decoding


@dataclass(frozen=True, slots=True)
class Computed:
    """What the engine made of M items of a request."""

    prompt: Prompt
    rows: Rows
    cached_tokens: int


class Compute:
    """One judge behind admission.

    Args:
        judge: whose engine computes.
        admission: asked before anything is computed.
        grace: seconds of patience past the deadline.
    """

    def __init__(self, judge: Judge, admission: Admission, grace: float) -> None:
        self._judge = judge
        self._admission = admission
        self._grace = grace

    async def score(
        self, request: ScoreRequest, positions: Sequence[int], fetched: Fetched, call: Call, *, then: int = 0
    ) -> Computed:
        """Write the prompt of some items and have the engine score it, or as many of the first as it can take on.

        The prompt's tokens are what it costs, and `then` is what the same call will want of the engine after.

        Raises:
            OverloadedError: it would not end in time; nothing was computed.
            DeadlineError, NotReadyError: the engine did not answer.
        """
        items = [request.candidates[n].item for n in positions]
        lengths = [_characters(item) for item in items]
        lengths[0] += len(request.query) + len(fetched.chunk or "")
        deadline = _engine_deadline(call.deadline, len(items))
        self._admission.expect(call.caller, deadline, lengths)
        with stage(call, "write"), as_service_errors():
            prompt = await self._write(request.query, fetched.chunk, items, sum(lengths))
        prefix, costs = len(prompt.prefix.ids), [len(s.ids) for s in prompt.suffixes]
        with (
            self._admission.admit(call.caller, deadline, prefix, costs, then=then, characters=sum(lengths)) as ticket,
            stage(call, "score"),
            as_service_errors(),
        ):
            taken = replace(prompt, suffixes=prompt.suffixes[: ticket.items])
            scores = await self._ask(taken, deadline, call)
            ticket.computed = scores.status.count(ItemStatus.OK) / len(scores.status)
        rows = scored(taken, scores)
        if ticket.items < len(items):
            why = Degraded.FIRST_ITEMS if ticket.shed else None
            left = unscored(len(items) - ticket.items, len(self._judge.manifest.tiers), ItemStatus.EXPIRED, why)
            rows = np.concatenate([rows, left])
        return Computed(taken, rows, scores.cached_tokens)

    async def decode(self, prompt: Prompt, label: int, call: Call) -> list[int]:
        """Token ids of the first item's rationale after a label, until its end, a limit or the deadline."""
        manifest = self._judge.manifest
        stream = self._judge.engine.explain(
            prompt.prefix.ids,
            prompt.suffixes[0].ids,
            call.deadline,
            label=label,
            max_tokens=manifest.rationale.max_tokens,
            scope=call.caller.tenant,
        )
        ids = [token async for token in stream]
        return ids[:-1] if ids and ids[-1] == manifest.rationale.end_token_id else ids

    async def _write(self, query: str, chunk: str | None, items: Sequence[Item], characters: int) -> Prompt:
        if characters <= INLINE_MS * self._judge.tokenizer.characters_per_ms:
            return self._judge.writer.write(query, chunk, items)
        return await asyncio.to_thread(self._judge.writer.write, query, chunk, items)

    async def _ask(self, prompt: Prompt, deadline: Deadline, call: Call) -> Scores:
        """Ask the engine; it drops what is late, and the timeout is for an engine that hangs."""
        remaining = call.deadline.remaining()
        if remaining == 0.0:
            raise DeadlineError("the deadline passed before the engine was asked; allow more time or send fewer items")
        timeout = None if remaining == float("inf") else remaining + self._grace
        suffixes = [s.ids for s in prompt.suffixes]
        engine = self._judge.engine
        try:
            async with asyncio.timeout(timeout):
                scores = await engine.score(prompt.prefix.ids, suffixes, deadline, scope=call.caller.tenant)
        except TimeoutError as error:
            raise DeadlineError("the engine did not answer before the deadline") from error
        if scores.queued_ms is not None:
            call.timings_ms["queue"] = round(call.timings_ms.get("queue", 0.0) + scores.queued_ms, 3)
        return scores


@contextmanager
def stage(call: Call, name: str) -> Iterator[None]:
    """Add the time in this context to a stage of the call."""
    started = time.monotonic()
    try:
        yield
    finally:
        call.timings_ms.add(name, started)


@contextmanager
def as_service_errors() -> Iterator[None]:
    """Turn what the judge raises into what a caller is told."""
    try:
        yield
    except ModelError as error:
        raise from_model(error) from error


def _engine_deadline(deadline: Deadline, items: int) -> Deadline:
    answer = ANSWER_SECONDS + ANSWER_SECONDS_PER_ITEM * items
    return deadline.before(min(answer, ANSWER_SHARE * deadline.remaining()))


def _characters(item: Item) -> int:
    return len(item.title) + len(item.brand) + len(item.category) + len(item.attributes) + len(item.description)
