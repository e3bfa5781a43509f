"""Values that are refused, settings that contradict each other, and fingerprints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from small_recipe import SMALL, changed

from recsys.config import load_recipe, recipe_from_dict
from recsys.errors import RecipeError

ROOT = Path(__file__).parents[3]


class TestValues:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("train.epochs", 0),
            ("train.learning_rate", "fast"),
            ("data.max_quarantine_fraction", 1.5),
            ("data.event_types", {"buy": "bought"}),
            ("data.target_events", []),
            ("data.text_fields", ["title", "colour"]),
            ("model.tuning", "half"),
            ("name", "two words"),
            ("serve.port", 70_000),
            ("data.cuts.valid", "soon"),
        ],
    )
    def test_a_wrong_value_is_refused_with_its_key(self, key: str, value: object) -> None:
        with pytest.raises(RecipeError) as error:
            recipe_from_dict(changed(key, value), where="shop.yaml")
        assert error.value.field is not None and error.value.field.startswith(key)
        assert str(error.value).startswith("shop.yaml: [")

    @pytest.mark.parametrize(
        ("columns", "named"),
        [
            ({"events": {"usr_id": "WHO"}}, "did you mean 'user_id'?"),
            ({"events": {"USER_ID": "user_id"}}, "did you mean 'user_id'?"),
            ({"items": {"user_id": "WHO"}}, "'user_id' on the left"),
            ({"items": {"zzz": "WHO"}}, "use item_id, title"),
        ],
    )
    def test_only_our_columns_have_other_names(
        self, columns: dict[str, dict[str, str]], named: str
    ) -> None:
        with pytest.raises(RecipeError) as error:
            recipe_from_dict(changed("data.columns", columns))
        assert named in str(error.value)
        assert error.value.field == f"data.columns.{next(iter(columns))}"

    @pytest.mark.parametrize(
        ("key", "value", "names"),
        [
            ("data.cuts.test", "2024-03-01", ["data.cuts.test", "data.cuts.valid"]),
            ("data.cuts.head", "2024-03-01", ["data.cuts.head", "data.cuts.valid"]),
            ("data.cuts.end", "2024-04-01", ["data.cuts.end", "data.cuts.test"]),
            ("data.source", None, ["data.source", "data.adapter"]),
            (
                "data",
                {
                    **SMALL["data"],
                    "adapter": "completejourney",
                    "columns": {"items": {"title": "x"}},
                },
                ["data.columns", "data.adapter=canonical"],
            ),
            (
                "data",
                {**SMALL["data"], "adapter": "completejourney", "items_by": "at"},
                ["data.items_by", "data.adapter=canonical"],
            ),
            ("serve.default_k", 2000, ["serve.default_k (2000)", "serve.max_k (1000)"]),
            ("model.num_heads", 3, ["model.dim (128)", "model.num_heads (3)"]),
            (
                "tune.space",
                {"train.learning_rate": {"loguniform": [0.1, 0.01]}},
                ["tune.space.train.learning_rate", "high (0.01)", "low (0.1)"],
            ),
            (
                "tune",
                {"batch_size": [8], "space": {"train.batch_size": {"choice": [16]}}},
                ["tune.space", "train.batch_size"],
            ),
            (
                "train",
                {"sharding": "full", "num_workers": {"min": 1, "max": 4}},
                ["train.sharding=full", "train.num_workers lets 1 train alone"],
            ),
            (
                "serve.autoscaling.min_replicas",
                9,
                ["serve.autoscaling.max_replicas (2)", "serve.autoscaling.min_replicas (9)"],
            ),
            (
                "serve.state.backend",
                "memory",
                ["serve.state.backend=memory", "serve.autoscaling.max_replicas is 2"],
            ),
            (
                "serve.max_ongoing_requests",
                2,
                [
                    "serve.max_ongoing_requests (2)",
                    "serve.autoscaling.target_ongoing_requests (4)",
                ],
            ),
        ],
    )
    def test_settings_that_contradict_each_other_are_both_named(
        self, key: str, value: object, names: list[str]
    ) -> None:
        with pytest.raises(RecipeError) as error:
            recipe_from_dict(changed(key, value))
        for name in names:
            assert name in str(error.value)

    @pytest.mark.parametrize("tuning", ["frozen", "lora"])
    def test_what_is_not_trained_whole_is_not_sharded(self, tuning: str) -> None:
        raw = {**SMALL, "train": {"sharding": "full"}}
        assert recipe_from_dict(raw).train.sharding == "full"
        named = rf"train\.sharding=full .* model\.tuning={tuning} none is"
        with pytest.raises(RecipeError, match=named):
            recipe_from_dict({**raw, "model": {"tuning": tuning}})

    def test_one_replica_may_keep_its_users_in_memory(self) -> None:
        serve = {"state": {"backend": "memory"}, "autoscaling": {"max_replicas": 1}}
        assert recipe_from_dict(changed("serve", serve)).serve.state.backend == "memory"

    @pytest.mark.parametrize("url", ["redis://:secret@host/0", "redis://host?password=secret"])
    def test_a_password_has_no_place_in_a_recipe(self, url: str) -> None:
        with pytest.raises(RecipeError, match="RAYCOMMEND_REDIS_URL") as error:
            recipe_from_dict(changed("serve.state", {"backend": "redis", "url": url}))
        assert "secret" not in str(error.value)

    @pytest.mark.parametrize(
        ("workers", "field", "told"),
        [
            ({"min": 3, "max": 2}, "train.num_workers", "min (3) is above max (2)"),
            ({"min": 0, "max": 2}, "train.num_workers.min", "greater than or equal to 1"),
            ({"min": 1}, "train.num_workers.max", "missing key"),
            ({"min": 1, "max": 2, "most": 3}, "train.num_workers.most", "unknown key"),
            (0, "train.num_workers", "greater than or equal to 1"),
            ("two", "train.num_workers", "valid integer"),
        ],
    )
    def test_workers_are_a_number_or_a_range(self, workers: object, field: str, told: str) -> None:
        with pytest.raises(RecipeError) as error:
            recipe_from_dict(changed("train.num_workers", workers))
        assert error.value.field == field
        assert told in error.value.problem
        for good, ends in ((3, (3, 3)), ({"min": 1, "max": 3}, (1, 3))):
            recipe = recipe_from_dict(changed("train.num_workers", good))
            assert (recipe.train.fewest_workers, recipe.train.most_workers) == ends
            assert recipe.resolved()["train"]["num_workers"] == good
            assert recipe_from_dict(recipe.resolved()) == recipe

    def test_a_recipe_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            recipe_from_dict(SMALL).train.epochs = 9  # type: ignore[misc]


class TestFingerprint:
    def test_the_resolved_recipe_is_the_recipe(self) -> None:
        recipe = recipe_from_dict(changed("data.event_types", {"buy": "purchase", "x": None}))
        again = recipe_from_dict(recipe.resolved())
        assert again == recipe
        assert again.fingerprint() == recipe.fingerprint()

    def test_defaults_written_out_and_order_of_keys_change_nothing(self) -> None:
        recipe = recipe_from_dict(SMALL)
        backwards = dict(reversed(changed("train.epochs", 3).items()))
        assert recipe_from_dict(backwards).fingerprint() == recipe.fingerprint()

    def test_every_setting_changes_the_whole_and_its_own_section(self) -> None:
        recipe, other = recipe_from_dict(SMALL), recipe_from_dict(changed("train.epochs", 5))
        assert other.fingerprint() != recipe.fingerprint()
        assert other.fingerprint("train") != recipe.fingerprint("train")
        assert other.fingerprint("data", "model") == recipe.fingerprint("data", "model")
        seeded = recipe_from_dict(changed("seed", 8))
        assert seeded.fingerprint("data") != recipe.fingerprint("data")

    def test_it_is_the_one_in_the_names_of_older_runs(self) -> None:
        # The first 16 digits of sha256 of {"ray": {"address": null, "num_cpus": null}, "seed": 7}
        assert recipe_from_dict(SMALL).fingerprint("ray") == "b9221697052fbafc"

    def test_another_process_finds_the_same(self, file: Path) -> None:
        code = "import sys, recsys.config as c; print(c.load_recipe(sys.argv[1]).fingerprint())"
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)], cwd=ROOT, env={"PYTHONHASHSEED": "123"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == load_recipe(file).fingerprint()


def test_the_run_folder_bears_the_recipes_name_and_is_absolute() -> None:
    assert recipe_from_dict(SMALL).root == Path("runs/shop").absolute()
    odd = recipe_from_dict(changed("run_dir", "/runs/{name}/{date}"))
    assert odd.root == Path("/runs/shop/{date}")
