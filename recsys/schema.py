"""The one vocabulary: column names, event types and Arrow schemas of the canonical data."""

from __future__ import annotations

from typing import Final

import pyarrow as pa


class Col:
    """Column names. No other file spells one."""

    user: Final = "user_id"
    item: Final = "item_id"
    event_type: Final = "event_type"
    timestamp: Final = "timestamp"
    session: Final = "session_id"
    request: Final = "request_id"
    position: Final = "position"
    propensity: Final = "propensity"
    dwell_ms: Final = "dwell_ms"
    quantity: Final = "quantity"
    price: Final = "price"
    value: Final = "value"
    placement: Final = "placement"
    context: Final = "context"

    # Of what the service answered.
    score: Final = "score"
    model_version: Final = "model_version"
    arm: Final = "arm"
    erased_at: Final = "erased_at"
    erased_until: Final = "erased_until"

    title: Final = "title"
    description: Final = "description"
    brand: Final = "brand"
    category: Final = "category"
    tags: Final = "tags"
    available_from: Final = "available_from"
    available: Final = "available"

    # Made by `prepare`.
    item_row: Final = "item_row"
    text_row: Final = "text_row"
    text: Final = "text"
    tokens: Final = "tokens"
    content_hash: Final = "content_hash"
    item_rows: Final = "item_rows"
    event_codes: Final = "event_codes"
    timestamps: Final = "timestamps"
    baskets: Final = "baskets"
    reason: Final = "reason"
    unreadable: Final = "unreadable"
    source: Final = "source"

    # Made by `exposures`.
    exposure: Final = "exposure_id"
    clicked: Final = "clicked"
    clicked_ts: Final = "clicked_ts"
    carted: Final = "carted"
    carted_ts: Final = "carted_ts"
    purchased: Final = "purchased"
    purchased_ts: Final = "purchased_ts"
    returned: Final = "returned"
    returned_ts: Final = "returned_ts"
    long_view: Final = "long_view"
    item_shows: Final = "item_shows"
    item_clicks: Final = "item_clicks"
    item_purchases: Final = "item_purchases"
    user_shows: Final = "user_shows"
    user_clicks: Final = "user_clicks"
    user_purchases: Final = "user_purchases"
    pair_shows: Final = "pair_shows"
    pair_clicks: Final = "pair_clicks"
    pair_purchases: Final = "pair_purchases"


#: Ids that a request can name have at most so many characters, and none of these.
MAX_ID_CHARS: Final = 256
CONTROL_CHARS: Final = r"[\x00-\x1f\x7f]"

#: Where on a page a list is shown: a short name, such as `home/top`.
PLACEMENT: Final = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$"

#: Canonical event types that tell of interest, weakest first: what models read and predict.
EVENT_TYPES: Final = ("impression", "view", "click", "add_to_cart", "purchase")
#: Those that take something back, see `data.standing`. Their codes come after the others', which
#: stand in stores, prepared data and models.
RETRACTIONS: Final = ("remove_from_cart", "return", "dislike", "dislike_category")
#: An event's code is its position among all of them.
ALL_EVENT_TYPES: Final = (*EVENT_TYPES, *RETRACTIONS)
EVENT_CODE: Final = {name: code for code, name in enumerate(ALL_EVENT_TYPES)}

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

EVENTS_REQUIRED: Final = pa.schema(
    [
        pa.field(Col.user, pa.string(), nullable=False),
        pa.field(Col.item, pa.string(), nullable=False),
        pa.field(Col.event_type, pa.string(), nullable=False),
        pa.field(Col.timestamp, TIMESTAMP, nullable=False),
    ]
)
EVENTS_OPTIONAL: Final = pa.schema(
    [
        pa.field(Col.session, pa.string()),
        pa.field(Col.request, pa.string()),
        pa.field(Col.position, pa.int32()),
        pa.field(Col.propensity, pa.float32()),
        pa.field(Col.dwell_ms, pa.int64()),
        pa.field(Col.quantity, pa.float64()),
        pa.field(Col.price, pa.float64()),
        pa.field(Col.value, pa.float64()),
        pa.field(Col.placement, pa.string()),
        pa.field(Col.context, pa.string()),
    ]
)
EVENTS: Final = pa.schema([*EVENTS_REQUIRED, *EVENTS_OPTIONAL])

