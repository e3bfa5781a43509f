"""`data`: the log, its columns, and the cuts in time."""

from __future__ import annotations

import datetime as dt
import difflib
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from recsys.config.base import EventName, Fraction, Positive, Retraction, Section
from recsys.schema import EVENTS, ITEMS, TEXT_FIELDS


class Cuts(Section):
    """The global time cut, UTC: train < valid <= validation < test <= test window (< end).

    The last part of the training window, [head, valid), teaches the scoring head and not the
    encoders: the head must see the encoders' scores as they are on baskets they have not learned.
    """

    head: dt.datetime | None = None
    """Default: 28 days before `valid`."""
    valid: dt.datetime
    test: dt.datetime
    end: dt.datetime | None = None

    @field_validator("head", "valid", "test", "end")
    @classmethod
    def _utc(cls, value: dt.datetime | None) -> dt.datetime | None:
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=dt.UTC)

    @model_validator(mode="after")
    def _ordered(self) -> Cuts:
        if self.test <= self.valid:
            raise ValueError(
                f"data.cuts.test ({self.test}) must lie after data.cuts.valid ({self.valid})"
            )
        if self.head is not None and self.head >= self.valid:
            raise ValueError(
                f"data.cuts.head ({self.head}) must lie before data.cuts.valid ({self.valid})"
            )
        if self.end is not None and self.end <= self.test:
            raise ValueError(
                f"data.cuts.end ({self.end}) must lie after data.cuts.test ({self.test})"
            )
        return self

    @property
    def head_at(self) -> dt.datetime:
        """Start of the head's window."""
        return self.head or self.valid - dt.timedelta(days=28)


class Columns(Section):
    """Columns that a log calls otherwise: our name -> the log's; a folder's key counts as one."""

    events: dict[str, str] = {}
    items: dict[str, str] = {}

    @field_validator("events", "items")
    @classmethod
    def _ours(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        known = (EVENTS if info.field_name == "events" else ITEMS).names
        for name in value:
            if name not in known:
                near = difflib.get_close_matches(name.lower(), known, n=1)
                raise ValueError(
                    f"unknown column {name!r} on the left, where our names stand; "
                    + (f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}")
                )
        return value


class Data(Section):
    """Where the log lies and how it is read."""

    adapter: Literal["completejourney", "canonical"] = "canonical"
    source: str | None = None
    """Folder or URI that holds `events/` and `items/` (or `events.parquet`, `items.parquet`)."""
    columns: Columns = Columns()
    """With the canonical adapter: what the log calls our columns, where it is not our name."""
    items_by: Annotated[str, Field(min_length=1)] | None = None
    """With the canonical adapter: a column of the items files, whose largest value marks the newest
    row of an item. None: the folders say (`dt=`, `version=`, ...), if they have such keys."""
    event_types: dict[str, EventName | Retraction | None] = {}
    """The log's own event names -> canonical ones; `null` leaves an event type out."""
    target_events: Annotated[tuple[EventName, ...], Field(min_length=1)] = ("purchase",)
    """Target events: what the model learns to predict, and what makes an item relevant."""
    cuts: Cuts
    count_every_days: Positive | None = 1
    """Popularity is counted anew every so many days: as often as a bundle is written and promoted.
    None: at the cuts alone."""
    text_fields: tuple[str, ...] = TEXT_FIELDS
    max_tokens: Annotated[int, Field(ge=3)] = 32
    """Of a text, the two that enclose it included; longer ones are cut."""
    num_buckets: Positive = 16
    """Of users; doubled until none holds more than about a million rows of the log."""
    memory_gb: Annotated[float | None, Field(gt=0, exclude=True)] = None
    """What the tasks of `prepare` may hold together on a machine: a task holds about 1 GB whatever
    the log's size, so this says how many run at once. None: half of the machine's memory. It
    changes no result, and is no part of the recipe that outputs hold."""
    max_events_per_user: Positive = 20_000
    max_quarantine_fraction: Fraction = 0.01
    max_clock_skew_s: Annotated[int, Field(ge=0)] = 300
    """How far a timestamp may lie in the future before its row is quarantined."""
    attribution_window_h: Annotated[float, Field(gt=0, exclude=True)] = 24.0
    """Hours after an exposure in which an event of the same user and item that names no request
    counts as its outcome. A day is what advertisers grant to what was seen and not clicked: a
    longer one credits the list with what people would have bought anyway, a shorter one loses those
    who come back in the evening. `recsys exposures` alone asks for it, so it is no part of the
    recipe that outputs hold, and another one needs no new `prepare`."""

    @field_validator("text_fields")
    @classmethod
    def _known_fields(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in TEXT_FIELDS:
                raise ValueError(f"unknown text field {name!r}; use {', '.join(TEXT_FIELDS)}")
        return value

    @model_validator(mode="after")
    def _source_given(self) -> Data:
        if self.adapter == "canonical" and not self.source:
            raise ValueError("data.source is needed with data.adapter=canonical")
        return self

    @model_validator(mode="after")
    def _columns_of_the_canonical(self) -> Data:
        for key, given in (("columns", self.columns != Columns()), ("items_by", self.items_by)):
            if given and self.adapter != "canonical":
                raise ValueError(
                    f"data.{key} is of data.adapter=canonical, and data.adapter is {self.adapter}"
                )
        return self
