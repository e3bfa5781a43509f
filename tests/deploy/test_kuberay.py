"""`deploy/kuberay`: schemas of KubeRay and Kubernetes, and that what it names is there."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import ROOT
from jsonschema import Draft202012Validator
from manifests import (
    FOLDER,
    NOT_SENT,
    Manifest,
    Pod,
    kustomization,
    manifests,
    of_kind,
    pods,
    references,
    selects,
)

from ray_jobs.cli import JOBS
from recsys.config import Privacy, load_recipe
from recsys.state import URL_VARIABLE

PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
)
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]
#: Secret -> its keys. docs/cluster.md tells how to make them.
SECRETS = {
    "raycommend-ray-token": {"auth_token"},
    "raycommend-pseudonyms": {"pseudonym.key"},
    "raycommend-redis": {"password", "url"},
    "raycommend-api-keys": {"keys.json"},
}


def problems(manifest: Manifest) -> list[str]:
    """What its schema says against it."""
    found = Draft202012Validator(manifest.schema()).iter_errors(manifest.data)
    return [f"{error.json_path}: {error.message}" for error in found]


@pytest.mark.parametrize("manifest", manifests(), ids=str)
def test_its_schema_accepts_it(manifest: Manifest) -> None:
    assert problems(manifest) == []


@pytest.mark.parametrize("manifest", manifests(), ids=str)
def test_a_misspelt_key_is_refused_wherever_it_stands(manifest: Manifest) -> None:
    """Every key of the manifest, one at a time; not names that the author chooses."""
    tried, validator = 0, Draft202012Validator(manifest.schema())
    for path in paths(manifest.data):
        if path[-1] in FREE or any(parent in CHOSEN for parent in path[:-1]):
            continue
        wrong = copy.deepcopy(manifest.data)
        section = wrong
        for step in path[:-1]:
            section = section[step]
        section[f"{path[-1]}x"] = section.pop(path[-1])
        assert not validator.is_valid(wrong), path
        tried += 1
    assert tried or manifest.kind == "ServiceAccount"


#: Below these the keys are whatever the author wants.
CHOSEN = {"labels", "matchLabels", "requests", "limits", "rayStartParams", "metadata"}
CHOSEN |= {"clusterSelector", "selector"}
FREE = {"metadata", "kind"}


def paths(part: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every key."""
    found = []
    for key, each in part.items() if isinstance(part, dict) else enumerate(part):
        if isinstance(key, str):
            found.append((*above, key))
        if isinstance(each, dict | list):
            found += paths(each, (*above, key))
    return found


def test_every_file_is_applied_or_told_how() -> None:
    applied = set(kustomization()["resources"])
    generated = {file for each in kustomization()["configMapGenerator"] for file in each["files"]}
    files = {path.name for path in FOLDER.glob("*.yaml")}
    assert applied | generated | NOT_SENT | {"service.yaml", "pipeline.yaml"} == files
    assert not applied & {"service.yaml", "pipeline.yaml", "night.yaml"}
    # night.yaml goes into a ConfigMap, where kustomize's namespace does not reach.
    assert all("namespace" not in each.data["metadata"] for each in manifests())


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: f"{pod.of}:{pod.labels['part']}")
class TestPod:
    def test_nobody_is_root(self, pod: Pod) -> None:
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        own = pod.container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}

    def test_it_asks_for_what_it_needs(self, pod: Pod) -> None:
        resources = pod.container["resources"]
        assert resources["requests"].keys() >= {"cpu", "memory"}
        assert resources["limits"].keys() >= {"memory"}
        if pod.container["name"] == "ray":  # Ray counts what it may use from these
            assert resources["limits"]["memory"] == resources["requests"]["memory"]

    def test_what_stays_is_probed(self, pod: Pod) -> None:
        if pod.of.kind == "CronJob":
            return
        container = pod.container
        named = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in (container["readinessProbe"], container["livenessProbe"]):
            port = probe.get("httpGet", probe.get("tcpSocket"))["port"]
            # 52365: Ray's agent, which KubeRay asks too; nobody else has to reach it.
            assert port in {*named, *named.values(), 52365}

    def test_volumes_and_secrets_exist(self, pod: Pod) -> None:
        maps = {each["name"] for each in kustomization()["configMapGenerator"]}
        claims = {each.name for each in of_kind("PersistentVolumeClaim")}
        for volume in pod.mounted().values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
            elif "secret" in volume:
                assert volume["secret"]["secretName"] in SECRETS
            else:
                assert volume["persistentVolumeClaim"]["claimName"] in claims

    def test_all_ports_are_open_to_its_own_cluster_alone(self, pod: Pod) -> None:
        policies = [
            each.spec
            for each in of_kind("NetworkPolicy")
            if selects(each.spec["podSelector"], pod.labels)
        ]
        assert {"podSelector": {}, "policyTypes": ["Ingress"]} in policies, "else all may come in"
        for policy in policies:
            for rule in policy.get("ingress", []):
                assert rule.get("ports") or rule["from"] == [{"podSelector": policy["podSelector"]}]


