from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionEvent(_message.Message):
    __slots__ = ("item_id", "event_type", "timestamp")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    event_type: str
    timestamp: str
    def __init__(self, item_id: _Optional[str] = ..., event_type: _Optional[str] = ..., timestamp: _Optional[str] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[SessionEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[SessionEvent, _Mapping]]] = ...) -> None: ...

class Filters(_message.Message):
    __slots__ = ("category", "brand", "min_price", "max_price")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    BRAND_FIELD_NUMBER: _ClassVar[int]
    MIN_PRICE_FIELD_NUMBER: _ClassVar[int]
    MAX_PRICE_FIELD_NUMBER: _ClassVar[int]
    category: _containers.RepeatedScalarFieldContainer[str]
    brand: _containers.RepeatedScalarFieldContainer[str]
    min_price: float
    max_price: float
    def __init__(self, category: _Optional[_Iterable[str]] = ..., brand: _Optional[_Iterable[str]] = ..., min_price: _Optional[float] = ..., max_price: _Optional[float] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "history", "explain", "k", "exclude", "filters", "diversity", "max_per_category", "exclude_owned", "shown", "placement", "objective")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_CATEGORY_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_OWNED_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    history: Session
    explain: bool
    k: int
    exclude: _containers.RepeatedScalarFieldContainer[str]
    filters: Filters
    diversity: float
    max_per_category: int
    exclude_owned: bool
    shown: int
    placement: str
    objective: str
    def __init__(self, user_id: _Optional[str] = ..., history: _Optional[_Union[Session, _Mapping]] = ..., explain: _Optional[bool] = ..., k: _Optional[int] = ..., exclude: _Optional[_Iterable[str]] = ..., filters: _Optional[_Union[Filters, _Mapping]] = ..., diversity: _Optional[float] = ..., max_per_category: _Optional[int] = ..., exclude_owned: _Optional[bool] = ..., shown: _Optional[int] = ..., placement: _Optional[str] = ..., objective: _Optional[str] = ...) -> None: ...

class NewItem(_message.Message):
    __slots__ = ("title", "description", "brand", "category", "tags", "price", "item_id")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    BRAND_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    title: str
    description: str
    brand: str
    category: str
    tags: str
    price: float
    item_id: str
    def __init__(self, title: _Optional[str] = ..., description: _Optional[str] = ..., brand: _Optional[str] = ..., category: _Optional[str] = ..., tags: _Optional[str] = ..., price: _Optional[float] = ..., item_id: _Optional[str] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("item_id", "new_item")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_ITEM_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    new_item: NewItem
    def __init__(self, item_id: _Optional[str] = ..., new_item: _Optional[_Union[NewItem, _Mapping]] = ...) -> None: ...

class RankRequest(_message.Message):
    __slots__ = ("user_id", "history", "explain", "k", "candidates", "shown", "placement", "objective")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    history: Session
    explain: bool
    k: int
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    shown: int
    placement: str
    objective: str
    def __init__(self, user_id: _Optional[str] = ..., history: _Optional[_Union[Session, _Mapping]] = ..., explain: _Optional[bool] = ..., k: _Optional[int] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., shown: _Optional[int] = ..., placement: _Optional[str] = ..., objective: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("event_id", "user_id", "item_id", "event_type", "timestamp", "session_id", "request_id", "position", "dwell_ms", "price", "quantity", "value", "placement", "context", "sent_at")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ContextValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ContextValue, _Mapping]] = ...) -> None: ...
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    DWELL_MS_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    user_id: str
    item_id: str
    event_type: str
    timestamp: str
    session_id: str
    request_id: str
    position: int
    dwell_ms: int
    price: float
    quantity: float
    value: float
    placement: str
    context: _containers.MessageMap[str, ContextValue]
    sent_at: str
    def __init__(self, event_id: _Optional[str] = ..., user_id: _Optional[str] = ..., item_id: _Optional[str] = ..., event_type: _Optional[str] = ..., timestamp: _Optional[str] = ..., session_id: _Optional[str] = ..., request_id: _Optional[str] = ..., position: _Optional[int] = ..., dwell_ms: _Optional[int] = ..., price: _Optional[float] = ..., quantity: _Optional[float] = ..., value: _Optional[float] = ..., placement: _Optional[str] = ..., context: _Optional[_Mapping[str, ContextValue]] = ..., sent_at: _Optional[str] = ...) -> None: ...

class ContextValue(_message.Message):
    __slots__ = ("text", "number", "flag")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    text: str
    number: float
    flag: bool
    def __init__(self, text: _Optional[str] = ..., number: _Optional[float] = ..., flag: _Optional[bool] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("events", "atomic", "sent_at")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    atomic: bool
    sent_at: str
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., atomic: _Optional[bool] = ..., sent_at: _Optional[str] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("item_id", "title", "event_type", "count", "last", "gain")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    event_type: str
    count: int
    last: str
    gain: float
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., event_type: _Optional[str] = ..., count: _Optional[int] = ..., last: _Optional[str] = ..., gain: _Optional[float] = ...) -> None: ...

