"""The service as a user starts it: a process of its own, Ray, HAProxy, HTTP, signals."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from bundles import SOLD_OUT, diverge, item_id, make_recipe, version_in
from monitoring import PROMETHEUS, alerts, all_names, panels
from prometheus_client.parser import text_string_to_metric_families
from services import make_service

from benchmarks.ports import free_ports
from benchmarks.serving.clients import Clients, percentile_ms
from recsys.artifacts.bundle import Bundle
from recsys.config import load_recipe
from recsys.data.feedback import Feedback, finished
from recsys.data.histories import US_PER_DAY, Histories
from recsys.recommender.loading import load_scorer
from recsys.schema import EVENT_CODE, Col
from recsys.storage.scratch import MARK, marked
from serve.access.key_file import KeyFile
from serve.launch.own_files import OwnFiles
from serve.protos import ranking_pb2 as pb
from serve.protos.ranking_pb2_grpc import RankingStub
from serve.ray.ports import END, FIRST
from serve.schemas.callers import RIGHTS

pytestmark = [pytest.mark.serve, pytest.mark.ray]

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "recipes" / "demo.yaml"
#: Seconds that a change of the load may take to be followed, on a machine that is busy otherwise.
FOLLOWS_S = 90
#: Seconds until a proxy that was killed answers again, at most.
PROXY_BACK_S = 60
#: Requests that wait in a replica, at most; fewer than by default, so that a test can exceed them.
NUM_QUEUED = 64
#: Methods of Ray's own servers over gRPC; each has one.
RAYS_METHODS = [
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.serve.ASGIService/HandleRequest",
]
OURS = "/raycommend.v1.Ranking/Recommend"
AGENT = "52365, unless it is taken"


@dataclass
class Running:
    """A service that was started for this module."""

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


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, language_model: Path, bundle: Path
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
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
    recipe = make_recipe(folder / "run", language_model, serve=settings)
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
    command = [sys.executable, "-m", "serve", "--config", str(config), "--bundle", str(bundle)]
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


def version_of(bundle: Path) -> str:
    return Bundle.open(bundle, verify=False).version


class Load:
    """Clients that ask without a pause while the block runs, and what they were answered."""

    def __init__(
        self, running: Running, num_clients: int = 4, path: str = "/recommend", **body: Any
    ) -> None:
        self._running, self._done = running, threading.Event()
        self._path, self._body = path, body
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(num_clients)]
        self.versions: list[str] = []
        self.broken: list[str] = []
        self.refused: list[str] = []
        self.slowest_s = 0.0

    def _ask(self, number: int) -> None:
        url, headers = self._running.url, self._running.headers
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            while not self._done.is_set():
                began = time.monotonic()
                try:
                    response = client.post(self._path, json=self._body | {"user_id": f"u{number}"})
                except httpx.HTTPError as error:
                    self.broken.append(repr(error))
                    continue
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                if response.status_code == 200:
                    self.versions.append(response.json()["model_version"])
                else:
                    self.refused.append(f"{response.status_code}: {response.text}")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, num: int) -> None:
        """Return after `num` more good answers; fail after a minute without them."""
        num, deadline = num + len(self.versions), time.monotonic() + 60
        while len(self.versions) < num:
            assert time.monotonic() < deadline, f"{len(self.versions)} of {num} answers"
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def test_health_model_and_docs(running: Running, bundle: Path) -> None:
    assert running.printed["service"] == running.url
    assert httpx.get(f"{running.url}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{running.url}/readyz").json()
    assert ready == {"status": "ok", "model_version": version_of(bundle)}
    assert running.model()["num_items"] == 300
    assert httpx.get(f"{running.url}/docs").status_code == 200


def test_offline_scores_are_the_scores_over_http(running: Running, bundle: Path) -> None:
    """The golden test: one function scores in the evaluation and behind the proxy."""
    clock = time.time_ns() // 1000
    days_ago, rows = (40, 12, 12, 3), (3, 40, 41, 3)
    times = [clock - days * US_PER_DAY for days in days_ago]
    history = Histories.of(rows, [EVENT_CODE["purchase"]] * 4, times, clock)
    scores = load_scorer(Bundle.open(bundle)).scores(history)[0]
    session = [
        {
            "item_id": item_id(row),
            "event_type": "purchase",
            "timestamp": dt.datetime.fromtimestamp(moment / 1e6, dt.UTC).isoformat(),
        }
        for row, moment in zip(rows, times, strict=True)
    ]
    answer = running.post("/recommend", {"history": session, "k": 50})
    expected = {item_id(row): float(score) for row, score in enumerate(scores)}
    found = {item["item_id"]: item["score"] for item in answer["items"]}
    # The service's clock is a moment ahead of ours.
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-4)
    best = sorted((score for name, score in expected.items() if name != SOLD_OUT), reverse=True)
    assert [item["score"] for item in answer["items"]] == pytest.approx(best[:50], abs=1e-4)
    candidates = [item_id(row) for row in range(0, 300, 11)]
    ranked = running.post("/rank", {"history": session, "candidates": candidates})
    for item in ranked["items"]:
        assert item["score"] == pytest.approx(expected[item["item_id"]], abs=1e-4)


def test_an_event_changes_the_next_answer(running: Running) -> None:
    before = running.post("/recommend", {"user_id": "u1", "k": 3})
    event = {"user_id": "u1", "item_id": item_id(77), "event_type": "purchase"}
    assert running.post("/events", {"events": [event]})["stored"] == 1
    after = running.post("/recommend", {"user_id": "u1", "k": 3})
    assert (before["basis"], after["basis"]) == ("popularity", "personal")
    assert before["items"] != after["items"]


def test_grpc_answers_as_http_does(running: Running) -> None:
    """Through HAProxy, which sends calls to the replicas' own ports for gRPC."""
    address = f"127.0.0.1:{running.ports[3]}"
    assert running.printed["gRPC"] == address
    key = [("authorization", f"Bearer {running.key}")]
    with grpc.insecure_channel(address) as channel:
        stub = RankingStub(channel)
        user = pb.RecommendRequest(user_id="by-rpc", k=3)
        before, call = stub.Recommend.with_call(user, metadata=[*key, ("x-request-id", "by-rpc")])
        assert before.request_id == dict(call.trailing_metadata())["x-request-id"] == "by-rpc"
        event = {"user_id": "by-rpc", "item_id": item_id(77), "event_type": "purchase"}
        assert stub.Events(pb.EventsRequest(events=[event]), metadata=key).stored == 1
        after = running.post("/recommend", {"user_id": "by-rpc", "k": 3})
        assert (before.basis, after["basis"]) == ("popularity", "personal")
        assert [item.item_id for item in before.items] != [i["item_id"] for i in after["items"]]
        candidates = [{"item_id": item_id(1)}, {"new_item": {"title": "red cup"}}]
        ranked = stub.Rank(pb.RankRequest(user_id="u", candidates=candidates), metadata=key)
        assert {item.candidate for item in ranked.items} == {0, 1}
        gone = pb.RankRequest(user_id="u", candidates=[{"item_id": "gone"}, candidates[0]])
        assert stub.Rank(gone, metadata=key).unknown_items == ["gone"]

        with pytest.raises(grpc.RpcError) as refused:
            stub.Rank(pb.RankRequest(user_id="u", candidates=[{"item_id": "a\n"}]), metadata=key)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details().startswith("candidates[0]")
        assert "grpc-status-details-bin" in dict(refused.value.trailing_metadata())
        with pytest.raises(grpc.RpcError) as closed:
            stub.Recommend(user)
        assert closed.value.code() is grpc.StatusCode.UNAUTHENTICATED
    (line,) = [each for each in running.log_lines() if each["request_id"] == "by-rpc"]
    assert (line["path"], line["status"]) == ("/raycommend.v1.Ranking/Recommend", 200)


