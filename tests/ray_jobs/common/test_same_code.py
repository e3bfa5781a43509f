"""Two workers in processes of their own, one of which runs other sources."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.common.same_code import code
from recsys import __version__

ROOT = Path(__file__).parents[3]
WORKER = """
import sys
import torch.distributed as dist
from ray_jobs.common.same_code import check_same_code
rank, meet = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
try:
    check_same_code(2)
    print("the same")
except Exception as error:
    print(error)
dist.barrier()
"""


def said(meet: Path, sources: list[Path]) -> list[str]:
    """What two workers say, each with the sources of a folder."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), f"file://{meet}"],
            cwd=meet.parent, env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.PIPE, text=True,
        )
        for rank, folder in enumerate(sources)
    ]  # fmt: skip
    return [worker.communicate(timeout=120)[0].strip() for worker in workers]


@pytest.mark.slow
def test_workers_of_two_code_versions_are_refused_with_one_message(tmp_path: Path) -> None:
    other = tmp_path / "other"
    for package in ("recsys", "ray_jobs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, other / package, ignore=ignored)
    with (other / "recsys" / "training" / "optim.py").open("a") as file:
        file.write("# Another learning rate, say.\n")
    first, second = said(tmp_path / "meet", [ROOT, other])
    assert first == second
    version = rf"raycommend {re.escape(__version__)} \((\w{{8}})\) on {re.escape(platform.node())}"
    found = re.fullmatch(
        rf"the workers run different code: {version}; {version}\. Fix: install one version of .*",
        first,
    )
    assert found is not None, first
    assert found[1] != found[2]
    assert found[1] in code() or found[2] in code()


@pytest.mark.slow
def test_workers_of_one_version_agree(tmp_path: Path) -> None:
    assert said(tmp_path / "meet", [ROOT, ROOT]) == ["the same", "the same"]
