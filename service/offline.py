"""Offline scoring: a file of pairs through the same pipeline as the doors, without deadlines.

Pairs are read in windows; within one, pairs of the same query share a request, so that its prefix is computed once.
Every line of input has one line of output in its place, also a bad one: the count of lines written is the state that a
second run goes on from.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from models.deadline import Deadline
from service.errors import OverloadedError, ServiceError
from service.limits import ONE_ITEM, check_limits
from service.parse import parse_body
from service.reply import Degraded
from service.request import Call, Candidate, ScoreRequest
from service.schemas import PairBody

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.pipeline import Pipeline
    from service.reply import ItemResult
    from service.settings import Limits

IN_FLIGHT = 4  # requests at once: enough that the engine always has the next one while a window is judged
TRIES = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One line of input: its number in the file, from 1, and its bytes."""

    number: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that cannot be scored, and what to change."""

    number: int
    id: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A line that can."""

    number: int
    query: str
    candidate: Candidate


def read_pair(line: Line, limits: Limits) -> Pair | Bad:
    """Parse and check one line by the rules of the HTTP door."""
    item_id = None
    try:
        body = parse_body(PairBody, line.raw)
        item_id = body.item.id
        candidate = body.item.candidate()
        check_limits(ScoreRequest(body.query, (candidate,)), limits, ONE_ITEM)
    except ServiceError as error:
        return Bad(line.number, item_id, error.detail)
    return Pair(line.number, body.query, candidate)


async def score_window(
    pipeline: Pipeline, lines: Sequence[Line], limits: Limits, context: Literal["auto", "none"]
) -> list[dict[str, Any]]:
    """Score a window of lines.

    Returns:
        One JSON-able row for each line, in their order.

    Raises:
        ServiceError: the engine or the knowledge failed; the window is not scored and may be tried again.
    """
    rows: dict[int, dict[str, Any]] = {}
    groups: defaultdict[str, list[Pair]] = defaultdict(list)
    for line in lines:
        match read_pair(line, limits):
            case Bad() as bad:
                rows[bad.number] = bad_row(bad)
            case Pair() as pair:
                groups[pair.query].append(pair)
    batches = [g[at : at + limits.items] for g in groups.values() for at in range(0, len(g), limits.items)]
    gate = asyncio.Semaphore(IN_FLIGHT)
    try:
        async with asyncio.TaskGroup() as tasks:
            scored = [tasks.create_task(_score_batch(pipeline, batch, context, gate)) for batch in batches]
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
    for batch in scored:
        rows.update(batch.result())
    return [rows[line.number] for line in lines]


def bad_row(bad: Bad) -> dict[str, Any]:
    """The output in a bad line's place."""
    empty = dict.fromkeys(("tier", "label", "band", "score", "margin", "probabilities"))
    return {"id": bad.id, **empty, "status": "invalid", "line": bad.number, "error": bad.detail}


async def _score_batch(
    pipeline: Pipeline, batch: Sequence[Pair], context: Literal["auto", "none"], gate: asyncio.Semaphore
) -> dict[int, dict[str, Any]]:
    # Ids may repeat from line to line; within a request the line's number is the name.
    candidates = tuple(Candidate(str(pair.number), pair.candidate.item) for pair in batch)
    request = ScoreRequest(batch[0].query, candidates, context)
    async with gate:
        results = await _patiently(pipeline, request)
    return {batch[r.index].number: _row(batch[r.index].candidate.id, r) for r in results}


async def _patiently(pipeline: Pipeline, request: ScoreRequest) -> tuple[ItemResult, ...]:
    """Score; a full engine is asked again, anything else ends the run."""
    for tried in range(TRIES):
        try:
            reply = await pipeline.score(request, Call("offline", Deadline.never(), time.monotonic()))
        except OverloadedError:
            await asyncio.sleep(0.1 * 2**tried)
            continue
        if Degraded.CONTEXT in reply.degraded:
            raise ServiceError("the knowledge snapshot failed; the log has the reason")
        return reply.results
    raise OverloadedError("the engine stayed full; run the command again to go on")


def _row(item_id: str, result: ItemResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": item_id,
        "tier": result.tier,
        "label": result.label,
        "band": result.band,
        "score": result.score,
        "margin": result.margin,
        "probabilities": result.probabilities,
        "status": result.status,
    }
    if result.truncated:
        row["truncated"] = result.truncated
    if result.unrepresentable:
        row["unrepresentable"] = result.unrepresentable
    return row