def test_a_session_with_filters(running: Running) -> None:
    body = {"history": [{"item_id": item_id(4)}], "k": 3, "filters": {"category": ["cup"]}}
    answer = running.post("/recommend", body)
    assert answer["basis"] == "session"
    assert all(" cup " in item["title"] for item in answer["items"])


def test_a_new_item_is_ranked_by_its_text(running: Running) -> None:
    candidates = [item_id(1), {"title": "red cup", "item_id": "mine"}, {"title": "blue pen"}]
    answer = running.post("/rank", {"user_id": "nobody", "candidates": candidates})
    scores = {item["candidate"]: item["score"] for item in answer["items"]}
    assert len(set(scores.values())) == 3


def test_the_next_answer_knows_of_an_event_soon(running: Running) -> None:
    """From sending an event to having the answer that knows of it, of 100 new users."""
    seconds = []
    with httpx.Client(base_url=running.url, headers=running.headers, timeout=30) as client:
        for number in range(100):
            user, began = f"newcomer-{number}", time.monotonic()
            event = {"user_id": user, "item_id": item_id(number), "event_type": "view"}
            assert client.post("/events", json=event).json()["stored"] == 1
            answer = client.post("/recommend", json={"user_id": user, "k": 3}).json()
            seconds.append(time.monotonic() - began)
            assert answer["basis"] == "personal"
    assert sorted(seconds)[98] < 1


