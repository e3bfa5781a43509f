"""Make the previous champion the champion again.

python -m ray_jobs.rollback --config recipes/demo.yaml
"""

from __future__ import annotations

from recsys.artifacts.lineage import check_previous
from recsys.artifacts.run import Run
from recsys.evaluation.evidence import told
from recsys.storage.location import Place


def plan(run: Run) -> list[str]:
    """What a run would do."""
    check_previous(run.recipe)
    registry = run.registry
    undone = [f"undo a promotion that was decided so: {line}" for line in told(registry.evidence())]
    return [f"make {registry.previous()} champion again in place of {registry.champion()}", *undone]


def execute(run: Run) -> Place:
    """Go back one champion.

    Raises:
        BundleError: there is none before, or it is another product's.
    """
    check_previous(run.recipe)
    return run.registry.place(run.registry.rollback())


def report(run: Run) -> list[str]:
    """Who is champion, and what it was promoted on."""
    return [run.registry.describe(), *told(run.registry.evidence())]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("rollback")
