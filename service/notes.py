"""What the log line of an answered call says beyond the usual. Never its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.reply import ExplainReply, ScoreReply
    from service.request import ScoreRequest


def note(notes: dict[str, Any], asked: ScoreRequest, reply: ScoreReply | ExplainReply) -> None:
    """Take note of what was asked and answered."""
    notes["checkpoint"] = reply.versions.checkpoint
    notes["items"] = len(asked.candidates)
    notes["tokens"] = reply.usage.total_tokens
    notes["chunk"] = reply.context.chunk_id if reply.context else None
    if reply.degraded:
        notes["degraded"] = reply.degraded
