"""Commands of `docker`, `helm` and `kubectl` in the documentation, as far as files can tell."""

from __future__ import annotations

import re

import yaml
from documents import ROOT
from manifests import FOLDER, kustomization, manifests, pods, references

from recsys.config import load_recipe

NAMESPACE = kustomization()["namespace"]


def understood(program: str, arguments: list[str]) -> None:
    """Files, names, keys and options exist; nothing is run."""
    {"docker": _docker, "helm": _helm, "kubectl": _kubectl}[program](arguments)


def _docker(arguments: list[str]) -> None:
    assert arguments[0] == "build" and arguments[-1] == "."
    options = dict(zip(arguments[1:-1:2], arguments[2:-1:2], strict=True))
    assert options.pop("-t") in {pod.container["image"] for pod in pods()}
    for value in options.values():
        assert re.search(rf"^ARG {value.split('=')[0]}=", (ROOT / "Dockerfile").read_text(), re.M)
    assert options.keys() <= {"--build-arg"}


def _helm(arguments: list[str]) -> None:
    assert arguments[:3] == ["install", "kuberay-operator", "kuberay/kuberay-operator"]
    options = dict(zip(arguments, arguments[1:], strict=False))
    schemas = (ROOT / "tests" / "deploy" / "schemas.json").read_text()
    assert f"KubeRay {options['--version']} " in schemas
    # The policies let this namespace in.
    labels = [each["matchLabels"] for each in references("namespaceSelector")]
    assert {"kubernetes.io/metadata.name": options["--namespace"]} in labels


def _kubectl(arguments: list[str]) -> None:
    options = dict(zip(arguments, arguments[1:], strict=False))
    verb, what = arguments[:2]
    if "-k" in options:
        assert (ROOT / options["-k"] / "kustomization.yaml").is_file()
    elif "-f" in options:
        assert (ROOT / options["-f"]).is_file() and options["-n"] == NAMESPACE
        # `generateName` is for `create` alone.
        given = yaml.safe_load((ROOT / options["-f"]).read_text().split("\n---\n")[0])["metadata"]
        assert ("generateName" in given) == (verb == "create")
    elif (verb, what) == ("create", "namespace"):
        assert arguments[2] == NAMESPACE
    elif (verb, what) == ("create", "secret"):
        _secret(arguments[3], arguments[4:], options)
    elif verb == "exec":
        (cluster,) = [each.name for each in manifests() if each.kind == "RayCluster"]
        assert options["-n"] == NAMESPACE and arguments[3] == f"svc/{cluster}-head-svc"
        registry = load_recipe(FOLDER / "recipe.yaml").registry
        assert arguments[4:] == ["--", "cat", f"{registry}/registry.json"]
    elif (verb, what) == ("label", "namespace"):
        key, value = arguments[3].split("=")
        labels = [each["matchLabels"] for each in references("namespaceSelector")]
        assert {key: value} in labels
    else:
        assert verb == "get" and options["-n"] == NAMESPACE
        assert what.removesuffix("s") in {each.kind.lower() for each in manifests()}


def _secret(name: str, arguments: list[str], options: dict[str, str]) -> None:
    """It has the keys that the manifests read of it."""
    keys = {
        word.removeprefix("--from-file=").split("=")[0]
        for word in arguments
        if word.startswith("--from-file=")
    }
    read = {each["key"] for each in references("secretKeyRef") if each["name"] == name}
    named = {
        each.get("secretName") for kind in ("secret", "authOptions") for each in references(kind)
    }
    assert options["-n"] == NAMESPACE and keys
    assert read <= keys if read else name in named
