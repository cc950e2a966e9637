"""An OpenAI-compatible endpoint as a teacher that explains a gold tier, or as a judge of one step of a rationale.

What comes back is data: a rationale is parsed into the schema's closed values and refused otherwise, and its one free
sentence is encoded like callers' text. No answer, or one that cannot be read, is "unknown", never a guess.
"""

from __future__ import annotations

import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import RequestRefusedError, TrainingError
from models.rationale import RULE_TIERS, AttributeVerdict, CategoryVerdict, ContextUse, Rationale, implied_tiers
from models.train.data.schema import tier_column
from models.train.stages.config import RequestField

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from models.manifest import Tier
    from models.train.data.schema import Row
    from models.train.stages.config import Endpoint

_log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.2  # after the first failure, doubled after each
_PATIENCE_S: Final = 30.0  # longest pause that an endpoint can ask for
_MOST: Final = 12  # attributes of one rationale; more is a list of everything, not of what the query asks
_NAME: Final = 40  # characters of an attribute's name
_REASON: Final = 200  # characters of a reason
_SAID: Final = 200  # characters of a refusal
_HOPELESS: Final = frozenset({401, 404})  # key, model or address: no other request will fare better
_REFUSED: Final = frozenset({400, 403, 413, 422})  # a field that it does not know, or a text that it does not take


class _Taught(BaseModel):
    """The JSON that the teacher is asked for."""

    model_config = ConfigDict(extra="ignore")

    category: CategoryVerdict
    attributes: dict[str, AttributeVerdict] = Field(default_factory=dict, max_length=_MOST)
    context: ContextUse = ContextUse.IGNORE
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion.

    Attributes:
        text: empty where the endpoint gave none, as one that thought to its limit does.
        cut: it ended at the limit of tokens, not of its own accord.
    """

    text: str
    cut: bool = False


def ask(
    endpoint: Endpoint, prompt: str, *, temperature: float = 0.0, schema: Mapping[str, Any] | None = None
) -> Answer | None:
    """One completion, or None when the endpoint gave none in three attempts.

    Args:
        endpoint: where to ask; its key comes from the environment.
        prompt: of the only message.
        temperature: above 0 where another answer than the last one is wanted.
        schema: what the answer must be, as JSON schema.

    Raises:
        RequestRefusedError: it does not take this prompt; others it does.
        TrainingError: it refuses every request: wrong key, model or address, or a field that it does not know.
    """
    try:
        return _asked(endpoint, prompt, temperature, schema)
    except RequestRefusedError as refusal:
        try:
            _asked(endpoint, _HARMLESS, temperature, schema)
        except RequestRefusedError:
            raise TrainingError(str(refusal)) from None
        raise


def _asked(endpoint: Endpoint, prompt: str, temperature: float, schema: Mapping[str, Any] | None) -> Answer | None:
    key = os.environ.get(endpoint.key_variable, "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    optional = _optional(endpoint, temperature, schema)
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": prompt}], **optional}
    asked_pause = 0.0
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(max(asked_pause, _PAUSE_S * 2 ** (attempt - 1)))
            asked_pause = 0.0
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
        told = f"{endpoint.url} answers {answer.status_code} for model {endpoint.model!r}"
        told += f": {json.dumps(answer.text[:_SAID])}"
        if answer.is_success:
            return _completion(answer, told)
        if answer.status_code in _HOPELESS:
            raise TrainingError(told)
        if answer.status_code in _REFUSED:
            unknown = f"; if it does not know one of {', '.join(optional)}, name it in `omit`, or --omit"
            raise RequestRefusedError(f"{told}{unknown if optional else ''}")
        asked_pause = _asked_pause(answer)
    return None


def _optional(endpoint: Endpoint, temperature: float, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a request that an endpoint may not know."""
    fields: dict[RequestField, Any] = {
        RequestField.TEMPERATURE: temperature,
        RequestField.LENGTH: endpoint.longest,
    }
    if schema is not None:
        held = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        fields[RequestField.SCHEMA] = held
    return {str(name): value for name, value in fields.items() if name not in endpoint.omit}


def _asked_pause(answer: httpx.Response) -> float:
    """Seconds that an endpoint asks to be left alone for; 0 where it does not say, or gives a date."""
    try:
        return min(_PATIENCE_S, max(0.0, float(answer.headers.get("retry-after", 0))))
    except ValueError:
        return 0.0


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """The known authorities, read once: reading them costs more than a request does."""
    return httpx.create_ssl_context()


