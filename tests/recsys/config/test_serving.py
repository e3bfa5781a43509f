from __future__ import annotations

from typing import Any

import pytest
from small_recipe import changed

from recsys.config import recipe_from_dict
from recsys.errors import RecipeError


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
