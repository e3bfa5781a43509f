"""What a run's jobs have found -> `report.html`, one page for people.

python -m ray_jobs.report --config recipes/demo.yaml
"""

from __future__ import annotations

from pathlib import Path

from recsys.artifacts.run import Run
from recsys.reporting.findings import Findings
from recsys.reporting.page import write_page
from recsys.reporting.sections.verdict import verdict


def plan(run: Run) -> list[str]:
    """What a run would do."""
    return [f"write {run.page_file} from what lies in {run.root}"]


def execute(run: Run) -> Path:
    """Write the page anew."""
    return write_page(run)


def report(run: Run) -> list[str]:
    """The verdict, in a sentence."""
    return [verdict(Findings.of(run)).sentence]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("report")
