"""Make the previous champion the champion again.

python -m ray_jobs.rollback --config recipes/demo.yaml
"""

from __future__ import annotations

from pathlib import Path

from ray_jobs.promote import registry_of
from ray_jobs.promote import report as report
from recsys.config import Recipe


def plan(recipe: Recipe) -> list[str]:
    """What a run would do."""
    return [f"take {registry_of(recipe).champion()} back in {recipe.promote.registry}"]


def run(recipe: Recipe) -> Path:
    """Go back one champion.

    Raises:
        BundleError: there is none before.
    """
    registry = registry_of(recipe)
    return registry.path(registry.rollback())


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("rollback")