def test_an_added_item_is_soon_in_the_answers_of_every_replica(
    running: Running, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"user_id": "nobody", "filters": {"category": ["tent"]}}

    def everywhere(expected: list[str], patience_s: float) -> bool:
        """Whether all replicas answer so, asked past the proxy."""
        deadline, urls = time.monotonic() + patience_s, running.addresses()
        assert len(urls) == 2
        while time.monotonic() < deadline:
            answers = [
                httpx.post(f"http://{url}/recommend", json=body, headers=running.headers).json()
                for url in urls
            ]
            if all([item["item_id"] for item in a["items"]] == expected for a in answers):
                return True
            time.sleep(0.05)
        return False

    item = {"item_id": "new-lamp", "title": "green lamp", "category": "tent", "price": 9}
    assert running.post("/items", item)["stored"] == 1
    assert everywhere(["new-lamp"], 20)  # 2 s where nothing else runs

    # A service that starts on the same folder has it too.
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", running.environment["RAYCOMMEND_PSEUDONYM_KEY"])
    again = make_service(
        load_recipe(Path(running.command[running.command.index("--config") + 1]), [])
    )
    asyncio.run(again.load(bundle, version_in(bundle)))
    assert again.describe()["num_added"] == 1

    gone = httpx.delete(f"{running.url}/items/new-lamp", headers=running.headers)
    assert gone.json()["removed"] is True
    assert everywhere([], 20)


@pytest.mark.parametrize(
    ("path", "body", "status", "at"),
    [
        ("/recommend", b"{", 400, "body"),
        ("/recommend", b'{"user_id": NaN}', 422, "user_id"),
        ("/recommend", b'{"user_id": "\\ud800"}', 422, "user_id"),
        ("/recommend", b'{"user_id": "u", "k": 1001}', 422, "k"),
        ("/rank", b'{"user_id": "u", "candidates": [""]}', 422, "candidates[0]"),
        ("/rank", b"[" * 100_000, 400, "body"),
        ("/events", b'{"user_id": "u", "item_id": "i", "event_type": "stare"}', 422, "event_type"),
        ("/events", b" " * ((1 << 20) + 1), 413, "body"),
    ],
)
def test_refusals_name_the_field(
    running: Running, path: str, body: bytes, status: int, at: str
) -> None:
    headers = {"content-type": "application/json"} | running.headers
    response = httpx.post(f"{running.url}{path}", content=body, headers=headers)
    assert response.status_code == status
    assert response.json()["detail"][0]["field"] == at


def test_the_limits_hold_past_the_proxy(running: Running) -> None:
    """A replica's own port can be reached; chunks, so that no length is declared."""
    addresses = running.addresses()
    assert all(int(each.rpartition(":")[2]) in range(FIRST, END) for each in addresses)
    url = f"http://{addresses[0]}/recommend"
    chunks = (b" " * 65536 for _ in range(20))
    headers = {"content-type": "application/json"} | running.headers
    assert httpx.post(url, content=chunks, headers=headers).status_code == 413
    for address in (url, f"{running.url}/recommend"):
        assert httpx.post(address, json={"user_id": "u"}).status_code == 401
    assert running.key not in running.log.read_text()


def test_a_request_is_followed_by_its_id(running: Running) -> None:
    for sent in ({}, {"X-Request-Id": "from-the-shop"}):
        answer = httpx.post(
            f"{running.url}/recommend", json={"user_id": "alice"}, headers=running.headers | sent
        )
        (header,) = answer.headers.get_list("x-request-id")
        assert answer.json()["request_id"] == header
    assert header == "from-the-shop"
    (line,) = [each for each in running.log_lines() if each["request_id"] == header]
    assert (line["path"], line["status"], line["num_items"]) == ("/recommend", 200, 10)
    assert line["model_version"] == answer.json()["model_version"]
    assert line["deployment"] == "raycommend_Ranking"
    assert "alice" not in str(running.log_lines())


