"""What a service sets for Ray before it starts: a folder, and ports of its own."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from recsys.config import Serve
from recsys.storage.scratch import MARK
from serve.ray.environment import ProcessEnvironment
from serve.ray.ports import END, FIRST

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


def test_haproxy_gets_a_private_folder_with_room_for_its_socket(tmp_path: Path) -> None:
    environment = ProcessEnvironment.make(Serve(), tmp_path)
    try:
        assert stat.S_IMODE(environment.scratch.folder.stat().st_mode) == 0o700
        socket_path = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"])
        assert socket_path.parent == environment.scratch.folder
        # Serve puts the node's id (56 digits) between, HAProxy appends `.<pid>.tmp` while it binds.
        longest = socket_path.parent / ("f" * 56) / f"{socket_path.name}.4194304.tmp"
        assert len(str(longest)) <= 107
    finally:
        environment.clear()
    assert not environment.scratch.folder.exists()
    assert MARK not in os.environ
    assert "RAY_SERVE_HAPROXY_SOCKET_PATH" not in os.environ


def ports_of(environment: Mapping[str, str]) -> set[int]:
    """The ports that Serve is told to take for proxy and replicas."""
    begin = "RAY_SERVE_DIRECT_INGRESS"
    found = {int(environment[f"RAY_SERVE_FALLBACK_PROXY_{name}_PORT"]) for name in ("HTTP", "GRPC")}
    for name in ("HTTP", "GRPC"):
        first, end = (int(environment[f"{begin}_{bound}_{name}_PORT"]) for bound in ("MIN", "MAX"))
        assert end - first > 200
        assert not found & set(range(first, end))
        found |= set(range(first, end))
    assert min(found) >= FIRST and max(found) < END
    return found


def test_services_that_start_at_once_have_ports_of_their_own(tmp_path: Path) -> None:
    """Also where one dies without a word: the next takes its ports."""
    code = (
        "import json, os, sys; from pathlib import Path; from recsys.config import Serve\n"
        "from serve.ray.environment import ProcessEnvironment\n"
        "kept = ProcessEnvironment.make(Serve(), Path())\n"
        "print(json.dumps(dict(os.environ)), flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(4)]
    told = [json.loads(process.stdout.readline()) for process in started]
    try:
        ports = [ports_of(environment) for environment in told]
        assert len(set.union(*ports)) == sum(map(len, ports)), "none twice"
        for process in started:
            process.kill()
            process.wait()
        environment = ProcessEnvironment.make(Serve(), tmp_path)
        assert min(map(min, ports)) == min(ports_of(os.environ))
        environment.clear()
    finally:
        for process, environment in zip(started, told, strict=True):
            process.kill()
            process.communicate()
            shutil.rmtree(Path("/tmp", environment[MARK]), ignore_errors=True)


def test_ports_that_the_environment_names_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", "30500")
    environment = ProcessEnvironment.make(Serve(), tmp_path)
    assert os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] == "30500"
    assert "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT" not in os.environ, "Ray's own, as before"
    assert int(os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT"]) < END
    environment.clear()
    assert os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] == "30500"
    assert "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT" not in os.environ
