"""The histories of a log by other engines: what the first two steps of `prepare` are held against.

Each takes the events of a folder, drops duplicates and writes one row a user with parallel lists,
sorted by time. None of them checks rows, replaces user ids, keeps a quarantine, numbers baskets or
counts anything: they are floors, not replacements.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ray_jobs.common.cluster import connected
from recsys.config import RayCluster
from recsys.schema import Col

#: Of Ray's shuffle: as many as `prepare` has buckets.
_PARTITIONS: Final = 16


def by_duckdb(log: Path, target: Path, *, memory_gb: float, threads: int) -> None:
    """DuckDB, which writes what does not fit its memory to disk.

    One list of structs a user, sorted: three lists with an order of their own took 11 GB at 10 M.
    """
    import duckdb

    target.mkdir(parents=True)
    with duckdb.connect() as base:
        base.execute(f"SET memory_limit='{memory_gb}GB'")
        base.execute(f"SET threads={threads}")
        base.execute(f"SET temp_directory='{target}/temporary'")
        base.execute("SET preserve_insertion_order=false")
        base.execute(
            f"""COPY (
                SELECT {Col.user}, list_transform(events, lambda each: each.item) AS items,
                       list_transform(events, lambda each: each.type) AS types,
                       list_transform(events, lambda each: each.at) AS times
                FROM (SELECT {Col.user}, list_sort(list({{
                             'at': {Col.timestamp}, 'item': {Col.item}, 'type': {Col.event_type}
                             }})) AS events
                      FROM (SELECT DISTINCT {Col.user}, {Col.item}, {Col.event_type},
                                   {Col.timestamp}, {Col.session}
                            FROM read_parquet('{log}/events/*.parquet'))
                      GROUP BY {Col.user}))
                TO '{target}/histories.parquet' (FORMAT parquet, COMPRESSION zstd)"""
        )


def by_polars(log: Path, target: Path) -> None:
    """Polars in one process, with everything in memory."""
    import polars as pl

    target.mkdir(parents=True)
    once = pl.read_parquet(f"{log}/events/*.parquet").unique(
        [Col.user, Col.item, Col.event_type, Col.timestamp, Col.session]
    )
    ordered = once.sort(Col.user, Col.timestamp)
    grouped = ordered.group_by(Col.user, maintain_order=True).agg(
        pl.col(Col.item), pl.col(Col.event_type), pl.col(Col.timestamp)
    )
    grouped.write_parquet(target / "histories.parquet", compression="zstd")


def by_ray(log: Path, target: Path, *, num_cpus: int) -> None:
    """Ray Data's hash shuffle, and a vectorised engine inside each group of users."""
    import polars as pl
    import pyarrow as pa
    import ray.data
    from ray.data.context import ShuffleStrategy

    target.mkdir(parents=True)
    options: dict[str, Any] = {"address": "local", "num_cpus": num_cpus}

    def build(table: pa.Table) -> pa.Table:
        once = pl.DataFrame(table).unique(
            [Col.user, Col.item, Col.event_type, Col.timestamp, Col.session]
        )
        grouped = once.sort(Col.user, Col.timestamp).group_by(Col.user, maintain_order=True)
        found: pa.Table = grouped.agg(
            pl.col(Col.item), pl.col(Col.event_type), pl.col(Col.timestamp)
        ).to_arrow()
        return found

    with connected(RayCluster.model_validate(options)):
        ray.data.DataContext.get_current().shuffle_strategy = ShuffleStrategy.HASH_SHUFFLE
        events = ray.data.read_parquet(f"{log}/events")
        shuffled = events.repartition(_PARTITIONS, keys=[Col.user])
        built = shuffled.map_batches(build, batch_format="pyarrow", batch_size=None)
        built.write_parquet(str(target))
