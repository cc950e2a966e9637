"""The completions route of a vLLM server, as one call for all items: requests and replies. Pure.

Prompts travel as lists of token ids, so the server's own tokenizer and templates have no say. `logprob_token_ids` asks
for the labels by id; it needs `logprobs` set, and `return_tokens_as_token_ids`, else labels come keyed by their text
(checked against vLLM 0.32). What comes back is believed only when it is complete.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, Field, ValidationError

from models.engines.label_reads import LabelRead

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPLETIONS: Final = "/v1/completions"
_DONE: Final = "[DONE]"
_CERTAIN: Final = 1e-3  # rounding may lift the log-probability of a certain label above 0


class BadReplyError(Exception):
    """A reply that is not an answer to what was asked; the message says in what respect."""


class _LogProbs(BaseModel):
    top_logprobs: Annotated[list[dict[str, float]], Field(min_length=1)]


class _Choice(BaseModel):
    index: Annotated[int, Field(ge=0)]
    logprobs: _LogProbs


class _Cached(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    prompt_tokens_details: _Cached | None = None


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: _Usage


class _Streamed(BaseModel):
    token_ids: list[int] = []
    finish_reason: str | None = None


class _Chunk(BaseModel):
    choices: list[_Streamed] = []
    error: Any = None


def label_request(
    model: str, prompts: Sequence[Sequence[int]], labels: Sequence[int], *, priority: int | None, scope: str
) -> dict[str, Any]:
    """Body of one call for the labels' log-probabilities after each of N prompts."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": [list(prompt) for prompt in prompts],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": len(labels),
        "logprob_token_ids": list(labels),
        "return_tokens_as_token_ids": True,
    }
    return body | _routing(priority, scope)


def decode_request(
    model: str, prompt: Sequence[int], *, max_tokens: int, end: int, priority: int | None, scope: str
) -> dict[str, Any]:
    """Body of one greedy, streamed completion that says which ids it decoded."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stop_token_ids": [end],
        "stream": True,
        "return_token_ids": True,
    }
    return body | _routing(priority, scope)


def _routing(priority: int | None, scope: str) -> dict[str, Any]:
    return ({} if priority is None else {"priority": priority}) | ({"cache_salt": scope} if scope else {})


def label_reads(content: bytes, prompts: Sequence[Sequence[int]], labels: Sequence[int]) -> list[LabelRead]:
    """Reply to `label_request` -> one read per prompt, in the order of the prompts.

    Raises:
        BadReplyError: not JSON, half of it, another number of answers or tokens, or a label without log-probability.
    """
    try:
        reply = _Completion.model_validate_json(content)
    except ValidationError as error:
        issue = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, issue["loc"])) or "body"
        raise BadReplyError(f"{where}: {issue['msg']}") from error
    if sorted(choice.index for choice in reply.choices) != list(range(len(prompts))):
        raise BadReplyError(f"{len(reply.choices)} answers to {len(prompts)} prompts")
    sent = sum(map(len, prompts))
    if reply.usage.prompt_tokens != sent:
        raise BadReplyError(f"it read {reply.usage.prompt_tokens} prompt tokens, {sent} were sent")
    details = reply.usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) // len(prompts) if details else 0
    reads: list[LabelRead] = []
    for choice in sorted(reply.choices, key=lambda c: c.index):
        found = choice.logprobs.top_logprobs[0]
        values = tuple(found.get(f"token_id:{label}", math.nan) for label in labels)
        for label, value in zip(labels, values, strict=True):
            if not -math.inf < value <= _CERTAIN:  # NaN fails too
                raise BadReplyError(f"answer {choice.index}: no log-probability of label token {label}")
        reads.append(LabelRead(values, cached))
    return reads


def streamed_ids(line: str) -> list[int] | None:
    """One line of the reply to `decode_request` -> the ids it carries, or None at the end of the stream.

    Raises:
        BadReplyError: the line is not an event of that stream, or reports an error.
    """
    if not line or line.startswith(":"):
        return []
    name, _, data = line.partition(":")
    data = data.strip()
    if name != "data":
        raise BadReplyError(f"unexpected line in the stream: {line[:80]!r}")
    if data == _DONE:
        return None
    try:
        chunk = _Chunk.model_validate_json(data)
    except ValidationError as error:
        raise BadReplyError(f"unexpected event in the stream: {data[:80]!r}") from error
    if chunk.error is not None:
        raise BadReplyError(f"the server stopped decoding: {json.dumps(chunk.error)[:200]}")
    return [token for choice in chunk.choices for token in choice.token_ids]
