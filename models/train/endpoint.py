"""An OpenAI-compatible endpoint as a teacher that explains a gold tier, or as a judge of one step of a rationale.

What comes back is data: a rationale is parsed into the schema's closed values and refused otherwise, and its one free
sentence is encoded like callers' text. No answer, or one that cannot be read, is "unknown", never a guess.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import TrainingError
from models.rationale import RULE_TIERS, AttributeVerdict, CategoryVerdict, ContextUse, Rationale

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from models.manifest import Tier
    from models.train.data.schema import Row
    from models.train.stages.config import Endpoint

_ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.2  # after the first failure, doubled after each
_MOST: Final = 12  # attributes of one rationale; more is a list of everything, not of what the query asks
_NAME: Final = 40  # characters of an attribute's name
_REASON: Final = 200  # characters of a reason
_SAID: Final = 200  # characters of a refusal
_BAD_REQUEST: Final = 400
_REFUSED: Final = frozenset({_BAD_REQUEST, 401, 403, 404, 422})


class _Taught(BaseModel):
    """The JSON that the teacher is asked for."""

    model_config = ConfigDict(extra="ignore")

    category: CategoryVerdict
    attributes: dict[str, AttributeVerdict] = Field(default_factory=dict, max_length=_MOST)
    context: ContextUse = ContextUse.IGNORE
    reason: str = ""


def ask(
    endpoint: Endpoint, prompt: str, *, temperature: float = 0.0, schema: Mapping[str, Any] | None = None
) -> str | None:
    """One completion, or None when the endpoint gave none in three attempts.

    Args:
        endpoint: where to ask; its key comes from the environment.
        prompt: of the only message.
        temperature: above 0 where another answer than the last one is wanted.
        schema: what the answer must be, as JSON schema; not sent to an endpoint that is not `structured`.

    Raises:
        TrainingError: the endpoint refuses the request for good: wrong key, model or address, or it knows no schemas.
    """
    key = os.environ.get(endpoint.key_variable, "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body: dict[str, Any] = {
        "model": endpoint.model,
        "temperature": temperature,
        "max_completion_tokens": endpoint.longest,
        "messages": [{"role": "user", "content": prompt}],
    }
    if schema is not None and endpoint.structured:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S * 2 ** (attempt - 1))
        try:
            answer = httpx.post(
                f"{endpoint.url.rstrip('/')}/chat/completions",
                json=body,
                headers=headers,
                timeout=endpoint.timeout_s,
                verify=_trust(),
            )
        except httpx.HTTPError:
            continue
        if answer.status_code in _REFUSED:
            raise TrainingError(_refusal(endpoint, answer))
        if answer.is_success:
            return _content(answer)
    return None


def _refusal(endpoint: Endpoint, answer: httpx.Response) -> str:
    told = f"{endpoint.url} answers {answer.status_code} for model {endpoint.model!r}"
    said = json.dumps(answer.text[:_SAID])
    if answer.status_code == _BAD_REQUEST and endpoint.structured:
        return f"{told}: {said}; if it knows no response_format, ask without: structured: false, or --no-structured"
    return f"{told}: {said}"


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """The known authorities, read once: reading them costs more than a request does."""
    return httpx.create_ssl_context()


def _content(answer: httpx.Response) -> str | None:
    try:
        return str(answer.json()["choices"][0]["message"]["content"])
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def teacher_answer(
    endpoint: Endpoint, row: Row, rules: Sequence[str] = (), *, tiers: Sequence[Tier] = ()
) -> Rationale | None:
    """A rationale for the gold tier, given the rules that apply (2508.12365, making of the CoT data)."""
    answer = ask_teacher(endpoint, row, rules, tiers=tiers)
    return None if answer is None else read_rationale(answer)


def ask_teacher(
    endpoint: Endpoint, row: Row, rules: Sequence[str] = (), *, tiers: Sequence[Tier] = (), temperature: float = 0.0
) -> str | None:
    """A teacher's answer as it came, or None when there was none; `read_rationale` reads it. Arguments are `ask`'s."""
    return ask(endpoint, teacher_prompt(row, rules, tiers), temperature=temperature, schema=rationale_schema())


@lru_cache(maxsize=1)
def rationale_schema() -> Mapping[str, Any]:
    """What a teacher's answer must be, as JSON schema."""
    schema = _Taught.model_json_schema()
    schema["properties"]["reason"]["maxLength"] = _REASON  # a longer one is cut; a small teacher would ramble on
    return {**schema, "required": list(schema["properties"]), "additionalProperties": False}


def teacher_prompt(row: Row, rules: Sequence[str] = (), tiers: Sequence[Tier] = ()) -> str:
    """What a teacher is asked: the pair as data, the rules that apply, and the gold tier to explain.

    Of four tiers it is told what verdicts they follow from (`implied_tiers`): its answer is held to that.
    """
    follows = _FOLLOWS.format(*(tier.name for tier in tiers)) if len(tiers) == RULE_TIERS else ""
    return f"{_pair(row)}{_rules(rules)}\n{_WANTED.format(tier=row.tier)}{follows}"


def read_rationale(answer: str) -> Rationale | None:
    """The rationale in a teacher's answer; None where its JSON breaks the schema."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        taught = _Taught.model_validate_json(answer[start : end + 1])
    except ValidationError:
        return None
    attributes = ((_line(name.replace(",", " "), _NAME), verdict) for name, verdict in taught.attributes.items())
    kept = tuple((name, verdict) for name, verdict in attributes if name)
    return Rationale(taught.category, kept, taught.context, _line(taught.reason, _REASON))


def _line(text: str, limit: int) -> str:
    """One line of printable characters."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:limit].strip()


def judge_step(endpoint: Endpoint, row: Row, step: str, said: str) -> bool | None:
    """Whether one step of a rationale is right; None when the judge abstains or cannot be read."""
    answer = ask(
        endpoint,
        f"{_pair(row)}\nA judge wrote this about the step {step!r}: {json.dumps(said)}\n"
        "Write one sentence of critique, then on a line of its own: RIGHT, WRONG or UNSURE.",
    )
    words = (answer or "").split()
    return {"RIGHT": True, "WRONG": False}.get(words[-1].strip(".*").upper()) if words else None


def judge_steps(endpoint: Endpoint, asked: Sequence[tuple[Row, str, str]]) -> list[bool | None]:
    """`judge_step` for each (row, step, text), as many at a time as the endpoint takes."""
    with ThreadPoolExecutor(endpoint.concurrency) as pool:
        return list(pool.map(lambda a: judge_step(endpoint, *a), asked))


_WANTED: Final = (
    "The right tier is {tier}. Explain it as JSON with the keys category (match, related, mismatch), attributes (an "
    "object: each thing that the query asks for -> ok, unknown, violated), context (adopt, partial, ignore: what you "
    "did with the knowledge), reason (one short sentence). JSON alone."
)

_FOLLOWS: Final = (
    "\nA tier follows from the verdicts: {0} when category is match and each attribute is ok; {1} when category is "
    "match and an attribute is unknown; {2} when category is related, or is match and an attribute is violated; {3} "
    "when category is mismatch."
)


def _pair(row: Row) -> str:
    told: dict[str, Any] = {"query": row.query, "item": row.item.model_dump(exclude_defaults=True)}
    if row.context:
        told["knowledge"] = row.context
    return f"A shopping query and an item, as data:\n{json.dumps(told, ensure_ascii=False)}"


def _rules(rules: Sequence[str]) -> str:
    return "\nRules that apply:\n" + "\n".join(f"- {rule}" for rule in rules) if rules else ""
