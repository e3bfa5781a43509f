"""Events that a service accepted, and files of shown lists, for `compact`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.feedback import new_file_name
from recsys.schema import IMPRESSIONS, TIMESTAMP, Col
from recsys.state import StateEvent


def event(number: int, user: str = "u", timestamp: int | None = None) -> StateEvent:
    at = number if timestamp is None else timestamp
    return StateEvent(user, f"e{number}", f"item-{number % 7}", 4, at)


def write_segment(folder: Path, users: list[str | None], times: list[int], date: str = "") -> Path:
    columns = {
        Col.request: ["r"] * len(users), Col.user: users, Col.item: ["i"] * len(users),
        Col.position: range(1, len(users) + 1), Col.propensity: [1.0] * len(users),
        Col.score: [0.5] * len(users), Col.model_version: ["m"] * len(users),
        Col.timestamp: pa.array(times, pa.int64()).cast(TIMESTAMP), Col.arm: ["a"] * len(users),
        Col.placement: [None] * len(users),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    name = new_file_name()
    path = folder / (f"{date}{name[10:]}" if date else name)
    arrays = [pa.array(list(columns[n]), IMPRESSIONS.field(n).type) for n in IMPRESSIONS.names]
    pq.write_table(pa.table(arrays, schema=IMPRESSIONS), path)
    return path
