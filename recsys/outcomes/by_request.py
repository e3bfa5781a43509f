"""The join by request: which list an event answers, its sender says.

A request id names one list, whoever asked: an event joins the exposure of its request and item, at
any time after it. One that names a request joins no other list, because its sender knows better
than the clock which one it answers.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from recsys.outcomes.rows import LISTED, SHOWN, merged
from recsys.schema import Col

#: Whose rows an exposure or an outcome lies with: its user's, or its request's if there is none.
OWNER: Final = "owner"
#: Whether an outcome lies with its own user; an exposure of somebody else has a copy.
OWN: Final = "own"
UNKNOWN_REQUEST: Final = "unknown_request"
NOT_IN_LIST: Final = "not_in_list"


def join_requests(rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Join the rows of some requests.

    An exposure that the service logged and the shop posted, or posted twice, counts once: as it was
    logged, with what the shop alone tells.

    Args:
        rows: all rows of these requests, in the columns of `ROWS`.

    Returns:
        Exposures and outcomes with `exposure_id`, which is null where an outcome joined none
        (`reason` says why), `owner` and `own`; and how many rows told of the same exposure.
    """
    rows = with_exposure_columns(rows)
    is_shown = pl.col(Col.event_type) == SHOWN
    shown = rows.filter(is_shown)
    order = pl.col(LISTED).cast(pl.Int8) * -1
    shown = shown.sort(order, Col.timestamp, Col.position, *_rest(shown), nulls_last=True)
    shows = merged(shown, [Col.request, Col.item]).with_columns(
        pl.concat_str(Col.request, pl.lit(":"), Col.item).alias(Col.exposure),
        pl.coalesce(Col.user, Col.request).alias(OWNER),
    )
    named = shows.select(Col.request, Col.item, Col.exposure, pl.col(OWNER).alias("with"))
    known = pl.col(Col.request).is_in(shows[Col.request].unique().implode())
    outcomes = (
        rows.filter(~is_shown)
        .drop(Col.exposure)
        .join(named, on=[Col.request, Col.item], how="left")
        .with_columns(
            pl.when(pl.col(Col.exposure).is_null())
            .then(pl.when(known).then(pl.lit(NOT_IN_LIST)).otherwise(pl.lit(UNKNOWN_REQUEST)))
            .alias(Col.reason)
        )
    )
    elsewhere = outcomes.filter(pl.col("with") != pl.col(OWNER)).with_columns(
        pl.col("with").alias(OWNER), pl.lit(False).alias(OWN)
    )
    joined = pl.concat([each.select(rows.columns) for each in (shows, outcomes, elsewhere)])
    return joined, shown.height - shows.height


def with_exposure_columns(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the columns of the joins, as they are before any."""
    return rows.with_columns(
        pl.lit(None, pl.String).alias(Col.exposure),
        pl.lit(None, pl.String).alias(Col.reason),
        pl.col(Col.user).alias(OWNER),
        pl.lit(True).alias(OWN),
    )


def _rest(rows: pl.DataFrame) -> list[str]:
    """The other columns, so that the order of equal ones does not depend on that of the files."""
    return [name for name in rows.columns if name not in (Col.timestamp, Col.position)]
