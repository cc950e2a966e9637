"""Does a server run the checkpoint that the manifest describes? Asked before it gets its first request, and on return.

A wrong score with status 200 is the failure to fear: everything that can differ is compared, and named when it does.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from models.canaries import canary_problems
from models.errors import EngineBusyError, EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.deadline import Deadline
    from models.engines.vllm_server.server import Server
    from models.manifest import Manifest
    from models.tokenizer import FieldTokenizer

# Texts that tell tokenizers apart: case, digits, accents, scripts, punctuation, white space, rare words.
_TEXTS: Final = (
    "Tierwise reads 1,024 GB NVMe M.2 (2280) PCIe-4.0 drives",
    "naïve café — 日本語 žluťoučký кофе ß ﬁ ½",
    "wi-fi\tUSB-C  100%  #42 @home e.g. x86_64 'quoted' \"double\" [UNK] </s> <|endoftext|>",
    "antidisestablishmentarianism 00000000000000000017 ..... !!!",
)


_Reply = TypeVar("_Reply", bound=BaseModel)


class _Card(BaseModel):
    id: str
    parent: str | None = None
    max_model_len: int | None = None


class _Cards(BaseModel):
    data: list[_Card]


class _Tokens(BaseModel):
    tokens: list[int]


class _Text(BaseModel):
    prompt: str


async def differences(
    server: Server,
    manifest: Manifest,
    tokenizer: FieldTokenizer,
    canaries: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    model: str | None,
    deadline: Deadline,
) -> list[str]:
    """One sentence for everything in which the server is not the manifest's checkpoint; also fills in what it is.

    Args:
        server: its `model`, `limit` and `takes_priority` are set here.
        manifest: what it should be.
        tokenizer: the checkpoint's own.
        canaries: prefix and suffix ids of the manifest's canaries.
        model: the name it must serve; its only base model when None.
        deadline: for the whole comparison.

    Raises:
        EngineUnavailableError, EngineBusyError: it does not answer; nothing can be said.
    """
    problems = await _model(server, manifest, model, deadline)
    if problems:
        return problems
    problems += await _labels(server, manifest, tokenizer, deadline)
    problems += await _tokenizer(server, tokenizer, deadline)
    problems += await _answers(server, manifest, canaries, deadline)
    return problems


async def _model(server: Server, manifest: Manifest, model: str | None, deadline: Deadline) -> list[str]:
    cards = _parsed(_Cards, await server.get("/v1/models", deadline), "/v1/models").data
    named = [card for card in cards if card.id == model] if model else [card for card in cards if not card.parent]
    if len(named) != 1:
        return [f"serves the models {[card.id for card in cards]}, not {model or 'exactly one base model'}"]
    server.model, server.limit = named[0].id, named[0].max_model_len or manifest.max_tokens + 1
    if server.limit <= manifest.max_tokens:
        need = f"the manifest's prompts need {manifest.max_tokens} and one for the answer"
        return [f"its context is {server.limit} tokens (--max-model-len), {need}"]
    return []


async def _labels(server: Server, manifest: Manifest, tokenizer: FieldTokenizer, deadline: Deadline) -> list[str]:
    """A label is a token id here; the same id must be the same token there."""
    problems = []
    for tier in manifest.tiers:
        body = {"model": server.model, "tokens": [tier.token_id]}
        content = await _if_offered(server, "/detokenize", body, deadline)
        if content is None:
            return []
        here, there = tokenizer.decode([tier.token_id]).strip(), _parsed(_Text, content, "/detokenize").prompt.strip()
        if here != there:
            problems.append(f"label token {tier.token_id} of tier {tier.name} is {there!r} there, {here!r} here")
    return problems


async def _tokenizer(server: Server, tokenizer: FieldTokenizer, deadline: Deadline) -> list[str]:
    """Tokenizers cannot be hashed over HTTP; what they do to the same texts can."""
    here, there = hashlib.sha256(), hashlib.sha256()
    differing = []
    for text in _TEXTS:
        body = {"model": server.model, "prompt": text, "add_special_tokens": False}
        content = await _if_offered(server, "/tokenize", body, deadline)
        if content is None:
            return []
        ours, theirs = list(tokenizer.literal(text)), _parsed(_Tokens, content, "/tokenize").tokens
        here.update(json.dumps(ours).encode())
        there.update(json.dumps(theirs).encode())
        if ours != theirs:
            differing.append(text)
    if not differing:
        return []
    hashes = f"hash {there.hexdigest()[:12]} there, {here.hexdigest()[:12]} here"
    return [f"its tokenizer is another one: {hashes}; the first text that differs is {differing[0]!r}"]


async def canary_differences(
    server: Server, manifest: Manifest, canaries: Sequence[tuple[Sequence[int], Sequence[int]]], deadline: Deadline
) -> list[str]:
    """Scores show what names cannot: other weights, a template they were not trained with, a coarse quantisation.

    Raises: as `Server.read_labels`.
    """
    prompts = [[*prefix, *suffix] for prefix, suffix in canaries] or [[manifest.rationale.end_token_id]]
    reads = await server.read_labels(prompts, manifest.label_token_ids, deadline=deadline, scope="")
    return canary_problems(manifest, np.array([read.logprobs for read in reads], dtype=np.float32))


async def _answers(
    server: Server, manifest: Manifest, canaries: Sequence[tuple[Sequence[int], Sequence[int]]], deadline: Deadline
) -> list[str]:
    for server.takes_priority in (True, False):  # refused by servers without --scheduling-policy priority
        try:
            return await canary_differences(server, manifest, canaries, deadline)
        except (EngineUnavailableError, EngineBusyError):
            raise
        except EngineError as error:
            if not server.takes_priority or "priority" not in str(error).lower():
                return [f"does not answer the request for label log-probabilities: {error}"]
    raise AssertionError("the second turn returns or raises")


async def _if_offered(server: Server, path: str, body: Mapping[str, Any], deadline: Deadline) -> bytes | None:
    """None when the server keeps no tokenizer (--skip-tokenizer-init) or hides the route: ids are all it needs."""
    try:
        return await server.post(path, body, deadline)
    except (EngineUnavailableError, EngineBusyError):
        raise
    except EngineError:
        return None


def _parsed(kind: type[_Reply], content: bytes, path: str) -> _Reply:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise EngineUnavailableError(f"{path} answers with something else: {content[:80]!r}") from error
