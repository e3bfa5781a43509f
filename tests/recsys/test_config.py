from __future__ import annotations

import copy
import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from recsys.config import known_keys, load_recipe, recipe_from_dict, target_codes
from recsys.errors import RecipeError

ROOT = Path(__file__).parents[2]

SMALL = {
    "name": "shop",
    "data": {"source": "log", "cuts": {"valid": "2024-03-01", "test": "2024-04-01"}},
}


def changed(dotted: str, value: object) -> dict[str, Any]:
    """The small recipe with one key set."""
    raw = copy.deepcopy(SMALL)
    node: dict[str, Any] = raw
    *sections, leaf = dotted.split(".")
    for section in sections:
        node = node.setdefault(section, {})
    node[leaf] = value
    return raw


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


class TestKeys:
    @pytest.mark.parametrize(
        ("wrong", "meant"),
        [
            ("train.learning_rat", "train.learning_rate"),
            ("data.max_token", "data.max_tokens"),
            ("serve.autoscaling.max_replica", "serve.autoscaling.max_replicas"),
            ("tran", "train"),
            ("learning_rate", "tune.learning_rate"),  # of another section: the leaf decides
        ],
    )
    def test_an_unknown_key_names_the_nearest_known_one(self, wrong: str, meant: str) -> None:
        with pytest.raises(RecipeError, match="unknown key") as error:
            recipe_from_dict(changed(wrong, 1))
        assert error.value.field == wrong
        assert meant in error.value.fix

    def test_a_key_like_no_other_is_to_be_removed(self) -> None:
        with pytest.raises(
            RecipeError, match=r"\[zzz\] unknown key.*remove it; known sections: name"
        ):
            recipe_from_dict(changed("zzz", 1))

    @pytest.mark.parametrize("missing", ["name", "data", "data.cuts", "data.cuts.test"])
    def test_a_missing_key_is_named(self, missing: str) -> None:
        raw = copy.deepcopy(SMALL)
        node: Any = raw
        *sections, leaf = missing.split(".")
        for section in sections:
            node = node[section]
        del node[leaf]
        with pytest.raises(RecipeError, match="missing key") as error:
            recipe_from_dict(raw)
        assert error.value.field == missing

    @pytest.mark.parametrize(("wrong", "meant"), [("nmae", "name"), ("dta", "data")])
    def test_a_needed_key_that_is_mistyped_is_named(self, wrong: str, meant: str) -> None:
        raw = copy.deepcopy(SMALL)
        raw[wrong] = raw.pop(meant)
        with pytest.raises(RecipeError, match="unknown key") as error:
            recipe_from_dict(raw)
        assert error.value.field == wrong and meant in error.value.fix

    def test_a_single_value_in_place_of_a_list(self) -> None:
        with pytest.raises(RecipeError, match="is a list") as error:
            recipe_from_dict(changed("data.text_fields", "name"))
        assert error.value.fix == "write [name]"

    def test_a_key_that_is_given_twice(self, tmp_path: Path) -> None:
        path = tmp_path / "twice.yaml"
        path.write_text("name: shop\ndata:\n  source: a\n  source: b\n")
        with pytest.raises(RecipeError, match="'source' is given twice") as error:
            load_recipe(path)
        assert "line 4" in str(error.value)

    def test_every_known_key_of_the_defaults_is_listed(self) -> None:
        known = set(known_keys())
        recipe = recipe_from_dict(SMALL).resolved()

        def keys(node: dict[str, Any], prefix: str = "") -> set[str]:
            found = {prefix + name for name in node}
            for name, child in node.items():
                if isinstance(child, dict):
                    found |= keys(child, f"{prefix}{name}.")
            return found

        assert keys(recipe) == known


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
            ("tune.learning_rate", {"low": 0.1, "high": 0.01}, ["high (0.01)", "low (0.1)"]),
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

    def test_one_replica_may_keep_its_users_in_memory(self) -> None:
        serve = {"state": {"backend": "memory"}, "autoscaling": {"max_replicas": 1}}
        assert recipe_from_dict(changed("serve", serve)).serve.state.backend == "memory"

    @pytest.mark.parametrize("url", ["redis://:secret@host/0", "redis://host?password=secret"])
    def test_a_password_has_no_place_in_a_recipe(self, url: str) -> None:
        with pytest.raises(RecipeError, match="RAYCOMMEND_REDIS_URL") as error:
            recipe_from_dict(changed("serve.state", {"backend": "redis", "url": url}))
        assert "secret" not in str(error.value)

    def test_a_recipe_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            recipe_from_dict(SMALL).train.epochs = 9  # type: ignore[misc]


class TestCuts:
    def test_a_moment_without_a_zone_is_utc(self) -> None:
        cuts = recipe_from_dict(SMALL).data.cuts
        assert cuts.valid == dt.datetime(2024, 3, 1, tzinfo=dt.UTC)

    def test_the_head_has_the_last_four_weeks_before_validation(self) -> None:
        assert recipe_from_dict(SMALL).data.cuts.head_at == dt.datetime(2024, 2, 2, tzinfo=dt.UTC)
        given = recipe_from_dict(changed("data.cuts.head", "2024-01-15"))
        assert given.data.cuts.head_at == dt.datetime(2024, 1, 15, tzinfo=dt.UTC)


