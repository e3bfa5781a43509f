"""A second `prepare` reads what is new, and gives byte for byte what one from nothing gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pyarrow.parquet as pq
import pytest
from growing_log import MOST, GrowingLog, night, with_new_items
from prepare_runs import with_robot
from tiny import KEY, day, tiny_items

from recsys.config import Recipe
from recsys.data.feedback import Feedback
from recsys.data.pseudonyms import pseudonym
from recsys.errors import DataError
from recsys.preparation import build, preparing
from recsys.preparation.build import Build
from recsys.preparation.kept import KEPT, Kept
from recsys.preparation.prepared import PREPARED, Prepared
from recsys.schema import EVENT_CODE, RETRACTIONS, Col
from recsys.state import Tombstone


@pytest.fixture
def shop(tmp_path: Path) -> GrowingLog:
    return GrowingLog(tmp_path)


def erase(shop: GrowingLog, recipe: Recipe) -> None:
    at = int(day(60).timestamp() * 1e6)
    user = pseudonym("customer-003", KEY.encode())
    Feedback.of(recipe.root).folder.mkdir(parents=True, exist_ok=True)
    Feedback.of(recipe.root).write_erased({user: Tombstone(at, at)})


def live_then_logged(shop: GrowingLog, recipe: Recipe) -> None:
    """The service's event, and the log's of the same, by a user of whom more is new."""
    shop.live(recipe, "customer-002", "item-0002", day(89.5))
    shop.live(recipe, "customer-030", "item-0007", day(88))
    shop.add("c", night())


def replay(shop: GrowingLog, recipe: Recipe) -> None:
    shop.add("c", pl.read_parquet(shop.folder / "log" / "events" / "b1.parquet").head(70))


def replaced(shop: GrowingLog, recipe: Recipe) -> None:
    rows = pl.read_parquet(shop.folder / "log" / "events" / "b1.parquet")
    shop.add("b1", rows.head(rows.height - 5))


def crowd(shop: GrowingLog, recipe: Recipe) -> None:
    robot = with_robot(MOST + 5).tail(MOST + 5).with_columns(pl.lit("customer-001").alias(Col.user))
    shop.add("a", robot.head(3))
    shop.add("c", robot.tail(MOST + 2))


def taken_back(number: float, users: range = range(4)) -> pl.DataFrame:
    return night(number, users).with_columns(
        pl.Series(Col.event_type, [RETRACTIONS[user % len(RETRACTIONS)] for user in users])
    )


CHANGES: dict[str, Callable[[GrowingLog, Recipe], object]] = {
    "nothing": lambda shop, _: None,
    "a night": lambda shop, _: shop.add("c", night()),
    "a file that sorts before the others": lambda shop, _: shop.add("a", night()),
    "late events": lambda shop, _: shop.add("c", pl.concat([night(30), night(66), night()])),
    "a first event of all": lambda shop, _: shop.add("c", night(-3)),
    "an event of the first moment there is": lambda shop, _: shop.add(
        "c", night().with_columns(pl.lit(0).cast(night()[Col.timestamp].dtype).alias(Col.timestamp))
    ),
    "a replay": replay,
    "duplicates": lambda shop, _: shop.add("c", pl.concat([night(), night(), night(20)])),
    "new users": lambda shop, _: shop.add("c", night(85, range(100, 140))),
    "live events, of which the log has one": live_then_logged,
    "an erased user": erase,
    "an item more": lambda shop, _: shop.items(
        pl.concat([tiny_items(), tiny_items(1).with_columns(pl.lit("a-first").alias(Col.item))])
    ),
    "items more, and a night": lambda shop, _: (
        shop.items(with_new_items()),
        shop.add("c", night()),
    ),
    "another price": lambda shop, _: shop.items(
        tiny_items().with_columns(pl.lit(3.5).alias(Col.price))
    ),
    "an item less": lambda shop, _: shop.items(tiny_items().slice(1)),
    "a file replaced": replaced,
    "a file gone": lambda shop, _: (shop.folder / "log" / "events" / "b1.parquet").unlink(),
    "a user with too many events": crowd,
    "things taken back": lambda shop, _: shop.add("c", pl.concat([night(88), taken_back(89)])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_it_is_what_a_run_from_nothing_gives(shop: GrowingLog, change: str) -> None:
    recipe = shop.recipe()
    first = shop.prepare(recipe)
    CHANGES[change](shop, recipe)
    second = shop.prepare(recipe)
    shutil.rmtree(recipe.root / KEPT)
    assert second == shop.prepare(recipe)
    assert (second == first) == (change == "nothing")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_events_per_user", 110),
        ("target_events", ["view"]),
        ("num_buckets", 3),
        ("event_types", {"view": "click"}),
        ("cuts", {"head": day(40), "valid": day(60), "test": day(70)}),
        ("text_fields", ["title"]),
    ],
)
def test_another_recipe_is_prepared_anew(shop: GrowingLog, key: str, value: object) -> None:
    shop.prepare(shop.recipe())
    recipe = shop.recipe(**{key: value})
    second = shop.prepare(recipe)
    shutil.rmtree(recipe.root / KEPT)
    assert second == shop.prepare(recipe)


def test_many_nights_one_after_another(shop: GrowingLog) -> None:
    """Corrections of pairs add up, and are counted anew when there are many."""
    recipe = shop.recipe()
    shop.prepare(recipe)
    for number in range(10):
        shop.add(f"c{number:02d}", night(88 + number / 10, range(number % 5, number % 5 + 6)))
        last = shop.prepare(recipe)
    shutil.rmtree(recipe.root / KEPT)
    assert last == shop.prepare(recipe)


def test_a_user_who_at_first_did_nothing_but_take_back(shop: GrowingLog) -> None:
    recipe, users = shop.recipe(), range(100, 104)
    shop.add("c", taken_back(87, users))
    shop.prepare(recipe)
    shop.add("d", night(88, users))
    shop.prepare(recipe)
    shop.add("e", pl.concat([night(89, users), taken_back(89.5, users)]))
    third = shop.prepare(recipe)
    shutil.rmtree(recipe.root / KEPT)
    assert third == shop.prepare(recipe)
    told = Prepared.open(recipe.root)
    held = pl.concat([pl.DataFrame(pq.read_table(path)) for path in told.shards])
    new = [pseudonym(f"customer-{user}", KEY.encode()) for user in users]
    codes = held.filter(pl.col(Col.user).is_in(new))[Col.event_codes].to_list()
    buy = EVENT_CODE["purchase"]
    assert sorted(codes) == [[code, buy, buy, code] for code in map(EVENT_CODE.get, RETRACTIONS)]


def test_it_reads_what_is_new_and_builds_what_that_touches(shop: GrowingLog) -> None:
    recipe = shop.recipe()
    shop.prepare(recipe)
    assert (shop.tasks["Split"], shop.tasks["Build"]) == (3, 4)
    assert shop.tasks["JoinRanges"] == 8
    shop.prepare(recipe)
    assert not shop.tasks
    # Not the last moment of the log, and one user: one bucket.
    shop.add("c", night(80, range(1)))
    shop.prepare(recipe)
    assert (shop.tasks["Split"], shop.tasks["Build"]) == (1, 1)
    # Both relations as of the end; nothing before the last cut is touched.
    assert shop.tasks["JoinRanges"] == 2


def test_a_night_that_moves_the_cuts_reads_nothing_of_the_log_again(shop: GrowingLog) -> None:
    shop.prepare(shop.recipe())
    moved = shop.recipe(cuts={"head": day(51), "valid": day(65), "test": day(78)})
    second = shop.prepare(moved)
    assert "Split" not in shop.tasks and shop.tasks["Build"] == 4
    shutil.rmtree(moved.root / KEPT)
    assert second == shop.prepare(moved)


def test_of_users_with_later_rows_nothing_is_read_again(shop: GrowingLog) -> None:
    recipe = shop.recipe()
    shop.prepare(recipe)
    shop.add("c", pl.concat([night(95), night(95), night(96, range(2, 6))]))
    with patch.object(build, "_rows_of", side_effect=AssertionError):
        second = shop.prepare(recipe)
        shop.add("d", night(94, range(1)))
        with pytest.raises(AssertionError):
            shop.prepare(recipe)
    (shop.folder / "log" / "events" / "d.parquet").unlink()
    shutil.rmtree(recipe.root / KEPT)
    assert second == shop.prepare(recipe)


def test_where_the_log_became_longer_and_most_buckets_have_nothing_new(shop: GrowingLog) -> None:
    """One user's purchase, later than all there was: counts as of the end are others for all."""
    recipe = shop.recipe()
    shop.prepare(recipe)
    shop.add("c", night(89.9, range(1)))
    second = shop.prepare(recipe)
    assert (shop.tasks["Split"], shop.tasks["Build"]) == (1, 4)
    shutil.rmtree(recipe.root / KEPT)
    assert second == shop.prepare(recipe)