def test_two_arms_share_the_users(running: Running, bundle: Path, other_bundle: Path) -> None:
    arms = [
        {"name": "control"},
        {
            "name": "drawn", "bundle": str(other_bundle),
            "exploration": "plackett_luce", "temperature": 1.0,
        },
    ]  # fmt: skip
    before = running.replicas()
    running.configure(bundle, f"serve.arms={json.dumps(arms)}")
    running.wait_for_arms("control", "drawn")
    assert running.replicas() == before, "arms restart nobody"
    running.wait_for_replicas(2, 60)  # Serve takes one out while it tells it what is new
    urls = [f"http://{address}" for address in running.addresses()]
    versions = {"control": version_of(bundle), "drawn": version_of(other_bundle)}
    answers: dict[str, dict[str, Any]] = {}
    for number in range(20):
        body = {"user_id": f"sticky-{number}", "k": 5}
        told = set()
        for url in (*urls, running.url):  # each replica, and whichever the proxy takes
            answer = httpx.post(f"{url}/recommend", json=body, headers=running.headers).json()
            assert answer["model_version"] == versions[answer["arm"]] and not answer["fallback"]
            told.add(answer["arm"])
            answers[answer["request_id"]] = answer
        assert len(told) == 1, "on every replica the same"
    by_arm = Counter(answer["arm"] for answer in answers.values())
    assert min(by_arm["control"], by_arm["drawn"]) >= 6

    logged: dict[str, list[dict[str, Any]]] = {}
    deadline = time.monotonic() + 30
    while not logged.keys() >= answers.keys():
        assert time.monotonic() < deadline
        time.sleep(0.5)
        files = finished(Feedback.of(running.root).impressions)
        logged = {}
        for row in pa.concat_tables([pq.read_table(path) for path in files]).to_pylist():
            logged.setdefault(row[Col.request], []).append(row)
    for request, answer in answers.items():
        rows = logged[request]
        assert [row[Col.item] for row in rows] == [item["item_id"] for item in answer["items"]]
        assert {row[Col.arm] for row in rows} == {answer["arm"]}
        chances = [row[Col.propensity] for row in rows]
        if answer["arm"] == "control":
            assert chances == [1.0] * 5
        else:
            assert all(0 < chance < 1 for chance in chances)
    running.configure(bundle)
    running.wait_for_arms("default")


@pytest.fixture
def shadowed(running: Running, bundle: Path) -> Iterator[None]:
    """A shadow arm beside the only one, for the metrics that tell of it."""
    arms = [{"name": "default"}, {"name": "next", "shadow": True}]
    running.configure(bundle, f"serve.arms={json.dumps(arms)}")
    running.wait_for_arms("default", "next")
    yield
    running.configure(bundle)
    running.wait_for_arms("default")


def use_all_of_it(running: Running) -> None:
    """Requests that leave a figure in every metric."""
    known = {"user_id": "u1", "k": 3, "explain": True}
    running.post("/recommend", known)
    running.post("/recommend", {"history": [{"item_id": item_id(1)}]})
    running.post("/rank", {"user_id": "u1", "candidates": [{"title": "red cup"}]})
    running.post("/events", {"user_id": "u1", "item_id": item_id(5), "event_type": "view"})


@pytest.mark.usefixtures("shadowed")
def test_ray_exports_what_dashboard_and_alerts_read(running: Running) -> None:
    use_all_of_it(running)
    deadline, missing = time.monotonic() + 60, all_names()
    while missing and time.monotonic() < deadline:
        time.sleep(0.5)
        targets = [target for group in running.discovered() for target in group["targets"]]
        found: set[str] = set()
        for target in (*targets, f"127.0.0.1:{running.ports[1]}"):
            text = httpx.get(f"http://{target}/metrics").text
            families = text_string_to_metric_families(text)
            found |= {sample.name for family in families for sample in family.samples}
        missing = all_names() - found
    assert not missing


