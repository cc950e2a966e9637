from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Retrieval(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RETRIEVAL_UNSPECIFIED: _ClassVar[Retrieval]
    RETRIEVAL_AUTO: _ClassVar[Retrieval]
    RETRIEVAL_NONE: _ClassVar[Retrieval]

class ItemStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITEM_STATUS_UNSPECIFIED: _ClassVar[ItemStatus]
    ITEM_STATUS_OK: _ClassVar[ItemStatus]
    ITEM_STATUS_EXPIRED: _ClassVar[ItemStatus]
    ITEM_STATUS_FAILED: _ClassVar[ItemStatus]
RETRIEVAL_UNSPECIFIED: Retrieval
RETRIEVAL_AUTO: Retrieval
RETRIEVAL_NONE: Retrieval
ITEM_STATUS_UNSPECIFIED: ItemStatus
ITEM_STATUS_OK: ItemStatus
ITEM_STATUS_EXPIRED: ItemStatus
ITEM_STATUS_FAILED: ItemStatus

class ScoreRequest(_message.Message):
    __slots__ = ("query", "items", "context", "deadline_ms", "top_n", "model")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    query: str
    items: _containers.RepeatedCompositeFieldContainer[Item]
    context: Context
    deadline_ms: float
    top_n: int
    model: str
    def __init__(self, query: _Optional[str] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., deadline_ms: _Optional[float] = ..., top_n: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("id", "title", "category", "brand", "attributes", "description")
    ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    BRAND_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    title: str
    category: str
    brand: str
    attributes: _containers.RepeatedCompositeFieldContainer[Attribute]
    description: str
    def __init__(self, id: _Optional[str] = ..., title: _Optional[str] = ..., category: _Optional[str] = ..., brand: _Optional[str] = ..., attributes: _Optional[_Iterable[_Union[Attribute, _Mapping]]] = ..., description: _Optional[str] = ...) -> None: ...

class Attribute(_message.Message):
    __slots__ = ("name", "text", "flag", "number", "texts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    flag: bool
    number: float
    texts: Texts
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ..., flag: _Optional[bool] = ..., number: _Optional[float] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("retrieval", "text")
    RETRIEVAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    retrieval: Retrieval
    text: str
    def __init__(self, retrieval: _Optional[_Union[Retrieval, str]] = ..., text: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("id", "model", "versions", "context", "tiers", "results", "degraded", "timings_ms", "usage")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    versions: Versions
    context: ContextReference
    tiers: _containers.RepeatedScalarFieldContainer[str]
    results: _containers.RepeatedCompositeFieldContainer[ItemResult]
    degraded: _containers.RepeatedScalarFieldContainer[str]
    timings_ms: _containers.ScalarMap[str, float]
    usage: Usage
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ..., context: _Optional[_Union[ContextReference, _Mapping]] = ..., tiers: _Optional[_Iterable[str]] = ..., results: _Optional[_Iterable[_Union[ItemResult, _Mapping]]] = ..., degraded: _Optional[_Iterable[str]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class ItemResult(_message.Message):
    __slots__ = ("id", "index", "status", "tier", "label", "band", "score", "margin", "probabilities", "label_mass", "truncated", "unrepresentable")
    ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    BAND_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    LABEL_MASS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    UNREPRESENTABLE_FIELD_NUMBER: _ClassVar[int]
    id: str
    index: int
    status: ItemStatus
    tier: str
    label: str
    band: str
    score: float
    margin: float
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    label_mass: float
    truncated: _containers.RepeatedScalarFieldContainer[str]
    unrepresentable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., index: _Optional[int] = ..., status: _Optional[_Union[ItemStatus, str]] = ..., tier: _Optional[str] = ..., label: _Optional[str] = ..., band: _Optional[str] = ..., score: _Optional[float] = ..., margin: _Optional[float] = ..., probabilities: _Optional[_Iterable[float]] = ..., label_mass: _Optional[float] = ..., truncated: _Optional[_Iterable[str]] = ..., unrepresentable: _Optional[_Iterable[str]] = ...) -> None: ...

class ContextReference(_message.Message):
    __slots__ = ("chunk_id", "source", "score")
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    chunk_id: str
    source: str
    score: float
    def __init__(self, chunk_id: _Optional[str] = ..., source: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Versions(_message.Message):
    __slots__ = ("checkpoint", "prompt", "index", "tiers")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    checkpoint: str
    prompt: str
    index: str
    tiers: str
    def __init__(self, checkpoint: _Optional[str] = ..., prompt: _Optional[str] = ..., index: _Optional[str] = ..., tiers: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "cached_tokens", "total_tokens", "cached_items")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    cached_tokens: int
    total_tokens: int
    cached_items: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., total_tokens: _Optional[int] = ..., cached_items: _Optional[int] = ...) -> None: ...

class ScoreStreamRequest(_message.Message):
    __slots__ = ("id", "request")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    id: str
    request: ScoreRequest
    def __init__(self, id: _Optional[str] = ..., request: _Optional[_Union[ScoreRequest, _Mapping]] = ...) -> None: ...

class ScoreStreamResponse(_message.Message):
    __slots__ = ("id", "results", "done", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    results: ItemResults
    done: ScoreResponse
    error: _status_pb2.Status
    def __init__(self, id: _Optional[str] = ..., results: _Optional[_Union[ItemResults, _Mapping]] = ..., done: _Optional[_Union[ScoreResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class ItemResults(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ItemResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ItemResult, _Mapping]]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("query", "item", "context", "deadline_ms", "model")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    query: str
    item: Item
    context: Context
    deadline_ms: float
    model: str
    def __init__(self, query: _Optional[str] = ..., item: _Optional[_Union[Item, _Mapping]] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., deadline_ms: _Optional[float] = ..., model: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("id", "model", "versions", "context", "chunk", "tiers", "result", "rationale", "text", "degraded", "timings_ms", "usage")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    versions: Versions
    context: ContextReference
    chunk: str
    tiers: _containers.RepeatedScalarFieldContainer[str]
    result: ItemResult
    rationale: Rationale
    text: str
    degraded: _containers.RepeatedScalarFieldContainer[str]
    timings_ms: _containers.ScalarMap[str, float]
    usage: Usage
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ..., context: _Optional[_Union[ContextReference, _Mapping]] = ..., chunk: _Optional[str] = ..., tiers: _Optional[_Iterable[str]] = ..., result: _Optional[_Union[ItemResult, _Mapping]] = ..., rationale: _Optional[_Union[Rationale, _Mapping]] = ..., text: _Optional[str] = ..., degraded: _Optional[_Iterable[str]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class Rationale(_message.Message):
    __slots__ = ("category", "attributes", "context", "reason")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    category: str
    attributes: _containers.RepeatedCompositeFieldContainer[AttributeJudgement]
    context: str
    reason: str
    def __init__(self, category: _Optional[str] = ..., attributes: _Optional[_Iterable[_Union[AttributeJudgement, _Mapping]]] = ..., context: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AttributeJudgement(_message.Message):
    __slots__ = ("name", "verdict")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    name: str
    verdict: str
    def __init__(self, name: _Optional[str] = ..., verdict: _Optional[str] = ...) -> None: ...