def _completion(answer: httpx.Response, told: str) -> Answer | None:
    try:
        choice = answer.json()["choices"][0]
        text, ended = choice["message"].get("content"), choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    if ended == "content_filter":
        raise RequestRefusedError(told)
    return Answer(text if isinstance(text, str) else "", cut=ended == "length")


def teacher_answer(
    endpoint: Endpoint, row: Row, rules: Sequence[str] = (), *, tiers: Sequence[Tier] = ()
) -> Rationale | None:
    """A rationale for the gold tier, given the rules that apply (2508.12365, making of the CoT data)."""
    answer = ask_teacher(endpoint, row, rules, tiers=tiers)
    return None if answer is None else read_rationale(answer.text)


def ask_teacher(
    endpoint: Endpoint, row: Row, rules: Sequence[str] = (), *, tiers: Sequence[Tier] = (), temperature: float = 0.0
) -> Answer | None:
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
    column = tier_column(row.tier or "", tiers)
    wanted = _WANTED.format(tier=row.tier if column is None else tiers[column].name)
    follows = f"\n{_follows(tiers)}" if len(tiers) == RULE_TIERS else ""
    return f"{_pair(row)}{_rules(rules)}\n{wanted}{follows}"


def _follows(tiers: Sequence[Tier]) -> str:
    """The rule table in words."""
    lines = ["The verdicts must fit the tier:"]
    for said, category, attributes in _CASES:
        names = " or ".join(tiers[column].name for column in sorted(implied_tiers(category, attributes)))
        lines.append(f"- {said}: {names}")
    return "\n".join(lines)


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
    """Whether one step of a rationale is right; None when the judge abstains, refuses the pair, or cannot be read."""
    prompt = (
        f"{_pair(row)}\nA judge wrote this about the step {step!r}: {json.dumps(said)}\n"
        "Write one sentence of critique, then on a line of its own: RIGHT, WRONG or UNSURE."
    )
    try:
        answer = ask(endpoint, prompt)
    except RequestRefusedError as refusal:
        _log.warning("a step is left unjudged: %s", refusal)
        return None
    words = answer.text.split() if answer is not None else ()
    return {"RIGHT": True, "WRONG": False}.get(words[-1].strip(".*").upper()) if words else None


def judge_steps(endpoint: Endpoint, asked: Sequence[tuple[Row, str, str]]) -> list[bool | None]:
    """`judge_step` for each (row, step, text), as many at a time as the endpoint takes.

    Raises:
        TrainingError: it refuses every request.
    """
    with ThreadPoolExecutor(endpoint.concurrency) as pool:
        return list(pool.map(lambda one: judge_step(endpoint, *one), asked))


_HARMLESS: Final = "Say yes."  # who refuses this refuses everything

_WANTED: Final = (
    "The right tier is {tier}. Explain it as JSON with the keys category (match, related, mismatch), attributes (an "
    "object: each thing that the query asks for -> ok, unknown, violated), context (adopt, partial, ignore: what you "
    "did with the knowledge), reason (one short sentence). JSON alone."
)

# Each case of the rule table in words, with verdicts that are one; which tiers it allows is asked of the table.
_CASES: Final[Sequence[tuple[str, CategoryVerdict, Mapping[str, AttributeVerdict]]]] = (
    ("category match, no attribute unknown or violated", CategoryVerdict.MATCH, {"colour": AttributeVerdict.OK}),
    (
        "category match, an attribute unknown and none violated",
        CategoryVerdict.MATCH,
        {"colour": AttributeVerdict.UNKNOWN},
    ),
    ("category match, an attribute violated", CategoryVerdict.MATCH, {"colour": AttributeVerdict.VIOLATED}),
    (
        "category match, an attribute named brand, model or fits violated",
        CategoryVerdict.MATCH,
        {"brand": AttributeVerdict.VIOLATED},
    ),
    ("category related", CategoryVerdict.RELATED, {}),
    ("category mismatch", CategoryVerdict.MISMATCH, {}),
)


def _pair(row: Row) -> str:
    told: dict[str, Any] = {"query": row.query, "item": row.item.model_dump(exclude_defaults=True)}
    if row.context:
        told["knowledge"] = row.context
    return f"A shopping query and an item, as data:\n{json.dumps(told, ensure_ascii=False)}"


def _rules(rules: Sequence[str]) -> str:
    return "\nRules that apply:\n" + "\n".join(f"- {rule}" for rule in rules) if rules else ""