@pytest.mark.usefixtures("shadowed")
def test_prometheus_answers_what_dashboard_and_alerts_ask(running: Running, tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("no Prometheus on PATH; on Debian it is the package `prometheus`")
    config = yaml.safe_load(PROMETHEUS.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS.parent / name) for name in config["rule_files"]]
    ray, haproxy = config["scrape_configs"]
    (targets,) = ray["file_sd_configs"][0]["files"]
    assert (PROMETHEUS.parent / targets).resolve() == OwnFiles.of(load_recipe(DEMO)).targets
    ray["file_sd_configs"][0]["files"] = [running.printed["metrics"]]
    haproxy["static_configs"][0]["targets"] = [f"127.0.0.1:{running.ports[1]}"]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/api/v1"

    def ask(path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{url}/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def has_data(expression: str) -> bool:
        """Some value that is a number: a share of nothing is NaN."""
        found = ask("query", query=expression)["result"]
        return any(math.isfinite(float(each["value"][1])) for each in found)

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                prometheus, f"--config.file={path}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        empty = {each for some in panels().values() for each in some}
        while empty and time.monotonic() < deadline:
            use_all_of_it(running)
            time.sleep(1)
            try:
                empty = {each for each in empty if not has_data(each)}
            except httpx.ConnectError:
                assert process.poll() is None, (tmp_path / "log").read_text()
        assert not empty
        (group,) = ask("rules")["groups"]
        assert {rule["name"] for rule in group["rules"]} == alerts().keys()
        assert all(rule["health"] == "ok" for rule in group["rules"]), group
        assert not [rule["name"] for rule in group["rules"] if rule["state"] == "firing"]
        (served,) = ask("query", query=next(iter(panels()["Replicas by model"])))["result"]
        assert served["metric"]["version"] == running.model()["version"]
        up = {each["metric"]["job"] for each in ask("query", query="up == 1")["result"]}
        assert up == {"ray", "haproxy"}
    finally:
        process.terminate()
        process.wait(30)


def asks_for(address: str, port: int) -> str:
    """What a server wants to see before it answers, in the words of the documentation."""
    host = "127.0.0.1" if address in ("0.0.0.0", "::") else address
    url = f"http://{host}:{port}"
    try:
        if httpx.get(f"{url}/metrics", timeout=10).status_code == 200:
            return "nothing"
        said = httpx.get(f"{url}/model", timeout=10)
        if said.status_code == 401:
            return "API key" if said.headers.get("www-authenticate") == "Bearer" else "Ray's token"
        if "Statistics Report" in httpx.get(f"{url}/stats", timeout=10).text:
            return "nothing"
    except httpx.HTTPError:
        pass
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in (OURS, *RAYS_METHODS):
            try:
                channel.unary_unary(method)(b"", timeout=10)
                return "nothing"
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                    return "API key" if method == OURS else "Ray's token"
    return "no known protocol"


def test_it_listens_where_the_page_says_and_asks_for_what_it_says(
    running: Running,
) -> None:
    page = (ROOT / "docs" / "serving" / "operations.md").read_text()
    table = page[page.index("What listens, and what it asks") :].split("\n\n")[1]
    rows = [[cell.strip() for cell in row.split("|")[2:5]] for row in table.splitlines()[2:]]
    told = {(where, port, asks) for each, port, asks in rows for where in each.split(", ")}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # sends nothing
        (mine, _), dashboard = sock.getsockname(), int(running.printed["dashboard"].split(":")[-1])
    http, metrics, statistics, rpc = running.ports

    def row(address: str, port: int) -> tuple[str, str, str]:
        is_ours = port in running.ports or FIRST <= port < END
        where = {"0.0.0.0": "all", "::": "all", mine: "the machine's"}.get(address, address)
        if is_ours and address == "127.0.0.1":
            where = "`serve.host`"
        which = (
            "`serve.port`, `serve.grpc_port`" if port in (http, rpc)
            else "9101, 8404" if port in (metrics, statistics)
            else f"{FIRST} to {END}" if is_ours
            else "8265, or the next that is free" if port == dashboard
            else AGENT if port == 52365
            else "any that is free"
        )  # fmt: skip
        return where, which, asks_for(address, port)

    found = {row(*each): each for each in running.listening()}
    assert {each: found[each] for each in found.keys() - told} == {}
    # Another Ray of this machine may have taken the agent's port.
    assert {each for each in told - found.keys() if each[1] != AGENT} == set()


@pytest.mark.chaos
def test_slow_clients_are_told_off_and_nobody_waits_for_them(running: Running) -> None:
    """Thousands that send half a request, and those that send a body byte by byte."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most[1], most[1]))
    address, host = ("127.0.0.1", running.ports[0]), f"Host: shop\r\n{'X: y'}\r\n"
    half = f"POST /recommend HTTP/1.1\r\n{host}Conte".encode()
    body = f"POST /recommend HTTP/1.1\r\n{host}Content-Length: 9000\r\n\r\n".encode()
    told: Counter[str] = Counter()
    slow = []

    def drip(number: int) -> None:
        """A body at a byte a second, until there is an answer."""
        with socket.create_connection(address) as sock:
            sock.sendall(body)
            sock.settimeout(1)
            for _ in range(40):
                with contextlib.suppress(TimeoutError):
                    told[f"drip {sock.recv(12).decode()}"] += 1
                    return
                sock.sendall(b" ")
        told["drip forever"] += 1

    try:
        with Load(running, num_clients=2) as load, ThreadPoolExecutor(8) as dripping:
            began = time.monotonic()
            for _ in range(min(4200, most[1] - 1000)):
                sock = socket.create_connection(address)
                sock.sendall(half)
                slow.append(sock)
            dripping.map(drip, range(8))
            healthy, slowest_s = 0, 0.0
            while time.monotonic() < began + 15:
                asked = time.monotonic()
                assert httpx.get(f"{running.url}/healthz", timeout=30).status_code == 200
                healthy, slowest_s = healthy + 1, max(slowest_s, time.monotonic() - asked)
                time.sleep(0.1)
        for sock in slow:
            sock.settimeout(30)
            told[sock.recv(12).decode()] += 1
    finally:
        for sock in slow:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    print(f"slowest health {slowest_s:.2f} s, slowest answer {load.slowest_s:.2f} s, {told}")
    assert told == {"HTTP/1.1 408": len(slow), "drip HTTP/1.1 408": 8}
    assert (load.refused, load.broken) == ([], [])
    assert max(slowest_s, load.slowest_s) < 5 and min(healthy, len(load.versions)) > 20


def test_a_second_service_is_refused_at_once(running: Running) -> None:
    done = running.run()
    assert done.returncode == 2
    assert "port in use" in done.stderr
    assert "serve.port" in done.stderr
    assert done.stderr.count("\n") == 1
    assert running.model()["failed_update"] is None


def test_a_new_bundle_is_taken_while_requests_are_answered(
    running: Running, bundle: Path, other_bundle: Path
) -> None:
    before = running.replicas()
    plain = {name: value for name, value in running.environment.items() if name[:4] != "RAY_"}
    with Load(running, num_clients=1) as load:
        update = subprocess.run(
            f"{running.printed['update']} --bundle {shlex.quote(str(other_bundle))}", shell=True,
            env=plain, cwd="/", capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    assert update.returncode == 0, update.stderr
    assert (load.refused, load.broken) == ([], [])
    assert load.versions[0] == version_of(bundle)
    assert load.versions[-1] == version_of(other_bundle)
    assert len(before) == 3  # two that rank, and the language model
    assert before <= running.replicas()


def test_a_broken_bundle_leaves_the_last_good_one(
    running: Running, other_bundle: Path, bundle: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(other_bundle, tmp_path / "broken")
    (broken / "vectors.npy").unlink()
    running.configure(broken)
    running.wait_until_all("failed_update", "a file is missing")
    assert {model["version"] for model in running.models()} == {version_of(other_bundle)}
    assert running.post("/recommend", {"user_id": "u"})["items"]
    running.configure(bundle)
    running.wait_until_all("version", version_of(bundle))
    assert {model["failed_update"] for model in running.models()} == {None}


def test_an_update_that_fails_is_taken_back_and_may_be_tried_again(
    running: Running, bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    """Whole on the outside, its scores are NaN: only a replica that tries it finds out."""
    diverged = diverge(shutil.copytree(other_bundle, tmp_path / "diverged"))
    address = f"ray.address={running.printed['update'].rsplit('=', 1)[1]}"
    before = running.model()["version"]
    for _ in range(2):
        update = running.run("--set", address, "--bundle", str(diverged))
        assert update.returncode == 2
        assert "not finite" in update.stderr
        assert update.stderr.count("\n") == 1
    # Or a new replica would load the broken bundle.
    running.wait_until_all("failed_update", None)
    assert {model["version"] for model in running.models()} == {before}
    update = running.run("--set", address, "--bundle", str(other_bundle))
    assert update.returncode == 0, update.stderr
    assert running.model()["version"] == version_of(other_bundle)


def test_a_folder_whose_content_was_replaced_is_taken_anew(
    running: Running, bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    """As when `embed` writes the next bundle into the run's folder."""
    address = f"ray.address={running.printed['update'].rsplit('=', 1)[1]}"
    folder = tmp_path / "bundle"
    for source in (bundle, other_bundle):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        update = running.run("--set", address, "--bundle", str(folder))
        assert update.returncode == 0, update.stderr
        assert running.model()["version"] == version_of(source)
        answer = running.post("/rank", {"user_id": "u", "candidates": [{"title": "red cup"}]})
        assert answer["model_version"] == version_of(source)


def test_a_user_is_erased_while_the_service_runs(running: Running) -> None:
    event = {"user_id": "leaves/us", "item_id": item_id(77), "event_type": "purchase"}
    running.post("/events", event)
    path = f"{running.url}/users/leaves%2Fus"
    assert httpx.delete(path).status_code == 401
    answer = httpx.delete(path, headers=running.headers)
    assert answer.status_code == 200 and answer.json()["erased"] == 1
    assert running.post("/recommend", {"user_id": "leaves/us"})["basis"] == "popularity"


@pytest.mark.chaos
def test_more_and_fewer_replicas_cost_no_answer(running: Running, bundle: Path) -> None:
    running.configure(bundle)
    before = running.answering()
    texts = [{"title": f"a cup of colour {n}"} for n in range(256)]
    with Load(running) as load, Load(running, path="/rank", candidates=texts) as long:
        running.scale(3, bundle)
        assert before <= running.answering(), "scaling restarts nobody"
        running.scale(2, bundle)
        while len(running.answering()) > 2:  # the third answers what it has
            time.sleep(0.2)
        load.wait_for(20)
        long.wait_for(20)
    assert (load.refused, load.broken, long.refused, long.broken) == ([], [], [], [])


@pytest.mark.chaos
def test_a_replica_that_is_killed_takes_no_answer_along(running: Running, bundle: Path) -> None:
    """Of two; the proxy asks the other again, unless half an answer was sent already."""
    running.scale(2, bundle)
    key, broken, killed = [("authorization", f"Bearer {running.key}")], [], threading.Event()

    def call() -> None:
        """Over gRPC, until 50 calls were answered after the kill."""
        num = 0
        while num < 50 and len(broken) < 2:
            try:
                assert stub.Recommend(pb.RecommendRequest(user_id="u"), metadata=key).items
                num += killed.is_set()
            except grpc.RpcError as error:
                broken.append(str(error))

    with (
        grpc.insecure_channel(f"127.0.0.1:{running.ports[3]}") as channel,
        ThreadPoolExecutor(2) as callers,
        Load(running, num_clients=4) as load,
    ):
        stub = RankingStub(channel)
        called = [callers.submit(call) for _ in range(2)]
        time.sleep(1)
        os.kill(min(running.answering()), signal.SIGKILL)
        killed.set()
        load.wait_for(100)
        for each in called:
            each.result(timeout=60)
    assert load.refused == []
    assert len(load.broken) <= 1, load.broken
    assert len(broken) <= 1, broken


def test_replicas_follow_the_load_and_no_request_fails(running: Running, bundle: Path) -> None:
    bounds = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2}
    delays = {"upscale_delay_s": 0, "downscale_delay_s": 2}
    settings = [f"serve.autoscaling.{key}={value}" for key, value in (bounds | delays).items()]
    running.scale(2, bundle)
    with Load(running, num_clients=1) as little:
        running.configure(bundle, *settings)
        running.wait_for_replicas(1, FOLLOWS_S)
        with Load(running, num_clients=8) as much:
            running.wait_for_replicas(2, FOLLOWS_S)
            much.wait_for(20)
            little.wait_for(20)
    assert (little.refused, little.broken, much.refused, much.broken) == ([], [], [], [])


