from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny import KEY, Shop, tiny_events
from tiny_logs import BUY, VIEW

from recsys.config import recipe_from_dict
from recsys.data.pseudonyms import pseudonymise
from recsys.errors import DataError, RecipeError
from recsys.features.popularity import RECENT_DAYS
from recsys.preparation.prepared import PREPARED, SUMMARY_FILE, WINDOWS, Prepared
from recsys.schema import Col


def test_without_an_output_prepare_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared data") as error:
        Prepared.open(tmp_path)
    assert "recsys prepare" in error.value.fix


class TestShop:
    def test_every_event_is_there_once(self, shop: Shop) -> None:
        log = tiny_events()
        prepared = shop.prepared
        users = prepared.users()
        assert prepared.summary["counts"]["events"] == len(users.item_rows) == log.height
        ids = pseudonymise(log[Col.user].unique(), KEY.encode())
        assert sorted(users.user_ids) == sorted(ids)
        owner = pl.Series(users.user_ids).gather(
            np.repeat(np.arange(len(users)), np.diff(users.offsets))
        )
        item_ids = prepared.catalogue.items[Col.item].gather(users.item_rows)
        found = pl.DataFrame(
            {"user": owner, "item": item_ids, "us": users.timestamps, "code": users.event_codes}
        )
        wanted = log.select(
            user=pseudonymise(log[Col.user], KEY.encode()),
            item=Col.item,
            us=pl.col(Col.timestamp).dt.epoch("us"),
            code=pl.col(Col.event_type).replace_strict(
                {"view": VIEW, "purchase": BUY}, return_dtype=pl.Int8
            ),
        )
        order = ["user", "us", "item", "code"]
        assert found.sort(order).select(order).equals(wanted.sort(order).select(order))

    def test_each_worker_needs_a_shard_of_its_own(self, shop: Shop) -> None:
        num_shards = len(shop.prepared.shards)
        shop.prepared.check_workers(num_shards)
        with pytest.raises(RecipeError, match=rf"data.num_buckets \({num_shards}\)") as error:
            shop.prepared.check_workers(num_shards + 1)
        assert (error.value.field, error.value.value) == ("train.num_workers", num_shards + 1)
        assert f"at most {num_shards}" in error.value.fix

    @pytest.mark.parametrize("as_of", ["head", "valid", "test", "end"])
    def test_statistics_hold_nothing_from_after_their_cut(self, shop: Shop, as_of: str) -> None:
        cuts = shop.recipe.data.cuts
        moment = {"head": cuts.head, "valid": cuts.valid, "test": cuts.test, "end": None}[as_of]
        log = tiny_events()
        before = log if moment is None else log.filter(pl.col(Col.timestamp) < moment)
        bought = before.filter(pl.col(Col.event_type) == "purchase")
        stats = shop.prepared.stats(as_of)
        items = shop.prepared.catalogue.items[Col.item]
        buyers = bought.unique([Col.item, Col.user])
        for values, rows in (
            (stats.num_events, before), (stats.num_targets, bought), (stats.num_users, buyers),
        ):  # fmt: skip
            counts = dict(rows[Col.item].value_counts().rows())
            assert values.tolist() == [counts.get(item, 0) for item in items]
        assert (stats.num_recent <= stats.num_targets).all()
        last = log[Col.timestamp].max()
        assert isinstance(last, dt.datetime)
        now = moment or last + dt.timedelta(microseconds=1)
        since = now - dt.timedelta(days=RECENT_DAYS)
        recent = bought.filter(pl.col(Col.timestamp) >= since).height
        assert stats.num_recent.sum() == recent

    @pytest.mark.parametrize("window", WINDOWS)
    def test_windows_hold_their_baskets_and_counts(self, shop: Shop, window: str) -> None:
        start, end = shop.prepared.window(window)
        _, questions = shop.prepared.questions(window, [BUY])
        now = questions.histories.now
        assert len(questions) == shop.prepared.summary["counts"][f"{window}_baskets"] > 0
        assert (now >= start).all()
        assert end is None or (now < end).all()

    def test_windows_follow_each_other_without_a_gap(self, shop: Shop) -> None:
        (_, head), (valid, valid_end), (test, _) = map(
            shop.prepared.window, ("head", "valid", "test")
        )
        assert (head, valid_end) == (valid, test)

    def test_a_sample_is_the_same_however_shards_are_shared_out(self, shop: Shop) -> None:
        def asked(
            shards: list[Path] | None, most: int | None, seed: int = 0
        ) -> set[tuple[str, int]]:
            users, questions = shop.prepared.questions(
                "valid", [BUY], shards=shards, most=most, seed=seed
            )
            ids = [users.user_ids[index] for index in questions.user_index]
            if most == 40:
                assert set(users.user_ids) == set(ids)
            return set(zip(ids, questions.baskets.tolist(), strict=True))

        everything, shards = asked(None, None), shop.prepared.shards
        assert len(shards) == 4
        sample = asked(None, 40)
        assert 20 < len(sample) < 60
        assert sample < everything
        assert asked(shards[0::2], 40) | asked(shards[1::2], 40) == sample
        assert asked(None, 40, seed=1) != sample
        assert asked(None, 10_000) == everything

    def test_a_worker_without_a_shard_has_no_users(self, shop: Shop) -> None:
        users, questions = shop.prepared.questions("valid", [BUY], shards=[])
        assert (len(users), len(questions)) == (0, 0)


@pytest.mark.parametrize(
    ("section", "key", "value", "field"),
    [
        ("data", "target_events", ["view"], "data.target_events"),
        ("data", "max_tokens", 12, "data.max_tokens"),
        ("data", "num_buckets", 5, "data.num_buckets"),
        ("model", "language_model", "minilm", "model.language_model"),
    ],
)
def test_data_of_another_recipe_are_refused(
    shop: Shop, section: str, key: str, value: object, field: str
) -> None:
    """Tokens of another tokenizer, or another window's statistics, would be used unnoticed."""
    raw = shop.recipe.resolved()
    raw[section][key] = value
    with pytest.raises(DataError, match="recsys prepare") as error:
        Prepared.of(recipe_from_dict(raw))
    assert error.value.field == field


def test_a_key_that_an_older_release_did_not_know_counts_as_its_default(
    shop: Shop, tmp_path: Path
) -> None:
    prepared = Prepared(shutil.copytree(shop.prepared.folder, tmp_path / "run" / PREPARED))
    summary = json.loads((prepared.folder / SUMMARY_FILE).read_text())
    del summary["recipe"]["data"]["items_by"]
    (prepared.folder / SUMMARY_FILE).write_text(json.dumps(summary))
    raw = shop.recipe.resolved() | {"run_dir": str(tmp_path / "run")}
    assert Prepared.of(recipe_from_dict(raw)).folder == prepared.folder
    raw["data"]["items_by"] = "updated_at"
    with pytest.raises(DataError, match="recsys prepare"):
        Prepared.of(recipe_from_dict(raw))


def test_data_serve_every_recipe_that_differs_elsewhere(shop: Shop) -> None:
    raw = shop.recipe.resolved()
    raw["train"]["epochs"], raw["model"]["dim"], raw["serve"]["port"] = 9, 32, 9000
    assert Prepared.of(recipe_from_dict(raw)).folder == shop.prepared.folder
