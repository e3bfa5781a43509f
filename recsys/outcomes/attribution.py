"""The exposures of some users: what no request tells is joined by user, item and time.

- **Last touch.** An event without a request goes to the user's latest exposure of the item that was
  not after it, if it lies within the window; to that one alone.
- **Returns** undo purchases: one without a request goes where the last purchase of the same user
  and item went, however long ago.
- **Dwell** is the sum over the events of an exposure that tell one: each is a visit of its own.
- **Value** is the sum over its purchases; a return takes nothing away.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Final

import polars as pl
import pyarrow as pa

from recsys.outcomes.by_request import NOT_IN_LIST, OWN, OWNER, UNKNOWN_REQUEST
from recsys.outcomes.rows import CART, CLICK, PURCHASE, RETURN, SHOWN, TIME, merged
from recsys.outcomes.so_far import with_user_counts
from recsys.schema import EXPOSURES, Col

BY_REQUEST, BY_WINDOW = "joined_by_request", "joined_by_window"
NO_EXPOSURE, LATE, DOUBLE = "no_exposure", "late", "double"
#: Which way an outcome can go: it has joined, has nothing to join, or had been told before.
WAYS: Final = (BY_REQUEST, BY_WINDOW, UNKNOWN_REQUEST, NOT_IN_LIST, NO_EXPOSURE, LATE, DOUBLE)
DOUBLE_EXPOSURES: Final = "double_exposures"
_TOUCHED: Final = "touched"
#: Type of an outcome -> whether and when it happened first.
FIRST: Final = {
    CLICK: (Col.clicked, Col.clicked_ts), CART: (Col.carted, Col.carted_ts),
    PURCHASE: (Col.purchased, Col.purchased_ts), RETURN: (Col.returned, Col.returned_ts),
}  # fmt: skip
_SAME: Final = [Col.user, Col.item, Col.event_type, Col.timestamp]


def join_users(rows: pl.DataFrame, window_h: float) -> tuple[pl.DataFrame, Counter[str]]:
    """The exposures of some owners of rows, with outcomes and with counts of users and pairs.

    Args:
        rows: all rows of these owners, those with a request joined, see `join_requests`.
        window_h: hours after an exposure.

    Returns:
        Columns of `schema.EXPOSURES` but the counts of items, sorted by time and id; and how many
        outcomes went which way, with `DOUBLE_EXPOSURES`.
    """
    is_shown = pl.col(Col.event_type) == SHOWN
    shown = rows.filter(is_shown)
    shows = _distinct_shows(shown)
    outcomes, counts = _joined(rows.filter(~is_shown), shows, window_h)
    counts[DOUBLE_EXPOSURES] = shown.height - shows.height
    happened = _in_time(outcomes, shows)
    exposures = shows.join(_summed(happened), on=Col.exposure, how="left").with_columns(
        *(pl.col(ts).is_not_null().alias(name) for name, ts in FIRST.values()),
        pl.lit(None, pl.Boolean).alias(Col.long_view),
    )
    return with_user_counts(exposures.sort(Col.timestamp, Col.exposure)), counts


def exposures_table(exposures: pl.DataFrame) -> pa.Table:
    """Exposures in the columns and types of `schema.EXPOSURES`."""
    return exposures.select(EXPOSURES.names).to_arrow().cast(EXPOSURES)


def _distinct_shows(shown: pl.DataFrame) -> pl.DataFrame:
    """Exposures, each once; one without a request may have been posted with it too."""
    named, bare = (shown.filter(each) for each in (
        pl.col(Col.request).is_not_null(), pl.col(Col.request).is_null()))  # fmt: skip
    moment = [Col.user, Col.item, Col.timestamp]
    us = pl.col(Col.timestamp).dt.epoch("us").cast(pl.String)
    alone = (
        merged(bare.sort(bare.columns, nulls_last=True), moment)
        .join(named, on=moment, how="anti")
        .with_columns(pl.concat_str(Col.user, pl.lit(":"), Col.item, pl.lit(":"), us)
                      .alias(Col.exposure))
    )  # fmt: skip
    shows = pl.concat([named, alone])
    return shows.drop(Col.event_type, Col.dwell_ms, Col.value, Col.reason, OWN, OWNER)


def _joined(
    outcomes: pl.DataFrame, shows: pl.DataFrame, window_h: float
) -> tuple[pl.DataFrame, Counter[str]]:
    """Outcomes with the exposure that each goes to, and how many went which way."""
    copies, own = outcomes.filter(~pl.col(OWN)), outcomes.filter(OWN)
    once = merged(own.sort([Col.exposure, Col.request, *own.columns], nulls_last=True), _SAME)
    # In one place, whatever was a duplicate.
    once = once.sort(*_SAME)
    bare = pl.col(Col.request).is_null()
    is_return = bare & (pl.col(Col.event_type) == RETURN)
    touched = _last_touch(once.filter(bare & ~is_return), shows, window_h)
    others = once.filter(~bare)
    bought = pl.concat([others, touched]).filter(pl.col(Col.event_type) == PURCHASE)
    returned = _after_purchase(once.filter(is_return), bought, shows)
    told = pl.concat([others, touched, returned])
    counts = Counter(dict(
        told.select(
            pl.when(pl.col(Col.exposure).is_null()).then(pl.col(Col.reason))
            .when(pl.col(Col.request).is_null()).then(pl.lit(BY_WINDOW))
            .otherwise(pl.lit(BY_REQUEST)).value_counts()
        ).unnest(Col.reason).rows()
    ))  # fmt: skip
    counts[DOUBLE] = own.height - once.height
    order = [Col.exposure, *copies.columns]
    return pl.concat([told, merged(copies.sort(order, nulls_last=True), order[:1] + _SAME)]), counts


def _last_touch(outcomes: pl.DataFrame, shows: pl.DataFrame, window_h: float) -> pl.DataFrame:
    """The latest exposure of each outcome's user and item, if it was not too long ago."""
    known = shows.select(Col.user, Col.item, Col.exposure, pl.col(Col.timestamp).alias(_TOUCHED))
    found = outcomes.drop(Col.exposure).sort(Col.timestamp).join_asof(
        known.filter(pl.col(Col.user).is_not_null()).sort(_TOUCHED, Col.exposure),
        left_on=Col.timestamp, right_on=_TOUCHED, by=[Col.user, Col.item], check_sortedness=False,
    )  # fmt: skip
    late = pl.col(Col.timestamp) - pl.col(_TOUCHED) > dt.timedelta(hours=window_h)
    reason = (
        pl.when(pl.col(_TOUCHED).is_null()).then(pl.lit(NO_EXPOSURE)).when(late).then(pl.lit(LATE))
    )
    found = found.with_columns(reason.alias(Col.reason)).with_columns(
        pl.when(pl.col(Col.reason).is_null()).then(Col.exposure).alias(Col.exposure)
    )
    return found.select(outcomes.columns)


