from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from recsys.config import Data
from recsys.errors import DataError
from recsys.preparation.coverage import (
    Coverage,
    duplicates_told,
    propose_cuts,
    targets_text,
    types_text,
    window_problem,
)
from recsys.schema import Col

DAY = 86_400_000_000
FULL = {"head": 1, "valid": 1, "test": 1}


def data(**more: object) -> Data:
    cuts = {"head": "1970-01-11", "valid": "1970-01-21", "test": "1970-01-31"}
    return Data.model_validate({"source": "log", "cuts": cuts, **more})


def rows(*events: tuple[str, int]) -> pl.DataFrame:
    """Event type and day, counted from 1970."""
    return pl.DataFrame(
        {
            Col.event_type: [name for name, _ in events],
            Col.timestamp: pl.Series([DAY * at for _, at in events], dtype=pl.Int64).cast(
                pl.Datetime("us", "UTC")
            ),
        },
        schema_overrides={Col.event_type: pl.String},
    )


def coverage(*events: tuple[str, int], **more: object) -> Coverage:
    frame = rows(*events)
    return Coverage.of(frame, frame[Col.event_type], data(**more))


EVENTS = [("purchase", 3), ("view", 2), ("purchase", 10), ("purchase", 20), ("purchase", 35),
          ("purchase", 29), ("view", 40)]  # fmt: skip


class TestCounts:
    def test_targets_by_window(self) -> None:
        """Days 10, 20 and 30 are the first of their windows."""
        found = coverage(*EVENTS)
        assert found.targets == {
            "before head": 1, "head": 1, "valid": 2, "test": 1, "after end": 0,
        }  # fmt: skip
        assert (found.first_us, found.last_us) == (2 * DAY, 40 * DAY)
        assert found.types == {"purchase": 5, "view": 2}
        assert found.points == [(DAY * at, 1.0) for at in (3, 10, 20, 29, 35)]

    def test_under_other_cuts_few_targets_are_counted_the_same_and_many_about(self) -> None:
        moved = {"head": "1970-01-05", "valid": "1970-01-30", "test": "1970-02-05"}
        found = coverage(*EVENTS).by_cuts_of(data(cuts=moved))
        assert found == coverage(*EVENTS, cuts=moved)
        many = [("purchase", number % 40) for number in range(4000)]
        about = coverage(*many).by_cuts_of(data(cuts=moved))
        exact = coverage(*many, cuts=moved)
        assert sum(about.targets.values()) == 4000
        for window, count in exact.targets.items():
            assert about.targets[window] == pytest.approx(count, abs=2 * 4000 / 64)

    def test_what_lies_behind_the_end_is_no_target(self) -> None:
        cuts = {"head": "1970-01-11", "valid": "1970-01-21", "test": "1970-01-31",
                "end": "1970-02-05"}  # fmt: skip
        found = coverage(*EVENTS, cuts=cuts)
        assert (found.targets["test"], found.targets["after end"]) == (0, 1)
        assert found.last_us == 40 * DAY and found.points[-1][0] == 29 * DAY

    def test_parts_add_up_to_the_whole_in_any_order_and_as_text(self) -> None:
        parts = [coverage(*EVENTS[:3]), Coverage(), coverage(*EVENTS[3:]), coverage()]
        sent = [Coverage.from_json(part.to_json()) for part in reversed(parts)]
        assert Coverage.merged(sent) == coverage(*EVENTS)

    def test_a_part_s_targets_are_thinned_evenly(self) -> None:
        found = coverage(*[("purchase", at) for at in range(1024)])
        assert len(found.points) == 64
        assert sum(weight for _, weight in found.points) == 1024
        assert found.points[:2] == [(8 * DAY, 16.0), (24 * DAY, 16.0)]

    @pytest.mark.slow
    def test_the_targets_of_many_small_parts_are_thinned_too(self) -> None:
        """A log of a hundred thousand files must not fill the driver's memory."""
        found = Coverage.merged([coverage(("purchase", at)) for at in range(5000)])
        assert len(found.points) == 1024
        assert sum(weight for _, weight in found.points) == pytest.approx(5000)
        cuts = propose_cuts(found.points)
        assert cuts is not None
        days = [(each - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).days for each in cuts.values()]
        assert days == pytest.approx([3500, 4000, 4500], abs=5)

    def test_a_log_of_countless_types_keeps_the_commonest(self) -> None:
        names = [f"t{number}" for number in range(300)]
        raw = pl.Series([*names, "t7", None])
        part = Coverage.of(rows(), raw, data())
        found = Coverage.merged([part, part])
        assert next(iter(found.types.items())) == ("t7", 4)
        assert len(found.types) == 101 and sum(found.types.values()) == 602


def test_types_are_told_with_what_the_recipe_takes_them_for() -> None:
    given = data(event_types={"buy": "purchase", "ping": None})
    types = {"buy": 1200, "view": 3, "ping": 2, "wink": 1}
    assert types_text(types, given) == (
        "buy 1,200 -> purchase, view 3 -> view, ping 2 -> left out, wink 1 -> unknown: quarantined"
    )
    assert types_text({}, given) == "none"
    assert types_text({f"t{n}": 1 for n in range(20)}, given).endswith(" and 8 more")


def test_targets_are_told_with_the_cuts() -> None:
    assert targets_text(coverage(*EVENTS), data()) == (
        "purchase events: 1 before head (1970-01-11), 1 in the head window (from 1970-01-11), "
        "2 in the valid window (from 1970-01-21), 1 in the test window (from 1970-01-31)"
    )


