"""Messages -> the one request type, by the rules of the HTTP door; and bodies -> messages, for the client. Pure.

A message goes through few quick checks. When one of them doubts, the HTTP body's own model decides, so that both doors
refuse the same requests in the same words, and a good request does not pay for that. Items come again and again under
different queries, so those of one tenant are remembered by their bytes: that takes a tenth of reading them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from google.protobuf.message import DecodeError, Message

from models.prompt import Item
from service.errors import MalformedBodyError, invalid
from service.grpc.v1 import relevance_pb2 as pb
from service.parse import validated
from service.request import Candidate, OwnContext, ScoreRequest
from service.schemas import (
    LARGEST_NUMBER,
    LONGEST_DEADLINE_MS,
    ExplainBody,
    OwnContextBody,
    ScoreBody,
    render_attributes,
)

if TYPE_CHECKING:
    from service.request import ContextChoice
    from service.schemas import AttributeValue, ItemBody

Kind = TypeVar("Kind", bound=Message)

_CONTEXTS: Final = {pb.RETRIEVAL_AUTO: "auto", pb.RETRIEVAL_NONE: "none"}


REMEMBERED: Final = 16_384  # items
LONGEST_REMEMBERED: Final = 1_024  # bytes of one; with what is made of them about 3 KiB, so 48 MiB in all at most


class _DoubtfulError(Exception):
    """A quick check does not know; never leaves this module."""


def parse(kind: type[Kind], raw: bytes) -> Kind:
    """A message from its bytes.

    Raises:
        MalformedBodyError: they are no such message, or a text in it is not UTF-8.
    """
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise MalformedBodyError(f"this is no {kind.DESCRIPTOR.full_name} with texts in UTF-8") from error


def score_request(message: pb.ScoreRequest, tenant: str = "") -> ScoreRequest:
    """What a message of a tenant asks for.

    Raises:
        InvalidRequestError: naming up to 20 wrong fields.
    """
    try:
        _check_deadline(message)
        candidates, context = _candidates(message, tenant), _context(message)
        return ScoreRequest(_visible(message.query), candidates, context, _top_n(message), message.model or None)
    except _DoubtfulError:
        body = _common(message)
        body["items"] = [_plain(item, f"#/items/{n}") for n, item in enumerate(message.items)]
        if message.HasField("top_n"):
            body["top_n"] = message.top_n
        return validated(ScoreBody, body).request()


def explain_request(message: pb.ExplainRequest) -> ScoreRequest:
    """What a message asks for: a request with one item.

    Raises:
        InvalidRequestError: naming up to 20 wrong fields.
    """
    try:
        _check_deadline(message)
        candidates, context = (_candidate(message.item),), _context(message)
        return ScoreRequest(_visible(message.query), candidates, context, model=message.model or None)
    except _DoubtfulError:
        body = _common(message)
        if message.HasField("item"):
            body["item"] = _plain(message.item, "#/item")
        return validated(ExplainBody, body).request()


def score_message(body: ScoreBody) -> pb.ScoreRequest:
    """The message of a body of the HTTP door."""
    return pb.ScoreRequest(
        query=body.query,
        items=[_item_message(item) for item in body.items],
        context=_context_message(body.context),
        deadline_ms=body.deadline_ms,
        top_n=body.top_n,
        model=body.model or "",
    )


def explain_message(body: ExplainBody) -> pb.ExplainRequest:
    """The message of a body of the HTTP door."""
    return pb.ExplainRequest(
        query=body.query,
        item=_item_message(body.item),
        context=_context_message(body.context),
        deadline_ms=body.deadline_ms,
        model=body.model or "",
    )


def _item_message(item: ItemBody) -> pb.Item:
    return pb.Item(
        id=item.id,
        title=item.title,
        category=item.category,
        brand=item.brand,
        attributes=[_attribute_message(name, value) for name, value in (item.attributes or {}).items()],
        description=item.description,
    )


def _attribute_message(name: str, value: AttributeValue) -> pb.Attribute:
    match value:
        case bool():
            return pb.Attribute(name=name, flag=value)
        case str():
            return pb.Attribute(name=name, text=value)
        case list():
            return pb.Attribute(name=name, texts=pb.Texts(values=value))
        case _:
            return pb.Attribute(name=name, number=value)


def _context_message(context: Literal["auto", "none"] | OwnContextBody) -> pb.Context | None:
    if isinstance(context, OwnContextBody):
        return pb.Context(text=context.text)
    return None if context == "auto" else pb.Context(retrieval=pb.RETRIEVAL_NONE)


def deadline_ms(message: pb.ScoreRequest | pb.ExplainRequest) -> float | None:
    """How long the caller says that it waits."""
    return message.deadline_ms if message.HasField("deadline_ms") else None


def _check_deadline(message: pb.ScoreRequest | pb.ExplainRequest) -> None:
    if message.HasField("deadline_ms") and not 0 < message.deadline_ms <= LONGEST_DEADLINE_MS:
        raise _DoubtfulError


def _top_n(message: pb.ScoreRequest) -> int | None:
    if not message.HasField("top_n"):
        return None
    if message.top_n < 1:
        raise _DoubtfulError
    return message.top_n


def _visible(text: str) -> str:
    if not text or text.isspace():
        raise _DoubtfulError
    return text


def _candidates(message: pb.ScoreRequest, tenant: str) -> tuple[Candidate, ...]:
    if not message.items:
        raise _DoubtfulError
    return tuple(
        [
            _remembered(tenant, raw) if len(raw := item.SerializeToString()) <= LONGEST_REMEMBERED else _candidate(item)
            for item in message.items
        ]
    )


@lru_cache(REMEMBERED)
def _remembered(tenant: str, raw: bytes) -> Candidate:
    del tenant  # part of the key: no tenant can tell by the clock what another one sent
    return _candidate(pb.Item.FromString(raw))


def _candidate(item: pb.Item) -> Candidate:
    if not item.id:
        raise _DoubtfulError
    attributes = item.attributes
    return Candidate(
        item.id,
        Item(
            title=_visible(item.title),
            brand=item.brand,
            category=item.category,
            attributes=_attributes(item) if attributes else "",
            description=item.description,
        ),
    )


def _attributes(item: pb.Item) -> str:
    values: dict[str, AttributeValue] = {}
    for attribute in item.attributes:
        value = _value(attribute)
        if not attribute.name or value is None or (type(value) is float and not abs(value) <= LARGEST_NUMBER):
            raise _DoubtfulError
        values[attribute.name] = value
    if len(values) != len(item.attributes):
        raise _DoubtfulError
    return render_attributes(values)


def _value(attribute: pb.Attribute) -> AttributeValue | None:
    match attribute.WhichOneof("value"):
        case "text":
            return attribute.text
        case "number":
            return attribute.number
        case "flag":
            return attribute.flag
        case "texts":
            return list(attribute.texts.values)
    return None


def _context(message: pb.ScoreRequest | pb.ExplainRequest) -> ContextChoice:
    if not message.HasField("context"):
        return "auto"
    context = message.context
    if context.WhichOneof("choice") == "text":
        return OwnContext(_visible(context.text))
    if context.retrieval == pb.RETRIEVAL_AUTO:
        return "auto"
    if context.retrieval == pb.RETRIEVAL_NONE:
        return "none"
    raise _DoubtfulError


def _common(message: pb.ScoreRequest | pb.ExplainRequest) -> dict[str, Any]:
    """The fields of both bodies, as JSON would hold them."""
    body: dict[str, Any] = {"query": message.query, "model": message.model or None}
    if message.HasField("deadline_ms"):
        body["deadline_ms"] = message.deadline_ms
    if message.HasField("context"):
        match message.context.WhichOneof("choice"):
            case "text":
                body["context"] = {"text": message.context.text}
            case "retrieval" if message.context.retrieval in _CONTEXTS:
                body["context"] = _CONTEXTS[message.context.retrieval]
            case _:
                raise invalid("#/context", "choose RETRIEVAL_AUTO, RETRIEVAL_NONE or a text, or leave it out")
    return body


def _plain(item: pb.Item, pointer: str) -> dict[str, Any]:
    """An item as JSON would hold it.

    Raises:
        InvalidRequestError: what JSON could not hold: an attribute without a value, or a name twice.
    """
    attributes: dict[str, Any] = {}
    for n, attribute in enumerate(item.attributes):
        value = _value(attribute)
        if value is None:
            raise invalid(f"{pointer}/attributes/{n}/value", "set text, flag, number or texts")
        if attribute.name in attributes:
            raise invalid(f"{pointer}/attributes/{n}/name", "names must be unique within the item, another has it too")
        attributes[attribute.name] = value
    return {
        "id": item.id,
        "title": item.title,
        "category": item.category,
        "brand": item.brand,
        "attributes": attributes,
        "description": item.description,
    }
