"""Request bodies of the HTTP door, and how each becomes the one request type. Strict: nothing is coerced or ignored."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.prompt import Item
from service.request import Candidate, ContextChoice, OwnContext, ScoreRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_DEADLINE_MS = 3_600_000
LARGEST_NUMBER = 1e15  # whole numbers are exact in a double up to here; what is larger is no attribute of a product

_EXAMPLE_ITEM: dict[str, Any] = {
    "id": "sku-1",
    "title": "WH-1000XM4 Wireless Noise Cancelling Headphones, Black",
    "category": "Headphones",
    "brand": "Sony",
    "attributes": {"wireless": True, "battery hours": 30, "colours": ["black"]},
}
_OTHER_ITEM: dict[str, Any] = {"id": "sku-2", "title": "Hard case for WH-1000XM4", "category": "Headphone accessories"}


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _representable(value: float) -> float:
    if not abs(value) <= LARGEST_NUMBER:  # so written, it refuses NaN too
        msg = f"a number must lie within +-{LARGEST_NUMBER:.0e}"
        raise ValueError(msg)
    return value


_Bounds = {"minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
Number = Annotated[int | float, AfterValidator(_representable), Field(json_schema_extra=_Bounds)]
AttributeValue = str | bool | Number | list[str]
DeadlineMs = Annotated[
    float | None,
    Field(
        gt=0,
        le=LONGEST_DEADLINE_MS,
        allow_inf_nan=False,
        description="milliseconds the caller waits, from when it sent the request",
    ),
]
TopN = Annotated[int | None, Field(ge=1, description="return only this many of the best")]
ModelName = Annotated[
    str | None,
    Field(min_length=1, description="the judge to ask, one of GET /v1/models; the checkpoint's own if left out"),
]


class ItemBody(_Body):
    """One item of a catalogue."""

    id: Annotated[str, Field(min_length=1, description="unique within the request; comes back with the verdict")]
    title: Text
    category: str | None = None
    brand: str | None = None
    attributes: Annotated[
        dict[Annotated[str, Field(min_length=1)], AttributeValue] | None,
        Field(description='judged as "name value, name value", in the order sent'),
    ] = None
    description: str | None = None

    def candidate(self) -> Candidate:
        """The same item as the pipeline takes it."""
        return Candidate(
            id=self.id,
            item=Item(
                title=self.title,
                brand=self.brand or "",
                category=self.category or "",
                attributes=render_attributes(self.attributes) if self.attributes else "",
                description=self.description or "",
            ),
        )


class OwnContextBody(_Body):
    """A chunk of knowledge that the caller brings along."""

    text: Text


ContextBody = Annotated[
    Literal["auto", "none"] | OwnContextBody,
    Field(description="`auto` retrieves a chunk of knowledge, `none` uses none, an object brings the caller's own"),
]


class ScoreBody(_Body):
    """Score N items against one query."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": "wireless headphones", "items": [_EXAMPLE_ITEM, _OTHER_ITEM], "deadline_ms": 200}]
        }
    )

    query: Text
    items: Annotated[list[ItemBody], Field(min_length=1)]
    context: ContextBody = "auto"
    deadline_ms: DeadlineMs = None
    top_n: TopN = None
    model: ModelName = None

    def request(self) -> ScoreRequest:
        """The same as the pipeline takes it; made once."""
        return self._request

    @cached_property
    def _request(self) -> ScoreRequest:
        return ScoreRequest(
            self.query, tuple(i.candidate() for i in self.items), _context(self.context), self.top_n, self.model
        )


class ExplainBody(_Body):
    """Score one item and have the model give its reasons."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "wireless headphones", "item": _EXAMPLE_ITEM, "context": "none"}]}
    )

    query: Text
    item: ItemBody
    context: ContextBody = "auto"
    deadline_ms: DeadlineMs = None
    model: ModelName = None

    def request(self) -> ScoreRequest:
        """The same as the pipeline takes it."""
        return ScoreRequest(self.query, (self.item.candidate(),), _context(self.context), model=self.model)


class PairBody(_Body):
    """One line of a file for offline scoring."""

    query: Text
    item: ItemBody


class TextDocument(_Body):
    """A document as an object."""

    text: Text


class _RerankBody(_Body):
    model: ModelName = None
    query: Text
    documents: Annotated[
        list[Text | TextDocument],
        Field(min_length=1, description="the first line is judged as the title, the rest as the description"),
    ]
    top_n: TopN = None

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [d if isinstance(d, str) else d.text for d in self.documents]

    def request(self) -> ScoreRequest:
        """The same as the pipeline takes it, made once; documents are named by position, since they have no id."""
        return self._request

    @cached_property
    def _request(self) -> ScoreRequest:
        return ScoreRequest(
            self.query,
            tuple(Candidate(str(n), _document(text)) for n, text in enumerate(self.texts)),
            "auto",
            self.top_n,
            self.model,
        )


_RERANK_EXAMPLE: dict[str, Any] = {
    "query": "wireless headphones",
    "documents": [_EXAMPLE_ITEM["title"], _OTHER_ITEM["title"]],
    "top_n": 1,
}


class JinaRerankBody(_RerankBody):
    """Rerank as clients of Jina's API ask for it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RERANK_EXAMPLE]})

    return_documents: Annotated[bool, Field(description="echo each document's text")] = True


class CohereRerankBody(_RerankBody):
    """Rerank as clients of Cohere's v2 API ask for it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RERANK_EXAMPLE]})

    max_tokens_per_doc: Annotated[
        int | None, Field(ge=1, description="accepted when the checkpoint's own field budgets stay within it")
    ] = None


def render_attributes(attributes: Mapping[str, AttributeValue]) -> str:
    """Attributes as the model reads them: `name value, name value`."""
    return ", ".join(
        [f"{name} {value if isinstance(value, str) else _value(value)}" for name, value in attributes.items()]
    )


def _value(value: AttributeValue) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return str(int(value)) if value.is_integer() else repr(value)
        case list():
            return " ".join(value)
        case _:
            return str(value)


def _context(body: Literal["auto", "none"] | OwnContextBody) -> ContextChoice:
    return OwnContext(body.text) if isinstance(body, OwnContextBody) else body


def _document(text: str) -> Item:
    title, _, rest = text.strip().partition("\n")
    return Item(title=title, description=rest.strip())
