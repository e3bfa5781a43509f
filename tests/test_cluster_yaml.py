"""`cluster.yaml` against the schema of the installed Ray, offline, and against what it promises."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve.ray.environment import _DEFAULTS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def written() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def prepared(written: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` sees it: Ray's defaults filled in."""
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(written)


def check(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def test_ray_accepts_it(written: dict[str, Any]) -> None:
    check(written)


@pytest.mark.parametrize(
    "path",
    [
        ("idle_timeout_minutes",),
        ("auth", "ssh_user"),
        ("available_node_types", "gpu_spot", "min_workers"),
        ("available_node_types", "head", "node_config"),
    ],
)
def test_a_misspelt_key_is_rejected(written: dict[str, Any], path: tuple[str, ...]) -> None:
    from jsonschema import ValidationError

    section = written
    for key in path[:-1]:
        section = section[key]
    section[path[-1] + "x"] = section.pop(path[-1])
    with pytest.raises(
        ValidationError, match=f"'{path[-1]}x' was unexpected|'{path[-1]}' is a req"
    ):
        check(written)


def test_an_unknown_head_type_is_rejected(written: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="head_node_type"):
        check(written | {"head_node_type": "heda"})


def test_the_head_has_no_gpu_and_is_not_spot(prepared: dict[str, Any]) -> None:
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"]["GPU"] == 0
    assert head["resources"]["CPU"] > 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert (head["min_workers"], head["max_workers"]) == (0, 0)


def test_active_workers_are_spot_gpus_within_the_limits(prepared: dict[str, Any]) -> None:
    types = dict(prepared["available_node_types"])
    del types[prepared["head_node_type"]]
    for worker in types.values():
        assert worker["resources"]["GPU"] >= 1
        assert 0 == worker["min_workers"] <= worker["max_workers"] <= prepared["max_workers"]
    active = [worker for worker in types.values() if worker["max_workers"]]
    assert active
    for worker in active:
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert 0 < prepared["idle_timeout_minutes"] <= 30
    assert prepared["provider"]["cache_stopped_nodes"] is False


def test_the_on_demand_fallback_is_the_spot_type_at_another_price(written: dict[str, Any]) -> None:
    spot = written["available_node_types"]["gpu_spot"]
    fallback = written["available_node_types"]["gpu_on_demand"]
    market = {"InstanceMarketOptions": {"MarketType": "spot"}}
    assert spot["node_config"] == fallback["node_config"] | market
    assert spot["resources"] == fallback["resources"]
    assert fallback["max_workers"] == 0


def test_all_nodes_share_one_image(written: dict[str, Any]) -> None:
    types = written["available_node_types"].values()
    assert len({node["node_config"]["ImageId"] for node in types}) == 1


def test_every_shell_gets_the_environment(written: dict[str, Any], tmp_path: Path) -> None:
    writing = [line for line in written["setup_commands"] if ".raycommend.env" in line]
    for command in [*writing, *writing]:  # `ray up` runs them again after a change
        subprocess.run(["bash", "-c", command], env={"HOME": str(tmp_path)}, check=True)
    shell = ["bash", "-c", ". ~/.bashrc; env"]
    found = subprocess.run(shell, env={"HOME": str(tmp_path)}, check=True, capture_output=True)
    lines = found.stdout.decode().splitlines()
    assert set(lines) >= {f"{name}={value}" for name, value in _DEFAULTS.items()}
    assert any(line.startswith(f"PATH={tmp_path}/raycommend/.venv/bin:") for line in lines)
    assert (tmp_path / ".bashrc").read_text().count("raycommend.env") == 1


def test_start_commands(prepared: dict[str, Any]) -> None:
    head, worker = (
        prepared[f"{kind}_start_ray_commands"][-1].split() for kind in ("head", "worker")
    )
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker
    assert "--port=6379" in head
    for command in (head, worker):
        assert command[:2] == ["unset", "OMP_NUM_THREADS;"]
    assert not any("dashboard-host" in word for word in head), "the dashboard stays on loopback"


def test_every_node_installs_with_the_constraints(prepared: dict[str, Any]) -> None:
    for kind in ("head", "worker"):
        assert any("make install" in line for line in prepared[f"{kind}_setup_commands"])
    assert "--constraint constraints.txt" in (ROOT / "Makefile").read_text()


def test_file_mounts_exist_and_carry_the_token(written: dict[str, Any]) -> None:
    mounts = dict(written["file_mounts"])
    assert mounts.pop("/home/ubuntu/.ray/auth_token") == "~/.ray/auth_token"
    missing = [local for local in mounts.values() if not (ROOT / local).exists()]
    assert not missing
