"""The service as a user starts it: a process of its own, Ray, HAProxy, HTTP, signals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from bundles import make_recipe, version_in

from benchmarks.ports import free_ports
from recsys.storage.scratch import MARK, marked
from serve.access.key_file import KeyFile
from serve.schemas.callers import RIGHTS

ROOT = Path(__file__).parents[2]
#: Requests that wait in a replica, at most; fewer than by default, so that a test can exceed them.
NUM_QUEUED = 64


@dataclass
class Running:
    """A service that was started for tests."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    url: str
    ports: list[int]
    process: subprocess.Popen[bytes]
    key: str
    printed: dict[str, str] = field(default_factory=dict)

    def wait(self, patience_s: float = 240) -> None:
        deadline = time.monotonic() + patience_s
        while "update" not in self.printed:
            text = self.log.read_text()
            assert self.process.poll() is None, text
            assert time.monotonic() < deadline, text
            names = "service|gRPC|dashboard|logs|metrics|update"
            lines = re.findall(rf"^({names}) +(.*)$", text, re.MULTILINE)
            self.printed = dict(lines)
            time.sleep(0.2)

    @property
    def root(self) -> Path:
        """The run's folder."""
        return self.log.parent / "run"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same command once more, with further arguments."""
        return subprocess.run(
            [*self.command, *arguments], env=self.environment, cwd=ROOT,
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip

    def marked(self) -> dict[int, str]:
        """Command lines of the processes that belong to the service, by process id."""
        mark = re.compile(rb"(?:^|\0)" + MARK.encode() + rb"=(rc-[^\0]*)")
        found, names = {}, set()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                match = mark.search((path / "environ").read_bytes())
                if match and f"RAYCOMMEND_TEST={self.log}".encode() in (
                    (path / "environ").read_bytes().split(b"\0")
                ):
                    found[int(path.name)] = (path / "cmdline").read_bytes().decode()
                    names.add(match[1].decode())
            except OSError:
                continue
        self.folders = [Path("/tmp", name) for name in names]
        return found

    def replicas(self) -> set[int]:
        """Process ids of all replicas, the text encoder's too."""
        return {pid for pid, name in self.marked().items() if "ServeReplica" in name}

    def listening(self) -> set[tuple[str, int]]:
        """Address and port of every socket on which a process of the service takes connections."""
        sockets = {}
        for table, kind in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                words = line.split()
                number, port = words[1].split(":")
                if words[3] == "0A":  # listens
                    pieces = [bytes.fromhex(number[at : at + 8]) for at in range(0, len(number), 8)]
                    address = socket.inet_ntop(kind, b"".join(each[::-1] for each in pieces))
                    sockets[f"socket:[{words[9]}]"] = (address, int(port, 16))
        found = set()
        self.marked()
        processes = {pid for folder in self.folders for pid, _ in marked(folder.name)}
        for pid in {*processes, self.process.pid}:
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(sockets.get(os.readlink(handle)))
        return {each for each in found if each}

    def discovered(self) -> list[dict[str, Any]]:
        """What the service's own file tells Prometheus to scrape."""
        return list(json.loads(Path(self.printed["metrics"]).read_text()))

    def log_lines(self) -> list[dict[str, Any]]:
        """Requests in the log of the replicas."""
        logs = Path(self.printed["logs"]).glob("replica_*_Ranking_*.log")
        lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        return [line for line in lines if line["message"] == "request"]

    def logged(self, request_id: str) -> dict[str, Any]:
        """The one line of a request, which is written once the request is answered."""
        deadline = time.monotonic() + 10
        while not (found := [e for e in self.log_lines() if e["request_id"] == request_id]):
            assert time.monotonic() < deadline, request_id
            time.sleep(0.1)
        (line,) = found
        return line

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def post(self, path: str, body: Any, status: int = 200) -> dict[str, Any]:
        response = httpx.post(f"{self.url}{path}", json=body, headers=self.headers, timeout=30)
        assert response.status_code == status, response.text
        return dict(response.json())

    def model(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/model", headers=self.headers, timeout=30).json())

    def models(self) -> list[dict[str, Any]]:
        """What each replica says of its model, asked past the proxy."""
        urls = [f"http://{address}/model" for address in self.addresses()]
        return [dict(httpx.get(url, headers=self.headers, timeout=30).json()) for url in urls]

    def wait_until_all(self, key: str, value: str | None, patience_s: float = 60) -> None:
        """Until every replica says so of its model."""
        deadline = time.monotonic() + patience_s
        while {model[key] for model in self.models()} != {value}:
            assert time.monotonic() < deadline, self.models()
            time.sleep(0.2)

    def wait_for_arms(self, *names: str, patience_s: float = 60) -> None:
        """Until every replica has these arms."""
        deadline = time.monotonic() + patience_s
        while any([arm["name"] for arm in each["arms"]] != [*names] for each in self.models()):
            assert time.monotonic() < deadline, self.models()
            time.sleep(0.2)

    def configure(self, bundle: Path, *overrides: str) -> None:
        """Send a configuration as `serve deploy` does, without looking at the bundle."""
        code = (
            "import sys; from pathlib import Path; from recsys.config import load_recipe\n"
            "from ray.dashboard.modules.serve.sdk import ServeSubmissionClient\n"
            "from serve.ray.app import config_of\n"
            "dashboard, recipe, bundle, version, *overrides = sys.argv[1:]\n"
            "config = config_of(load_recipe(recipe, overrides), Path(bundle), version)\n"
            "ServeSubmissionClient(dashboard).deploy_applications(config)\n"
        )
        config = self.command[self.command.index("--config") + 1]
        subprocess.run(
            [
                sys.executable, "-c", code, self.printed["dashboard"], config, str(bundle),
                version_in(bundle), f"serve.port={self.ports[0]}",
                f"serve.grpc_port={self.ports[3]}", *overrides,
            ],
            env=self.environment, cwd=ROOT, timeout=100, check=True,
        )  # fmt: skip

    def scale(self, replicas: int, bundle: Path) -> None:
        """Have exactly so many replicas that answer, and wait until it is so."""
        bounds = (f"serve.autoscaling.{bound}_replicas={replicas}" for bound in ("min", "max"))
        self.configure(bundle, *bounds)
        self.wait_for_replicas(replicas, 120)
        deadline = time.monotonic() + 60
        while len(self.answering()) != replicas:  # those that end still answer
            assert time.monotonic() < deadline, self.marked()
            time.sleep(0.2)

    def answering(self) -> set[int]:
        """Process ids of the replicas of `Ranking`."""
        return {
            pid
            for pid, name in self.marked().items()
            if "ServeReplica" in name and ":Ranking" in name
        }

    def wait_for_replicas(self, count: int, patience_s: float) -> None:
        """Until the proxy sends requests to so many."""
        deadline = time.monotonic() + patience_s
        while len(self.addresses()) != count:
            assert time.monotonic() < deadline, self.marked()
            time.sleep(0.2)

    def addresses(self) -> list[str]:
        """The replicas' own ports, past the proxy; those that the proxy sends requests to."""
        self.marked()
        (config,) = [path for folder in self.folders for path in folder.rglob("haproxy.cfg")]
        servers = r"^ *server \S+ ([\d.]+:\d+) check(?!.* backup)"
        return sorted(set(re.findall(servers, config.read_text(), re.MULTILINE)))


@contextmanager
def started(
    folder: Path, language_model: Path, bundle: Path | None, **sections: dict[str, Any]
) -> Iterator[Running]:
    """A service in a process of its own, which answers; it ends with the block.

    Args:
        folder: of its files.
        language_model: of the recipe.
        bundle: that is served; None: the champion.
        sections: of the recipe.
    """
    config, log = folder / "recipe.yaml", folder / "log"
    keys, key = KeyFile().with_key("tests", RIGHTS)
    keys.write(folder / "keys.json")
    settings = {
        "access": {"keys": str(folder / "keys.json")},
        "log_requests": 1.0,
        "max_queued_requests": NUM_QUEUED,
        # As many at most: what one test has them carry must not start others in the next.
        "autoscaling": {"min_replicas": 2, "max_replicas": 2},
        # The first text starts it; it does not end again while the tests run.
        "text_encoder": {"min_replicas": 0, "downscale_delay_s": 3600},
    }
    recipe = make_recipe(folder / "run", language_model, serve=settings, **sections)
    config.write_text(yaml.safe_dump(recipe.resolved()))
    ports = free_ports(4)
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"} | {
        "RAYCOMMEND_PSEUDONYM_KEY": "0123456789abcdef",
        "RAYCOMMEND_TEST": str(log),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports[1]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports[2]),
        "RAY_AUTH_MODE": "token",
        "RAY_metrics_report_interval_ms": "1000",
    }
    command = [sys.executable, "-m", "serve", "--config", str(config)]
    command += [] if bundle is None else ["--bundle", str(bundle)]
    command += ["--set", f"serve.port={ports[0]}", "--set", f"serve.grpc_port={ports[3]}"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{ports[0]}"
    service = Running(command, environment, log, url, ports, process, key)
    try:
        service.wait()
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(120)
