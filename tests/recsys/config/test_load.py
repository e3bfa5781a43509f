"""Keys, values and overrides of a recipe's file; what is misspelt or broken is named."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from small_recipe import SMALL, changed

from recsys.config import known_keys, load_recipe, recipe_from_dict, target_codes
from recsys.errors import RecipeError

ROOT = Path(__file__).parents[3]


class TestKeys:
    @pytest.mark.parametrize(
        ("wrong", "meant"),
        [
            ("train.learning_rat", "train.learning_rate"),
            ("data.max_token", "data.max_tokens"),
            ("serve.autoscaling.max_replica", "serve.autoscaling.max_replicas"),
            ("tran", "train"),
            ("learning_rate", "train.learning_rate"),  # of another section: the leaf decides
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
                if isinstance(child, dict) and prefix + name != "tune.space":
                    found |= keys(child, f"{prefix}{name}.")
            return found

        # What changes no result, or asks for none of them anew, is no part of the recipe there.
        elsewhere = {key for key in known if key.startswith(("nightly", "train.warm_"))}
        elsewhere |= {"data.memory_gb", "data.attribution_window_h"}
        assert keys(recipe) == known - elsewhere


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
