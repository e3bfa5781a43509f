"""Make the previous champion the champion again.

python -m ray_jobs.rollback --config recipes/demo.yaml
"""

from __future__ import annotations

from pathlib import Path

from ray_jobs.promote import champion
from recsys.artifacts.lineage import check_previous
from recsys.artifacts.registry import Registry
from recsys.config import Recipe


def plan(recipe: Recipe) -> list[str]:
    """What a run would do."""
    check_previous(recipe)
    registry = Registry.of(recipe)
    return [f"make {registry.previous()} champion again in place of {registry.champion()}"]


def run(recipe: Recipe) -> Path:
    """Go back one champion.

    Raises:
        BundleError: there is none before, or it is another product's.
    """
    check_previous(recipe)
    registry = Registry.of(recipe)
    return registry.path(registry.rollback())


def report(recipe: Recipe) -> list[str]:
    """Who is champion."""
    return [champion(recipe)]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("rollback")
