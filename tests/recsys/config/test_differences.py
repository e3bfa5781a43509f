"""A refresh of a recipe, and a changed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_recipe

from recsys.config import changed_keys


@pytest.mark.parametrize(
    ("section", "value", "changed"),
    [
        ("data", {"cuts": {"valid": "2024-06-01", "test": "2024-07-01"}}, []),
        ("data", {"source": "elsewhere"}, []),
        ("run_dir", "runs/tonight", []),
        ("train", {"hang_minutes": 3, "max_failures": 5}, []),
        ("evaluate", {"max_rows": 10}, []),
        ("promote", {"margin": 0.1}, []),
        ("serve", {"port": 9000}, []),
        ("seed", 8, ["seed"]),
        ("data", {"target_events": ["view"]}, ["data.target_events"]),
        ("data", {"event_types": {"click": None}}, ["data.event_types.click"]),
        ("model", {"num_layers": 2, "dim": 32}, ["model.dim", "model.num_layers"]),
        ("train", {"epochs": 9, "hang_minutes": 3}, ["train.epochs"]),
        ("tune", {"num_trials": 9}, ["tune.num_trials"]),
    ],
)
def test_what_makes_another_model(
    tmp_path: Path, section: str, value: Any, changed: list[str]
) -> None:
    one, two = tiny_recipe(tmp_path), tiny_recipe(tmp_path, **{section: value})
    assert changed_keys(one, two) == changed_keys(two, one) == changed