def test_other_code_replaces_every_replica_and_no_request_fails(
    running: Running, bundle: Path
) -> None:
    """New settings restart replicas as new code does: both are arguments of the application."""
    running.scale(2, bundle)
    before = running.answering()
    address = running.printed["update"].rsplit("=", 1)[1]
    sets = [f"ray.address={address}", "serve.default_k=7", "serve.autoscaling.min_replicas=2"]
    with Load(running) as load:
        update = running.run(*(each for one in sets for each in ("--set", one)))
        assert update.returncode == 0, update.stderr
        deadline = time.monotonic() + 60
        while before & running.answering():
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert (load.refused[:3], load.broken[:3]) == ([], [])
    assert len(running.post("/recommend", {"user_id": "u"})["items"]) == 7


def test_what_is_too_much_is_refused_and_the_rest_answered(running: Running, bundle: Path) -> None:
    """Four times what the bounds admit: of each replica so many in work, and as many waiting."""
    running.scale(2, bundle)
    deadline = time.monotonic() + 60
    while len(running.answering()) > 2:  # those that end still answer
        assert time.monotonic() < deadline
        time.sleep(0.2)
    body, many = json.dumps({"user_id": "u"}), 4 * 2 * (16 + NUM_QUEUED)
    crowd = Clients(f"{running.url}/recommend", [body], 0.2, many, headers=running.headers)
    asyncio.run(crowd.run(4))
    good = [answer for answer in crowd.answers if answer.status == 200]
    refused = [answer for answer in crowd.answers if answer.status == 503]
    assert len(good) + len(refused) == len(crowd.answers), {each.status for each in crowd.answers}
    assert all(answer.retry_after for answer in refused)
    assert len(good) > 100 and len(refused) > 100
    assert percentile_ms(refused, 50) < percentile_ms(good, 50) / 2
    assert running.post("/recommend", {"user_id": "u"})["items"], "it goes on"


