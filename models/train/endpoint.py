"""An OpenAI-compatible endpoint as a teacher that explains a gold tier, or as a judge of one step of a rationale.

What comes back is data: a rationale is parsed into the schema's closed values and refused otherwise, and its one free
sentence is encoded like callers' text. No answer, or one that cannot be read, is "unknown", never a guess.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import TrainingError
from models.rationale import AttributeVerdict, CategoryVerdict, ContextUse, Rationale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.train.data.schema import Row
    from models.train.stages.config import Endpoint

_ATTEMPTS: Final = 3
_REFUSED: Final = frozenset({400, 401, 403, 404})


class _Taught(BaseModel):
    """The JSON that the teacher is asked for."""

    model_config = ConfigDict(extra="ignore")

    category: CategoryVerdict
    attributes: dict[str, AttributeVerdict] = Field(default_factory=dict)
    context: ContextUse = ContextUse.IGNORE
    reason: str = ""


def ask(endpoint: Endpoint, prompt: str) -> str | None:
    """One completion, or None when the endpoint gave none in three attempts.

    Raises:
        TrainingError: the endpoint refuses the request for good: wrong key, model or address.
    """
    key = os.environ.get(endpoint.key_variable, "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"model": endpoint.model, "temperature": 0, "messages": [{"role": "user", "content": prompt}]}
    for _ in range(_ATTEMPTS):
        try:
            answer = httpx.post(
                f"{endpoint.url.rstrip('/')}/chat/completions", json=body, headers=headers, timeout=endpoint.timeout_s
            )
        except httpx.HTTPError:
            continue
        if answer.status_code in _REFUSED:
            raise TrainingError(f"{endpoint.url} answers {answer.status_code} for model {endpoint.model!r}")
        if answer.is_success:
            return _content(answer)
    return None


def _content(answer: httpx.Response) -> str | None:
    try:
        return str(answer.json()["choices"][0]["message"]["content"])
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def teacher_answer(endpoint: Endpoint, row: Row, rules: Sequence[str] = ()) -> Rationale | None:
    """A rationale for the gold tier, given the rules that apply (2508.12365, making of the CoT data)."""
    answer = ask(endpoint, f"{_pair(row)}{_rules(rules)}\n{_WANTED.format(tier=row.tier)}")
    if answer is None:
        return None
    start, end = answer.find("{"), answer.rfind("}")
    try:
        taught = _Taught.model_validate_json(answer[start : end + 1])
    except ValidationError:
        return None
    attributes = tuple((name.replace(",", " ").strip(), verdict) for name, verdict in taught.attributes.items())
    return Rationale(taught.category, tuple((n, v) for n, v in attributes if n), taught.context, taught.reason)


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


def _pair(row: Row) -> str:
    told: dict[str, Any] = {"query": row.query, "item": row.item.model_dump(exclude_defaults=True)}
    if row.context:
        told["knowledge"] = row.context
    return f"A shopping query and an item, as data:\n{json.dumps(told, ensure_ascii=False)}"


def _rules(rules: Sequence[str]) -> str:
    return "\nRules that apply:\n" + "\n".join(f"- {rule}" for rule in rules) if rules else ""