def test_policies_open_ports_that_somebody_listens_on() -> None:
    for policy in of_kind("NetworkPolicy"):
        listening = {9101}  # HAProxy's metrics
        for pod in pods():
            if selects(policy.spec["podSelector"], pod.labels):
                listening |= {each["containerPort"] for each in pod.container.get("ports", [])}
        for rule in policy.spec.get("ingress", []):
            assert {each["port"] for each in rule.get("ports", [])} <= listening


def test_secrets_are_named_and_never_there() -> None:
    assert not of_kind("Secret")
    used: dict[str, set[str]] = {}
    for each in references("secretKeyRef"):
        used.setdefault(each["name"], set()).add(each["key"])
    for each in references("authOptions"):
        assert each["mode"] == "token"
        used.setdefault(each["secretName"], set()).add("auth_token")  # KubeRay's name for it
    for each in references("secret"):
        keys = SECRETS[each["secretName"]]
        used.setdefault(each["secretName"], set()).update(keys)
    assert used == SECRETS


def test_the_environment_has_the_names_that_the_code_reads() -> None:
    for pod in pods():
        if pod.container["name"] == "ray":
            assert {Privacy().key_env, URL_VARIABLE} <= pod.env().keys()


def test_every_policy_and_budget_selects_a_pod() -> None:
    labels = [pod.labels for pod in pods()]
    for policy in of_kind("NetworkPolicy"):
        selectors = [policy.spec["podSelector"]]
        for rule in policy.spec.get("ingress", []):
            selectors += [each["podSelector"] for each in rule["from"] if "podSelector" in each]
        for selector in selectors:
            assert any(selects(selector, each) for each in labels), policy
    for budget in of_kind("PodDisruptionBudget"):
        assert any(selects(budget.spec["selector"], each) for each in labels), budget


def test_redis_is_where_ray_looks_for_it() -> None:
    (service,), (store,) = of_kind("Service"), of_kind("StatefulSet")
    (port,) = service.spec["ports"]
    assert service.spec["selector"] == store.spec["selector"]["matchLabels"]
    assert service.spec["selector"] == store.spec["template"]["metadata"]["labels"]
    assert store.spec["serviceName"] == service.name
    addresses = {each["redisAddress"] for each in references("gcsFaultToleranceOptions")}
    assert addresses == {f"{service.name}:{port['port']}"}
    arguments = next(pod for pod in pods() if pod.of.kind == "StatefulSet").container["args"]
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert (given["--appendonly"], given["--appendfsync"]) == ("yes", "always")
    assert given["--maxmemory-policy"] == "noeviction"


def test_images_and_versions_are_the_released_ones() -> None:
    images = {pod.container["image"] for pod in pods() if pod.container["name"] == "ray"}
    assert images == {
        f"registry.example/raycommend:{VERSION}", f"registry.example/raycommend:{VERSION}-cuda"
    }  # fmt: skip
    assert set(references("rayVersion")) == {PINNED["ray"]}


