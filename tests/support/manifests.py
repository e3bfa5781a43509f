"""The manifests of `deploy/kuberay`, as data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from documents import ROOT

FOLDER = ROOT / "deploy" / "kuberay"
SCHEMAS = json.loads((ROOT / "tests" / "deploy" / "schemas.json").read_text())
#: Not for the cluster's API: what `kubectl apply -k` reads, and the recipe.
NOT_SENT = {"kustomization.yaml", "recipe.yaml"}


@dataclass(frozen=True)
class Manifest:
    """One document of a file."""

    file: str
    data: dict[str, Any]

    def __str__(self) -> str:
        name = self.data["metadata"].get("name", self.data["metadata"].get("generateName"))
        return f"{self.file}:{self.kind}:{name}"

    @property
    def kind(self) -> str:
        return str(self.data["kind"])

    @property
    def name(self) -> str:
        return str(self.data["metadata"]["name"])

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.data.get("spec", {}))

    def schema(self) -> dict[str, Any]:
        """Its JSON schema, of the sources that `schemas.json` names."""
        return {**SCHEMAS["kinds"][self.kind], "$defs": SCHEMAS["$defs"]}


@dataclass(frozen=True)
class Pod:
    """A template of pods."""

    of: Manifest
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.spec["containers"]
        return dict(container)

    def env(self) -> dict[str, Any]:
        """Names -> values; of a secret, the reference."""
        given = self.container.get("env", [])
        return {each["name"]: each.get("value", each.get("valueFrom")) for each in given}

    def mounted(self) -> dict[str, dict[str, Any]]:
        """Where -> the volume that is there."""
        volumes = {each["name"]: each for each in self.spec.get("volumes", [])}
        mounts = self.container.get("volumeMounts", [])
        claims = [each["metadata"]["name"] for each in self.of.spec.get("volumeClaimTemplates", [])]
        return {
            each["mountPath"]: volumes[each["name"]]
            for each in mounts
            if each["name"] not in claims
        }


def manifests() -> list[Manifest]:
    """All documents of all files."""
    return [
        Manifest(path.name, data)
        for path in sorted(FOLDER.glob("*.yaml"))
        if path.name not in NOT_SENT
        for data in yaml.safe_load_all(path.read_text())
    ]


def of_kind(kind: str) -> list[Manifest]:
    return [each for each in manifests() if each.kind == kind]


def pods() -> list[Pod]:
    """Every template of pods, of whatever kind."""

    def templates(part: Any) -> Iterator[dict[str, Any]]:
        for key, each in part.items() if isinstance(part, dict) else enumerate(part):
            if key == "template":
                yield each
            elif isinstance(each, dict | list):
                yield from templates(each)

    return [
        Pod(each, template["metadata"]["labels"], template["spec"])
        for each in manifests()
        for template in templates(each.spec)
    ]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a selector by labels takes a pod with these."""
    assert selector.keys() <= {"matchLabels"}
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def references(kind: str) -> Iterator[dict[str, Any]]:
    """Every `secretKeyRef` or other reference of a kind, wherever it stands."""

    def walk(part: Any) -> Iterator[dict[str, Any]]:
        for key, each in part.items() if isinstance(part, dict) else enumerate(part):
            if key == kind:
                yield each
            elif isinstance(each, dict | list):
                yield from walk(each)

    for each in manifests():
        yield from walk(each.data)


def kustomization() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "kustomization.yaml").read_text()))