class TestProblem:
    def problem(
        self, *events: tuple[str, int], learnable: int = 1, **more: object
    ) -> DataError | None:
        found = coverage(*events, **more)
        return window_problem(
            found, data(**more), found.targets, learnable=learnable, source="shop/log"
        )

    def test_none_where_each_window_holds_a_target(self) -> None:
        assert self.problem(*EVENTS) is None

    def test_an_empty_window_is_told_with_what_is_there_and_cuts_that_would_do(self) -> None:
        events = [("purchase", at) for at in range(1, 11)] + [("view", 33), ("wink", 3)]
        error = self.problem(*events)
        assert error is not None
        assert (error.field, error.where) == ("data.cuts.valid", "shop/log")
        assert error.problem == (
            "the valid window holds no purchase event; the test window holds no purchase event; "
            "the log runs from 1970-01-02 00:00:00 to 1970-02-03 00:00:00 UTC; purchase events: "
            "9 before head (1970-01-11), 1 in the head window (from 1970-01-11), 0 in the valid "
            "window (from 1970-01-21), 0 in the test window (from 1970-01-31); event types there: "
            "purchase 10 -> purchase, view 1 -> view, wink 1 -> unknown: quarantined"
        )
        assert "move data.cuts" in error.fix
        assert "data.cuts: {head: 1970-01-08, valid: 1970-01-09, test: 1970-01-10}" in error.fix

    def test_a_default_head_is_told_to_be_one(self) -> None:
        cuts = {"valid": "1970-01-21", "test": "1970-01-31"}
        error = self.problem(*EVENTS, cuts=cuts, learnable=0)
        assert error is not None and error.field == "data.cuts.head"
        assert "nothing to learn" in error.problem
        assert "data.cuts.head is not given: it is 28 days before valid" in error.problem
        given = self.problem(*EVENTS, learnable=0)
        assert given is not None and "not given" not in given.problem

    def test_a_log_without_any_target_is_no_matter_of_cuts(self) -> None:
        error = self.problem(("view", 3), ("buy", 5))
        assert error is not None
        assert (error.field, error.value) == ("data.target_events", "purchase")
        assert "event types there: buy 1 -> unknown: quarantined, view 1 -> view" in error.problem
        assert "data.target_events" in error.fix and "data.event_types" in error.fix

    def test_targets_that_all_lie_behind_the_end(self) -> None:
        cuts = {"head": "1970-01-11", "valid": "1970-01-21", "test": "1970-01-31",
                "end": "1970-02-05"}  # fmt: skip
        error = self.problem(("view", 3), ("purchase", 50), cuts=cuts)
        assert error is not None and error.field == "data.cuts.end"
        assert "1 from end on, which are left out" in error.problem
        assert "move data.cuts.end" in error.fix

    def test_too_few_times_for_any_cuts(self) -> None:
        error = self.problem(("purchase", 1), ("purchase", 2), ("purchase", 2), ("purchase", 3))
        assert error is not None and "at four times or more" in error.fix

    def test_a_log_without_good_rows(self) -> None:
        error = self.problem()
        assert error is not None and "the log holds no usable event" in error.problem


def moments(*parts: int) -> list[tuple[int, float]]:
    return [(part, 1.0) for part in parts]


class TestProposal:
    @pytest.mark.parametrize(
        "times",
        [
            [0, 1, 2, 3],
            [0, 0, 0, 0, 1, 2, 3],
            [0, 1, 2, 3, 3, 3, 3, 3],
            [0, 1, 1, 1, 1, 1, 1, 2, 3],
            [DAY * at + 7 for at in range(400)],
            [60_000_000 * at + 7 for at in range(170)],
            [DAY, DAY + 1, 2 * DAY, 3 * DAY],
        ],
    )
    def test_each_window_and_the_time_before_hold_a_target(self, times: list[int]) -> None:
        cuts = propose_cuts(moments(*times))
        assert cuts is not None and list(cuts) == ["head", "valid", "test"]
        edges = [int(round(each.timestamp() * 1e6)) for each in cuts.values()]
        assert edges == sorted(set(edges))
        bounds = [-1, *edges, times[-1] + 1]
        held = [
            sum(low <= at < high for at in times)
            for low, high in zip(bounds, bounds[1:], strict=False)
        ]
        assert min(held) > 0

    def test_a_tenth_of_the_targets_lies_in_each_window(self) -> None:
        cuts = propose_cuts([(DAY * at, 1.0 + (at >= 50)) for at in range(100)])
        first = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        assert cuts is not None
        assert [(each - first).days for each in cuts.values()] == [77, 84, 92]

    @pytest.mark.parametrize("times", [[], [1], [1, 2, 3], [1, 1, 1, 1, 2, 3]])
    def test_too_few_times(self, times: list[int]) -> None:
        assert propose_cuts(moments(*times)) is None


def test_duplicates_are_told_with_their_share_and_a_hint_if_they_are_most() -> None:
    assert duplicates_told(0, 10) == []
    (line,) = duplicates_told(10, 30)
    assert line.startswith("10 duplicates left out, 25.0% of the usable rows")
    assert "resolution of a day" not in line
    (line,) = duplicates_told(53_583, 34_025)
    assert "61.2% of the usable rows" in line and "resolution of a day" in line
