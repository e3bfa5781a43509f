"""The steps of the rehearsal, in their order: each does something to the cluster and looks.

A step returns what was seen, in words, and raises `RuntimeError` where that is not what we promise.
"""

from __future__ import annotations

import asyncio
import shutil
import time
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from benchmarks.rehearsal import shop
from benchmarks.rehearsal.asking import Asked, asked_while_cut_off, post, up_servers
from benchmarks.rehearsal.cluster import Cluster, Job, until
from benchmarks.rehearsal.host import ROOT, WORK
from benchmarks.rehearsal.network import Host, Network
from benchmarks.rehearsal.servers import BUCKET, Servers

if TYPE_CHECKING:
    from recsys.artifacts.bundle import Bundle

#: Hosts; the last but one share nothing with the others but it, the last one is a cluster alone.
HEAD, WORKERS, STORE, ALONE = "head", ("worker-1", "worker-2"), "store", "alone"
#: CPUs of each host that works, as Ray counts them: either holds all training workers.
CPUS = 4
RECIPE = "shop.yaml"
RUN, REGISTRY = f"s3://{BUCKET}/run", f"s3://{BUCKET}/registry"
REGISTRY_ALONE = f"s3://{BUCKET}/registry-alone"
#: Largest difference of a metric from the single host's.
SAME = 1e-6


@dataclass
class Stage:
    """What the steps work on.

    Attributes:
        network: its hosts.
        servers: the store and Redis.
        work: folder of this process.
        token: of the clusters' clients.
        num_users: of the log.
        epochs: of the training.
        stop_s: how long the store says nothing.
        ask_s: how long is asked before a host that serves is cut off, and after.
    """

    network: Network
    servers: Servers
    work: Path
    token: str
    num_users: int
    epochs: int
    stop_s: float
    ask_s: float
    cluster: Cluster | None = None
    service: Job | None = None

    @property
    def workers(self) -> list[Host]:
        """The hosts that jobs and replicas run on."""
        return [self.network[name] for name in WORKERS]

    @property
    def running(self) -> Cluster:
        """The cluster of head and workers."""
        assert self.cluster is not None
        return self.cluster


def fill_the_bucket(stage: Stage) -> str:
    """A log goes into the bucket, a language model onto each host, and no file to two hosts."""
    log, language = stage.work / "log", stage.work / shop.LANGUAGE_DIR
    num_events = shop.write_log(log, stage.num_users)
    stage.servers.upload(log, "log")
    shop.write_language_model(language)
    for host in stage.network.hosts.values():
        shutil.copytree(language, host.work / shop.LANGUAGE_DIR)
    mark = stage.workers[0].work / "mark"
    mark.touch()
    if any((host.work / "mark").exists() for host in stage.network.hosts.values()
           if host is not stage.workers[0]):  # fmt: skip
        raise RuntimeError("a file of one host lies on another")
    stage.workers[0].run("write", "sh", "-c", f"! touch {ROOT}/mark")
    return f"{num_events:,} events at {shop.LOG}; {len(stage.network.hosts)} hosts share no file"


def train_on_one_host(stage: Stage) -> str:
    """The same recipe on a single host, whose run is a folder of its own."""
    host = stage.network[ALONE]
    _write_recipe(stage, host, str(WORK / "run"), REGISTRY_ALONE)
    cluster = Cluster(host, [], token=stage.token, cpus=CPUS)
    for job in ("prepare", "train", "embed", "evaluate", "promote"):
        _submit(cluster, job).wait(300)
    host.end()
    return "prepare, train, embed, evaluate, promote by `ray job submit`"


def start_the_cluster(stage: Stage) -> str:
    """Head and workers join; who has no token is turned away."""
    head = stage.network[HEAD]
    _write_recipe(stage, head, RUN, REGISTRY)
    stage.cluster = cluster = Cluster(head, stage.workers, token=stage.token, cpus=CPUS)
    try:
        cluster.ask("/api/jobs/", token="0" * 64)
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise RuntimeError(f"a wrong token is answered {error.code}") from None
        return f"{len(cluster.alive())} nodes; a wrong token is answered {error.code}"
    raise RuntimeError("a client with a wrong token was let in")


def prepare_while_the_store_stops(stage: Stage) -> str:
    """The store says nothing for a while, once `prepare` reads the log."""
    began = time.monotonic()
    before = stage.servers.requests(f"/{BUCKET}/log/events/")
    job = _submit(stage.running, "prepare")
    until(lambda: stage.servers.requests(f"/{BUCKET}/log/events/") > before, 120,
          "prepare did not read the log")  # fmt: skip
    with stage.servers.stopped():
        time.sleep(stage.stop_s)
    job.wait(300)
    took = time.monotonic() - began
    return (
        f"the store said nothing for {stage.stop_s:.0f} s; prepare ended well, {took:.0f} s in all"
    )