def test_a_crowd_over_grpc_is_answered_or_refused(running: Running, bundle: Path) -> None:
    """More at once than replicas admit; how many Serve comes to refuse, the machine decides."""
    running.scale(2, bundle)
    key = [("authorization", f"Bearer {running.key}")]

    async def crowd() -> Counter[str]:
        pool = [("grpc.use_local_subchannel_pool", 1)]  # a connection takes 100 calls at a time
        address = f"127.0.0.1:{running.ports[3]}"
        channels = [grpc.aio.insecure_channel(address, options=pool) for _ in range(8)]
        request = pb.RecommendRequest(user_id="u").SerializeToString()
        ask = [channel.unary_unary("/raycommend.v1.Ranking/Recommend") for channel in channels]
        calls = [ask[n % 8](request, metadata=key) for n in range(800)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        for channel in channels:
            await channel.close()
        return Counter(
            result.details() if isinstance(result, grpc.RpcError) else type(result).__name__
            for result in results
        )

    found = asyncio.run(crowd())
    assert found.keys() <= {"bytes", "Request dropped due to backpressure"}, found
    assert found["bytes"] > 100, found
    assert running.post("/recommend", {"user_id": "u"})["items"], "it goes on"


@pytest.mark.chaos
@pytest.mark.parametrize("process", ["haproxy.cfg", "HAProxyManager"])
def test_a_proxy_that_is_killed_comes_again(running: Running, bundle: Path, process: str) -> None:
    """HAProxy, and the actor that watches it; the replicas go on."""

    def found() -> set[int]:
        return {pid for pid, name in running.marked().items() if process in name}

    replicas = running.answering()
    with Load(running, num_clients=1) as load:
        time.sleep(1)
        killed: set[int] = set()
        for pid in found():
            with contextlib.suppress(ProcessLookupError):  # the one before a reload may be ending
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        assert killed
        began = answered = back = time.monotonic()
        num, gap = len(load.versions), 0.0
        while answered < back + 3:  # it is there, and has been answering for a while
            time.sleep(0.1)
            now = time.monotonic()
            assert now < began + PROXY_BACK_S, running.marked()
            if not found() - killed:
                back = now
            if len(load.versions) > num:
                num, gap, answered = len(load.versions), max(gap, now - answered), now
    print(f"{process}: {gap:.1f} s without an answer, {len(load.broken)} requests broken")
    # HAProxy starts before it is told of the application.
    assert all(each.startswith("503: no application") for each in load.refused), load.refused
    assert running.answering() <= replicas  # one that was ending may have ended


def test_a_signal_ends_it_without_a_trace(running: Running) -> None:
    last = running.post("/recommend", {"user_id": "u", "k": 3})
    children = running.marked()
    assert any("haproxy" in name for name in children.values())
    assert any("raylet" in name for name in children.values())
    texts = [{"title": f"a cup of colour {n}"} for n in range(256)]  # some seconds of work
    ready = f"{running.url}/readyz"
    with ThreadPoolExecutor(40) as askers:
        asked = [
            askers.submit(running.post, "/rank", {"user_id": f"u{n}", "candidates": texts})
            for n in range(12)
        ]
        time.sleep(0.1)
        before = [each for each in asked if not each.done()]
        os.killpg(running.process.pid, signal.SIGINT)  # as Ctrl-C does, to the whole group
        while httpx.get(ready).status_code == 200:
            time.sleep(0.02)
        assert httpx.get(ready).json()["detail"][0]["msg"] == "the service is stopping"
        assert all(len(each.result()["items"]) == len(texts) for each in asked)
    assert before, "some were in work"
    while True:
        try:
            assert httpx.get(ready).status_code == 503, "for as long as the port is open"
        except httpx.TransportError:
            break
        time.sleep(0.05)
    assert running.process.wait(60) == 0, running.log.read_text()
    assert running.log.read_text().rstrip().endswith("stopped")
    shown = [pq.read_table(path) for path in finished(Feedback.of(running.root).impressions)]
    logged = pa.concat_tables(shown).select([Col.request, Col.item]).to_pylist()
    mine = [row[Col.item] for row in logged if row[Col.request] == last["request_id"]]
    assert mine == [item["item_id"] for item in last["items"]], "written before it ended"
    assert running.marked() == {}
    deadline = time.monotonic() + 10  # an orphan that has ended waits for init to take note of it
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for port in running.ports:
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("number", "at"),
    [
        (signal.SIGINT, "raylet"), (signal.SIGTERM, "raylet"), (signal.SIGTERM, "ServeController"),
    ],
)  # fmt: skip
def test_a_signal_while_it_starts_ends_it_without_a_trace(
    running: Running, number: int, at: str
) -> None:
    """A shell's background job is started with SIGINT ignored, and heeds it all the same."""
    assert running.process.poll() is not None, "the test before has ended it"
    with running.log.open("wb") as out:
        process = subprocess.Popen(
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *running.command],
            stdout=out, stderr=out, env=running.environment, cwd=ROOT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not any(at in name for name in running.marked().values()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) != 0, "it was not up yet"
        assert running.marked() == {}, running.log.read_text()
    finally:
        process.kill()
