from __future__ import annotations

import datetime as dt

from small_recipe import SMALL, changed

from recsys.config import recipe_from_dict


class TestCuts:
    def test_a_moment_without_a_zone_is_utc(self) -> None:
        cuts = recipe_from_dict(SMALL).data.cuts
        assert cuts.valid == dt.datetime(2024, 3, 1, tzinfo=dt.UTC)

    def test_the_head_has_the_last_four_weeks_before_validation(self) -> None:
        assert recipe_from_dict(SMALL).data.cuts.head_at == dt.datetime(2024, 2, 2, tzinfo=dt.UTC)
        given = recipe_from_dict(changed("data.cuts.head", "2024-01-15"))
        assert given.data.cuts.head_at == dt.datetime(2024, 1, 15, tzinfo=dt.UTC)