def test_new_items_cost_no_look_at_the_old_rows(
    shop: GrowingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each moves the rows of the items after it; nothing is split or built from its rows again."""
    recipe = shop.recipe()
    shop.prepare(recipe)
    kept = Kept(recipe.root / KEPT)
    before = {piece.name: piece.stat().st_ino for piece in kept.pieces(kept.parts)}
    shop.items(with_new_items())
    monkeypatch.setattr(Build, "_build_all", None)
    second = shop.prepare(recipe)
    assert {piece.name: piece.stat().st_ino for piece in kept.pieces(kept.parts)} == before
    assert len(kept.pieces(kept.items)) == 1
    monkeypatch.undo()
    shutil.rmtree(recipe.root / KEPT)
    assert second == shop.prepare(recipe)


def test_an_item_that_events_had_named_before_it_was_in_the_catalogue(shop: GrowingLog) -> None:
    recipe = shop.recipe()
    shop.items(tiny_items().slice(1))
    shop.prepare(recipe)
    shop.items(tiny_items())
    second = shop.prepare(recipe)
    shutil.rmtree(recipe.root / KEPT)
    assert second == shop.prepare(recipe)


def test_what_lay_in_the_future_counts_when_its_time_has_come(shop: GrowingLog) -> None:
    recipe = shop.recipe()
    shop.add("c", night(200))
    at = day(150).timestamp()
    with patch.object(preparing.time, "time", lambda: at):
        shop.prepare(recipe)
        assert shop.prepare(recipe)
        assert not shop.tasks
    with patch.object(preparing.time, "time", lambda: at + 100 * 86_400):
        second = shop.prepare(recipe)
        assert shop.tasks["Split"] == 1
        shutil.rmtree(recipe.root / KEPT)
        assert second == shop.prepare(recipe)
    with patch.object(preparing.time, "time", lambda: at):
        second = shop.prepare(recipe)
        assert shop.tasks["Split"] == 1, "the clock was set back"


def test_nothing_kept_holds_an_erased_user(shop: GrowingLog) -> None:
    recipe = shop.recipe()
    shop.prepare(recipe)
    user = pseudonym("customer-003", KEY.encode())
    tombstone = Tombstone(at := int(day(95).timestamp() * 1e6), at)
    Feedback.of(recipe.root).folder.mkdir(parents=True, exist_ok=True)
    Feedback.of(recipe.root).write_erased({user: tombstone})

    def holding() -> list[str]:
        return [
            str(path)
            for path in (recipe.root / KEPT).rglob("*.parquet")
            if path.name != "users.parquet"
            and Col.user in pq.read_schema(path).names
            and user in pl.read_parquet(path)[Col.user].to_list()
        ]

    assert holding()
    unreadable = next((recipe.root / KEPT).glob("buckets/*/histories.parquet"))
    unreadable.write_bytes(b"who knows whom it held")
    shop.prepare(recipe)
    assert not holding()


def test_what_is_no_longer_named_is_deleted(shop: GrowingLog) -> None:
    recipe = shop.recipe()
    shop.prepare(recipe)
    shop.add("b1", night())
    shop.prepare(recipe)
    kept = Kept(recipe.root / KEPT)
    assert len(list(kept.parts.iterdir())) == 3
    assert len(list(kept.buckets.iterdir())) == 4
    assert len(list(kept.matrices.iterdir())) == 8


def test_a_damaged_piece_is_made_again(shop: GrowingLog) -> None:
    recipe = shop.recipe()
    first = shop.prepare(recipe)
    for name in ("parts/*/users.parquet", "buckets/*/histories.parquet", "matrices/*/*.data.npy"):
        path = sorted((recipe.root / KEPT).glob(name))[0]
        path.write_bytes(path.read_bytes()[:-3] + b"???")
        assert shop.prepare(recipe) == first
    shard = sorted((recipe.root / PREPARED / "histories").iterdir())[0]
    shard.write_bytes(b"damaged where it is read")
    assert shop.prepare(recipe) == first


def test_two_at_once_are_refused(shop: GrowingLog) -> None:
    recipe = shop.recipe()
    shop.prepare(recipe)
    with Kept(recipe.root / KEPT).locked(), pytest.raises(DataError, match="another `prepare`"):
        shop.prepare(recipe)
