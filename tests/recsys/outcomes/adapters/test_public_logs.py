"""Public logs of exposures, read from beside the project, and lines that are written here."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from recsys.errors import DataError
from recsys.outcomes.adapters import read_kuairand, read_mind, read_open_bandit
from recsys.schema import EXPOSURES, Col

DATA = Path(__file__).parents[5] / "shared" / "data"


def public(name: str) -> Path:
    """The folder of a data set, which is not ours to copy."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"no public data set {name} in ../shared/data")
    return folder


def is_exposures(rows: pl.DataFrame) -> bool:
    return rows.to_arrow().cast(EXPOSURES).schema.names == rows.columns


class TestKuaiRand:
    def test_totals_are_those_of_the_source(self) -> None:
        folder = public("kuairand_pure")
        source, rows = pl.read_parquet(folder / "exposures.parquet"), read_kuairand(folder)
        assert is_exposures(rows)
        assert rows.height == source.height
        assert rows[Col.clicked].sum() == source["is_click"].sum()
        assert rows[Col.long_view].sum() == source["long_view"].sum()
        assert rows[Col.dwell_ms].sum() == source["dwell_ms"].sum()
        assert set(rows[Col.placement]) == set(map(str, source["tab"].unique()))

    def test_counts_are_those_of_a_row_by_row_walk(self) -> None:
        rows = read_kuairand(public("kuairand_pure"))
        sample = rows.sample(40, seed=1)
        for row in sample.rows(named=True):
            before = rows.filter(pl.col(Col.timestamp) < row[Col.timestamp])
            theirs = before.filter(pl.col(Col.user) == row[Col.user])
            pair = theirs.filter(pl.col(Col.item) == row[Col.item])
            midnight = row[Col.timestamp].replace(hour=0, minute=0, second=0, microsecond=0)
            item = rows.filter(
                (pl.col(Col.timestamp) < midnight) & (pl.col(Col.item) == row[Col.item])
            )
            found = [row[name] for name in EXPOSURES.names[-9:]]
            assert found == [
                count
                for each in (item, theirs, pair)
                for count in (each.height, each[Col.clicked].sum(), 0)
            ]

    def test_a_table_of_other_columns_is_refused(self, tmp_path: Path) -> None:
        pl.DataFrame({"user_id": ["u"]}).write_parquet(tmp_path / "exposures.parquet")
        with pytest.raises(DataError, match=r"exposures.parquet.*no column `request_id`"):
            read_kuairand(tmp_path)


def test_open_bandit_tells_policies_and_propensities() -> None:
    folder = public("open_bandit_men")
    rows = read_open_bandit(folder)
    assert is_exposures(rows)
    for arm, clicks in (("random", 46), ("bts", 69)):
        source = pl.read_parquet(folder / f"{arm}.parquet")
        ours = rows.filter(pl.col(Col.arm) == arm)
        assert ours.height == source.height == 10_000
        assert ours[Col.clicked].sum() == source["click"].sum() == clicks
        assert ours[Col.propensity].min() == pytest.approx(source["propensity_score"].min())
    assert rows[Col.user].null_count() == rows.height
    assert rows[Col.user_shows].max() == 0 and rows[Col.item_shows].max() > 0


class TestMind:
    #: Generated: lines of the form of MIND's `behaviors.tsv`, of no real reader.
    LINES = (
        "1\tU1\t11/15/2019 8:55:22 AM\tN9 N8\tN1-1 N2-0 N3-0\n"
        "2\tU2\t11/15/2019 12:00:00 AM\t\tN1-0 N1-1\n"
        "3\tU1\t11/16/2019 11:01:02 PM\tN9 N8\tN1-0 N2-1\n"
    )

    def test_a_line_is_a_list(self, tmp_path: Path) -> None:
        path = tmp_path / "behaviors.tsv"
        path.write_text(self.LINES)
        rows = read_mind(path)
        assert is_exposures(rows)
        assert rows[Col.exposure].to_list() == ["2:N1", "1:N1", "1:N2", "1:N3", "3:N1", "3:N2"]
        assert rows[Col.clicked].to_list() == [True, True, False, False, False, True]
        assert rows[Col.timestamp][0] == dt.datetime(2019, 11, 15, tzinfo=dt.UTC)
        last = rows.row(4, named=True)
        assert last[Col.timestamp] == dt.datetime(2019, 11, 16, 23, 1, 2, tzinfo=dt.UTC)
        assert (last[Col.item_shows], last[Col.item_clicks]) == (2, 2)
        assert (last[Col.user_shows], last[Col.user_clicks]) == (3, 1)
        assert (last[Col.pair_shows], last[Col.pair_clicks], last[Col.position]) == (1, 1, None)

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("1\tU1\t11/15/2019 8:55:22 AM\tN9\tN1 N2\n", "without a label 0 or 1: 'N1'"),
            ("1\tU1\t2019-11-15\tN9\tN1-0\n", "damaged"),
            ("1\tU1\n", "5 != 2 in file"),
        ],
    )
    def test_another_form_is_refused(self, tmp_path: Path, line: str, told: str) -> None:
        path = tmp_path / "behaviors.tsv"
        path.write_text(line)
        with pytest.raises(DataError, match=told):
            read_mind(path)