class TestFile:
    def test_overrides_are_yaml_and_reach_into_sections(self, file: Path) -> None:
        given = [
            "train.epochs=7",
            "serve.autoscaling.max_replicas=5",
            "data.event_types={buy: purchase, ping: null}",
            "data.target_events=[click, purchase]",
            "train.fresh_texts_per_step=null",
            "train.epochs=8",
        ]
        recipe = load_recipe(file, given)
        assert recipe.train.epochs == 8  # the last one wins
        assert recipe.serve.autoscaling.max_replicas == 5
        assert recipe.data.event_types == {"buy": "purchase", "ping": None}
        assert target_codes(recipe) == [2, 4]
        assert recipe.train.fresh_texts_per_step is None
        assert recipe.name == "shop"

    @pytest.mark.parametrize(
        ("override", "problem"),
        [
            ("train.epochs", "not an override"),
            ("=3", "not an override"),
            ("name.first=x", "is a value, not a section"),
            ("train.epochs=[1", "not a YAML value"),
            ("train.epoch=3", "did you mean `train.epochs`"),
        ],
    )
    def test_a_bad_override_is_refused(self, file: Path, override: str, problem: str) -> None:
        with pytest.raises(RecipeError, match=problem):
            load_recipe(file, [override])

    @pytest.mark.parametrize("content", [b"a: [1\nb: 2\n", b"\xff\xfe\x00", b"- a\n- b\n", b""])
    def test_a_file_that_is_no_recipe_is_named_in_one_line(
        self, tmp_path: Path, content: bytes
    ) -> None:
        path = tmp_path / "broken.yaml"
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=str(path)) as error:
            load_recipe(path)
        assert "\n" not in str(error.value)

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="no such recipe"):
            load_recipe(tmp_path / "none.yaml")
        with pytest.raises(RecipeError, match="cannot be read"):
            load_recipe(tmp_path)

    def test_workers_without_a_bucket_each_are_refused(self, file: Path) -> None:
        given = ["data.num_buckets=2", "train.num_workers=2"]
        assert load_recipe(file, given).train.num_workers == 2
        with pytest.raises(RecipeError) as error:
            load_recipe(file, ["data.num_buckets=1", "train.num_workers=3"])
        assert "data.num_buckets (1) lies below train.num_workers (3)" in str(error.value)
        assert str(file) in str(error.value)
        # A bundle that such a recipe made can still be opened.
        raw = changed("data.num_buckets", 1)
        assert recipe_from_dict(raw).train.num_workers == 2

    def test_the_recipes_that_come_along_are_valid(self) -> None:
        for path in (ROOT / "recipes").glob("*.yaml"):
            assert load_recipe(path).name == path.stem


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


class TestArms:
    def test_they_are_read_and_dumped(self) -> None:
        arms = [
            {"name": "control", "weight": 9},
            {"name": "new", "bundle": "runs/new/bundle", "weight": 1},
            {"name": "drawn", "exploration": "plackett_luce", "temperature": 0.5, "weight": 0},
            {"name": "next", "bundle": "runs/next/bundle", "shadow": True},
        ]
        recipe = recipe_from_dict(changed("serve.arms", arms))
        assert [arm.weight for arm in recipe.serve.arms] == [9, 1, 0, 1]
        assert recipe_from_dict(recipe.resolved()) == recipe

    @pytest.mark.parametrize(
        ("arms", "told"),
        [
            ([{"name": "a"}, {"name": "a"}], "name given twice: a"),
            ([{"name": "a", "weight": 0}], "no arm would answer"),
            ([{"name": "a", "shadow": True}], "no arm would answer"),
            ([{"name": "a", "weight": -1}], "greater than or equal to 0"),
            ([{"name": "a", "weight": float("nan")}], "finite"),
            ([{"name": "a b"}], "match"),
            ([{"name": "a", "exploration": "epsilon"}], "`epsilon` is needed"),
            ([{"name": "a", "exploration": "plackett_luce", "epsilon": 0.1}], "it alone"),
            ([{"name": "a", "temperature": 1.0}], "`temperature` is needed with exploration"),
            (
                [
                    {"name": "a"},
                    {"name": "s", "shadow": True, "exploration": "epsilon", "epsilon": 1},
                ],
                "never answers",
            ),
        ],
    )
    def test_contradictions_are_refused(self, arms: list[dict[str, Any]], told: str) -> None:
        with pytest.raises(RecipeError, match=told):
            recipe_from_dict(changed("serve.arms", arms))

    @pytest.mark.parametrize("rule", [{"diversity": 0.2}, {"max_per_category": 2}])
    def test_drawn_lists_are_not_rearranged(self, rule: dict[str, Any]) -> None:
        arms = [{"name": "a"}, {"name": "drawn", "exploration": "epsilon", "epsilon": 0.1}]
        with pytest.raises(RecipeError, match="drawn explores"):
            recipe_from_dict(changed("serve", {"arms": arms} | rule))
        recipe_from_dict(changed("serve", {"arms": arms[:1]} | rule))