class Parts(_message.Message):
    __slots__ = ("taste", "price", "popularity", "history")
    TASTE_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    POPULARITY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    taste: float
    price: float
    popularity: float
    history: float
    def __init__(self, taste: _Optional[float] = ..., price: _Optional[float] = ..., popularity: _Optional[float] = ..., history: _Optional[float] = ...) -> None: ...

class Expected(_message.Message):
    __slots__ = ("click", "cart", "purchase", "dwell_ms", "value")
    CLICK_FIELD_NUMBER: _ClassVar[int]
    CART_FIELD_NUMBER: _ClassVar[int]
    PURCHASE_FIELD_NUMBER: _ClassVar[int]
    DWELL_MS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    click: float
    cart: float
    purchase: float
    dwell_ms: float
    value: float
    def __init__(self, click: _Optional[float] = ..., cart: _Optional[float] = ..., purchase: _Optional[float] = ..., dwell_ms: _Optional[float] = ..., value: _Optional[float] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("sentence", "reasons", "parts", "expected")
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    sentence: str
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    parts: Parts
    expected: Expected
    def __init__(self, sentence: _Optional[str] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., parts: _Optional[_Union[Parts, _Mapping]] = ..., expected: _Optional[_Union[Expected, _Mapping]] = ...) -> None: ...

class ScoredItem(_message.Message):
    __slots__ = ("item_id", "title", "score", "explanation")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    score: float
    explanation: Explanation
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., score: _Optional[float] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class RecommendAnswer(_message.Message):
    __slots__ = ("items", "model_version", "arm", "fallback", "basis", "degraded", "unknown_items", "request_id")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEMS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    model_version: str
    arm: str
    fallback: bool
    basis: str
    degraded: bool
    unknown_items: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    def __init__(self, items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., model_version: _Optional[str] = ..., arm: _Optional[str] = ..., fallback: _Optional[bool] = ..., basis: _Optional[str] = ..., degraded: _Optional[bool] = ..., unknown_items: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class RankedCandidate(_message.Message):
    __slots__ = ("item_id", "title", "score", "explanation", "candidate")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    score: float
    explanation: Explanation
    candidate: int
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., score: _Optional[float] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ..., candidate: _Optional[int] = ...) -> None: ...

class RankAnswer(_message.Message):
    __slots__ = ("items", "model_version", "arm", "fallback", "basis", "degraded", "unknown_items", "request_id")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEMS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[RankedCandidate]
    model_version: str
    arm: str
    fallback: bool
    basis: str
    degraded: bool
    unknown_items: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    def __init__(self, items: _Optional[_Iterable[_Union[RankedCandidate, _Mapping]]] = ..., model_version: _Optional[str] = ..., arm: _Optional[str] = ..., fallback: _Optional[bool] = ..., basis: _Optional[str] = ..., degraded: _Optional[bool] = ..., unknown_items: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Conflict(_message.Message):
    __slots__ = ("event", "event_id", "status")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    event: int
    event_id: str
    status: int
    def __init__(self, event: _Optional[int] = ..., event_id: _Optional[str] = ..., status: _Optional[int] = ...) -> None: ...

class Repeated(_message.Message):
    __slots__ = ("event", "event_id")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    event: int
    event_id: str
    def __init__(self, event: _Optional[int] = ..., event_id: _Optional[str] = ...) -> None: ...

class EventResult(_message.Message):
    __slots__ = ("status", "field", "message")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    status: str
    field: str
    message: str
    def __init__(self, status: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class EventsAnswer(_message.Message):
    __slots__ = ("received", "stored", "ignored", "unknown_items", "request_id", "repeated", "conflicts", "older_than_erasure", "refused", "results")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    IGNORED_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEMS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    OLDER_THAN_ERASURE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    received: int
    stored: int
    ignored: int
    unknown_items: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    repeated: _containers.RepeatedCompositeFieldContainer[Repeated]
    conflicts: _containers.RepeatedCompositeFieldContainer[Conflict]
    older_than_erasure: _containers.RepeatedScalarFieldContainer[int]
    refused: int
    results: _containers.RepeatedCompositeFieldContainer[EventResult]
    def __init__(self, received: _Optional[int] = ..., stored: _Optional[int] = ..., ignored: _Optional[int] = ..., unknown_items: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ..., repeated: _Optional[_Iterable[_Union[Repeated, _Mapping]]] = ..., conflicts: _Optional[_Iterable[_Union[Conflict, _Mapping]]] = ..., older_than_erasure: _Optional[_Iterable[int]] = ..., refused: _Optional[int] = ..., results: _Optional[_Iterable[_Union[EventResult, _Mapping]]] = ...) -> None: ...