def test_the_night_creates_the_job_and_may_do_nothing_else() -> None:
    job, (role,) = jobs()["night.yaml"], of_kind("Role")
    (pod,) = [pod for pod in pods() if pod.of.kind == "CronJob"]
    (binding,), (account,) = of_kind("RoleBinding"), of_kind("ServiceAccount")
    assert pod.spec["serviceAccountName"] == account.name
    assert binding.data["roleRef"]["name"] == role.name
    assert [each["name"] for each in binding.data["subjects"]] == [account.name]
    group = job.data["apiVersion"].split("/")[0]
    assert role.data["rules"] == [
        {"apiGroups": [group], "resources": ["rayjobs"], "verbs": ["create"]}
    ]
    assert pod.container["args"][-1] == mounted_file(pod, "raycommend-night", "night.yaml")
    assert job.spec["activeDeadlineSeconds"] < 24 * 3600
    assert job.spec["clusterSelector"] == {"ray.io/cluster": of_kind("RayCluster")[0].name}


def jobs() -> dict[str, Manifest]:
    """The jobs, by file."""
    return {each.file: each for each in of_kind("RayJob")}


@pytest.mark.parametrize("job", jobs().values(), ids=str)
def test_a_job_leaves_the_cluster_alone(job: Manifest) -> None:
    """What KubeRay's operator demands of a job on a cluster that stays, beyond its schema."""
    assert not job.spec.keys() & {
        "rayClusterSpec", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    }  # fmt: skip
    assert job.spec["submissionMode"] != "SidecarMode"
    rules = job.spec["deletionStrategy"]["deletionRules"]
    assert {rule["policy"] for rule in rules} == {"DeleteSelf"}


@pytest.mark.parametrize(
    ("file", "names"), [("pipeline.yaml", ["compact", "pipeline"]), ("night.yaml", ["nightly"])]
)
def test_a_job_is_understood(file: str, names: list[str], recipe_path: str) -> None:
    job, told = jobs()[file], []
    for command in job.spec["entrypoint"].split(" && "):
        words = shlex.split(command)
        assert words[0] == "recsys" and words[1] in JOBS
        assert words[words.index("--config") + 1] == recipe_path
        given = [value for word, value in zip(words, words[1:], strict=False) if word == "--set"]
        told.append((words[1], load_recipe(FOLDER / "recipe.yaml", given)))
    assert [name for name, _ in told] == names
    assert told[-1][1].ray.address == "auto"


def test_the_cluster_can_hold_what_the_recipe_asks_for() -> None:
    recipe = load_recipe(FOLDER / "recipe.yaml", [])
    (cluster,) = of_kind("RayCluster")
    groups = {each["groupName"]: each for each in cluster.spec["workerGroupSpecs"]}
    for group in groups.values():
        assert 0 == group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    requests = {
        name: group["template"]["spec"]["containers"][0]["resources"]["requests"]
        for name, group in groups.items()
    }
    train, trials = recipe.train, recipe.tune.max_concurrent or 1
    gpus = groups["gpu"]["maxReplicas"] * int(requests["gpu"]["nvidia.com/gpu"])
    assert train.use_gpu and train.num_workers * trials <= gpus
    assert train.cpus_per_worker <= int(requests["gpu"]["cpu"])
    root = str(recipe.root)
    for pod in pods():
        if pod.container["name"] == "ray":
            assert any(root.startswith(where) for where in pod.mounted())


@pytest.fixture
def recipe_path() -> str:
    """Where the recipe lies in the pods of the pipeline."""
    pod = next(pod for pod in pods() if pod.of.kind == "RayCluster")
    return mounted_file(pod, "raycommend-recipe", "recipe.yaml")


def mounted_file(pod: Pod, config_map: str, key: str) -> str:
    """The path of a file of a ConfigMap."""
    generated = {each["name"]: each["files"] for each in kustomization()["configMapGenerator"]}
    assert generated[config_map] == [key] and (FOLDER / key).is_file()
    (where,) = [
        where
        for where, volume in pod.mounted().items()
        if volume.get("configMap", {}).get("name") == config_map
    ]
    return str(Path(where) / key)


def test_the_schemas_name_their_sources() -> None:
    text = (ROOT / "tests" / "deploy" / "schemas.json").read_text()
    about = yaml.safe_load(text.splitlines()[1].rstrip(","))["$comment"]
    for name in ("kuberay", "kubernetes/kubernetes", "Apache-2.0", "KubeRay 1.7"):
        assert name in about