def train_while_a_host_is_cut_off(stage: Stage) -> str:
    """The host of the training's workers is cut off, and later started again."""
    job = _submit(stage.running, "train")
    job.until_it_says("epoch 1/", 240)
    at_work = [host for host in stage.workers if _trains(host)]
    if not at_work:
        raise RuntimeError("the training was over before a host could be cut off")
    lost = at_work[-1]
    (other,) = (host for host in stage.workers if host is not lost)
    lost.cut_off()
    dead_s = until(lambda: lost.address not in stage.running.alive(), 120, "it was not noticed")
    again_s = dead_s + until(lambda: _trains(other), 120, "no new workers were started")
    lost.restart()
    lost.bring_back()
    stage.running.join(lost)
    until(lambda: lost.address in stage.running.alive(), 60, "it did not join again")
    job.wait(400)
    if f"epoch {stage.epochs}/{stage.epochs}" not in job.output:
        raise RuntimeError("the training did not come to its last epoch")
    return (
        f"{lost.name} cut off after epoch 1: dead after {dead_s:.0f} s, workers on {other.name} "
        f"after {again_s:.0f} s; {lost.name} joined again; all {stage.epochs} epochs trained"
    )


def _trains(host: Host) -> bool:
    return bool(host.pids("RayTrainWorker"))


def go_on_to_the_champion(stage: Stage) -> str:
    """The rest of the way."""
    for job in ("embed", "evaluate", "promote"):
        _submit(stage.running, job).wait(300)
    return f"champion {_champion(stage, REGISTRY).version} at {REGISTRY}"


def compare_with_one_host(stage: Stage) -> str:
    """Both champions are the same model."""
    ours, alone = _champion(stage, REGISTRY), _champion(stage, REGISTRY_ALONE)
    metrics, expected = ours.meta["metrics"], alone.meta["metrics"]
    if metrics.keys() != expected.keys() or not metrics:
        raise RuntimeError("they were measured differently")
    largest = max(
        abs(value - expected[name]) for name, value in metrics.items() if value is not None
    )
    if not largest <= SAME:
        raise RuntimeError(f"metrics differ by up to {largest:.2g}, more than {SAME:g}")
    same = sum(ours.meta["files"].get(name) == digest for name, digest in
               alone.meta["files"].items())  # fmt: skip
    return (
        f"{len(metrics)} metrics differ by at most {largest:.1g} (ndcg@10 "
        f"{metrics['all/ndcg@10']:.6f}); {same} of {len(alone.meta['files'])} files are equal"
    )


def serve_on_both_hosts(stage: Stage) -> str:
    """The champion is served by a replica on each host; what one is told the other knows."""
    cluster = stage.running
    stage.service = service = _submit(cluster, "serve", module="serve")
    service.until_it_says("update ", 300)
    first, second = stage.workers
    until(lambda: len(_replicas(cluster)) == 2, 120, "the replicas are not on both hosts")
    until(lambda: all(up_servers(host) == 2 for host in stage.workers), 60,
          "a proxy does not know both replicas")  # fmt: skip
    bought = {"user_id": "new", "item_id": shop.item_id(3), "event_type": "purchase"}
    post(first, "/events", {"events": [bought]})
    answer = post(second, "/recommend", {"user_id": "new", "k": 3})
    if answer["basis"] == "popularity" or answer["fallback"]:
        raise RuntimeError("what one host was told, the other does not know")
    return f"replicas on {' and '.join(_replicas(cluster))}; an event told to one is known to both"


def _replicas(cluster: Cluster) -> list[str]:
    """Addresses of the nodes with a replica that runs."""
    told = cluster.ask("/api/serve/applications/")["applications"]["raycommend"]
    replicas = told["deployments"]["Ranking"]["replicas"]
    return sorted({each["node_ip"] for each in replicas if each["state"] == "RUNNING"})


def cut_off_a_host_that_serves(stage: Stage) -> str:
    """Under load: no request fails once the other host's proxy has taken the replica out."""
    lost, asked = stage.workers
    found: Asked = asyncio.run(asked_while_cut_off(asked, lost, stage.ask_s))
    if found.failed_after:
        raise RuntimeError(f"{found.failed_after} requests failed after the health check: {found}")
    return str(found)


def _submit(cluster: Cluster, job: str, module: str | None = None) -> Job:
    return cluster.submit(job, "-m", module or f"ray_jobs.{job}", "--config", str(WORK / RECIPE))


def _write_recipe(stage: Stage, host: Host, run_dir: str, registry: str) -> None:
    recipe = shop.recipe(run_dir=run_dir, registry=registry, epochs=stage.epochs)
    (host.work / RECIPE).write_text(yaml.safe_dump(recipe, sort_keys=False))


def _champion(stage: Stage, registry: str) -> Bundle:
    """The champion of a registry, copied here and verified."""
    from recsys.artifacts.bundle import Bundle
    from recsys.artifacts.registry import Registry
    from recsys.config import recipe_from_dict

    raw = shop.recipe(run_dir=RUN, registry=registry, epochs=stage.epochs)
    raw["storage"]["cache_dir"] = str(stage.work / "cache")
    found = Registry.of(recipe_from_dict(raw))
    return Bundle.open(found.path("champion"))


Step = Callable[[Stage], str]

#: All of it.
WHOLE: tuple[Step, ...] = (
    fill_the_bucket, train_on_one_host, start_the_cluster, prepare_while_the_store_stops,
    train_while_a_host_is_cut_off, go_on_to_the_champion, compare_with_one_host,
    serve_on_both_hosts, cut_off_a_host_that_serves,
)  # fmt: skip
#: What takes a minute.
SMALL: tuple[Step, ...] = (
    fill_the_bucket, start_the_cluster, prepare_while_the_store_stops,
)  # fmt: skip