def _after_purchase(
    returns: pl.DataFrame, bought: pl.DataFrame, shows: pl.DataFrame
) -> pl.DataFrame:
    """The exposure that the last purchase of each return's user and item went to, if it is theirs.

    A purchase that answered a session's list is that session's, which a return does not name.
    """
    whose = shows.select(Col.exposure, Col.user)
    theirs = bought.join(whose, on=[Col.exposure, Col.user], how="semi")
    lost = bought.join(whose, on=[Col.exposure, Col.user], how="anti").with_columns(
        pl.lit(None, pl.String).alias(Col.exposure)
    )
    known = pl.concat([theirs, lost]).select(
        Col.user, Col.item, Col.exposure, pl.col(Col.timestamp).alias(_TOUCHED)
    )
    found = returns.drop(Col.exposure).sort(Col.timestamp).join_asof(
        known.sort(_TOUCHED, Col.exposure), left_on=Col.timestamp, right_on=_TOUCHED,
        by=[Col.user, Col.item], check_sortedness=False,
    )  # fmt: skip
    missing = pl.when(pl.col(Col.exposure).is_null()).then(pl.lit(NO_EXPOSURE))
    return found.with_columns(missing.alias(Col.reason)).select(returns.columns)


def _in_time(outcomes: pl.DataFrame, shows: pl.DataFrame) -> pl.DataFrame:
    """Outcomes of these exposures, none before its own: a sender's clock may be behind ours."""
    shown = shows.select(
        Col.exposure, pl.col(Col.timestamp).alias(_TOUCHED), pl.col(Col.user).alias("whose")
    )
    # One that joined the exposure of somebody else has a copy, maybe in this bucket too.
    theirs = (pl.col("whose") == pl.col(Col.user)).fill_null(False)
    return (
        outcomes.join(shown, on=Col.exposure)
        .filter(theirs | ~pl.col(OWN))
        .with_columns(pl.max_horizontal(Col.timestamp, _TOUCHED).alias(Col.timestamp))
        .sort(Col.exposure, Col.timestamp, Col.event_type, Col.value, Col.dwell_ms)
    )


def _summed(happened: pl.DataFrame) -> pl.DataFrame:
    """What came of each exposure that something came of."""
    kind = pl.col(Col.event_type)
    value = pl.col(Col.value).filter(kind == PURCHASE)
    dwell = pl.col(Col.dwell_ms)
    return happened.group_by(Col.exposure, maintain_order=True).agg(
        *(pl.col(Col.timestamp).filter(kind == each).min().cast(TIME).alias(ts)
          for each, (_, ts) in FIRST.items()),
        pl.when(dwell.count() > 0).then(dwell.sum()).alias(Col.dwell_ms),
        pl.when(value.count() > 0).then(value.sum()).alias(Col.value),
    )  # fmt: skip