#: An item of an answered list. `user_id` is the pseudonym, null for a session; `item_id` is null
#: where a new item came without one; `position` counts from 1. `propensity` is the chance that the
#: arm shows the item there, given the items above it. `score` is that of relevance, whatever the
#: list was ordered by. `arm` is null where there were none yet, `placement` where the request told
#: none.
IMPRESSIONS: Final = pa.schema(
    [
        pa.field(Col.request, pa.string(), nullable=False),
        pa.field(Col.user, pa.string()),
        pa.field(Col.item, pa.string()),
        pa.field(Col.position, pa.int32(), nullable=False),
        pa.field(Col.propensity, pa.float32(), nullable=False),
        pa.field(Col.score, pa.float32(), nullable=False),
        pa.field(Col.model_version, pa.string(), nullable=False),
        pa.field(Col.timestamp, TIMESTAMP, nullable=False),
        pa.field(Col.arm, pa.string()),
        pa.field(Col.placement, pa.string()),
    ]
)

#: Tombstones, see `state.tombstones`.
ERASED: Final = pa.schema(
    [
        pa.field(Col.user, pa.string(), nullable=False),
        pa.field(Col.erased_at, TIMESTAMP, nullable=False),
        pa.field(Col.erased_until, TIMESTAMP, nullable=False),
        pa.field("ahead", pa.list_(pa.string()), nullable=False),
    ]
)

ITEMS_REQUIRED: Final = pa.schema(
    [
        pa.field(Col.item, pa.string(), nullable=False),
        pa.field(Col.title, pa.string()),
    ]
)
ITEMS_OPTIONAL: Final = pa.schema(
    [
        pa.field(Col.description, pa.string()),
        pa.field(Col.brand, pa.string()),
        pa.field(Col.category, pa.string()),
        pa.field(Col.tags, pa.string()),
        pa.field(Col.price, pa.float64()),
        pa.field(Col.available_from, TIMESTAMP),
        pa.field(Col.available, pa.bool_()),
    ]
)
ITEMS: Final = pa.schema([*ITEMS_REQUIRED, *ITEMS_OPTIONAL])

#: The fields an item's text may be made of, in the default template's order.
TEXT_FIELDS: Final = (Col.title, Col.brand, Col.category, Col.tags, Col.description)

#: One row a user. The four lists run in parallel, ordered by (timestamp, basket, item, type).
HISTORIES: Final = pa.schema(
    [
        pa.field(Col.user, pa.string(), nullable=False),
        pa.field(Col.item_rows, pa.list_(pa.int32()), nullable=False),
        pa.field(Col.event_codes, pa.list_(pa.int8()), nullable=False),
        pa.field(Col.timestamps, pa.list_(pa.int64()), nullable=False),
        pa.field(Col.baskets, pa.list_(pa.int32()), nullable=False),
    ]
)

#: One row an exposure: an item that was shown, and what came of it. `request_id` and `user_id` are
#: pseudonyms; the user is null where a session was answered, the other columns of what was shown
#: where the sender did not tell them. The times are those of the first event of a kind, never
#: before `timestamp`. `value` is what the purchases came to; null: none, or nobody told.
#: `long_view` is an outcome that some public logs have. The nine counts are as of the exposure:
#: of the item all that was before its UTC day, of the user and of the pair of user and item all
#: that was strictly before it; 0 where there is no user.
EXPOSURES: Final = pa.schema(
    [
        pa.field(Col.exposure, pa.string(), nullable=False),
        pa.field(Col.request, pa.string()),
        pa.field(Col.user, pa.string()),
        pa.field(Col.item, pa.string(), nullable=False),
        pa.field(Col.timestamp, TIMESTAMP, nullable=False),
        pa.field(Col.position, pa.int32()),
        pa.field(Col.propensity, pa.float32()),
        pa.field(Col.score, pa.float32()),
        pa.field(Col.arm, pa.string()),
        pa.field(Col.model_version, pa.string()),
        pa.field(Col.placement, pa.string()),
        pa.field(Col.clicked, pa.bool_(), nullable=False),
        pa.field(Col.clicked_ts, TIMESTAMP),
        pa.field(Col.carted, pa.bool_(), nullable=False),
        pa.field(Col.carted_ts, TIMESTAMP),
        pa.field(Col.purchased, pa.bool_(), nullable=False),
        pa.field(Col.purchased_ts, TIMESTAMP),
        pa.field(Col.returned, pa.bool_(), nullable=False),
        pa.field(Col.returned_ts, TIMESTAMP),
        pa.field(Col.dwell_ms, pa.int64()),
        pa.field(Col.value, pa.float64()),
        pa.field(Col.long_view, pa.bool_()),
        *(
            pa.field(name, pa.int64(), nullable=False)
            for name in (
                Col.item_shows, Col.item_clicks, Col.item_purchases,
                Col.user_shows, Col.user_clicks, Col.user_purchases,
                Col.pair_shows, Col.pair_clicks, Col.pair_purchases,
            )
        ),
    ]
)  # fmt: skip
#: What outcomes are told by -> the column; an exposure's UTC day is that of its file.
TOLD_BY: Final = {
    "arm": Col.arm, "model": Col.model_version, "placement": Col.placement,
    "position": Col.position, "day": "day",
}  # fmt: skip
