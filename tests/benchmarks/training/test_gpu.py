from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_shop

from benchmarks.training import gpu

pytestmark = pytest.mark.slow


def test_every_way_of_this_machine_learns_and_is_timed(tmp_path: Path) -> None:
    shop = tiny_shop(tmp_path, model={"dropout": 0, "id_dropout": 0}, train={"batch_size": 8})
    report = gpu.compare(*shop, num_users=30, seconds=0.05)
    assert list(report["losses"]) == list(report["rates"])
    assert (len(report["losses"]) > 1) == torch.cuda.is_available()
    for losses in report["losses"].values():
        assert losses[-1] < losses[0]
        assert losses == pytest.approx(report["losses"][gpu.CPU], rel=0.02)
    for rate in report["rates"].values():
        assert 0 < rate["low"] <= rate["examples_per_s"] <= rate["high"]
    table = gpu.render({"dataset": "tiny"} | report)
    assert len(table) == 2 + len(report["rates"])
