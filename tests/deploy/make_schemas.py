"""A program: write `schemas.json`, what the manifests of `deploy/` are checked against.

python tests/deploy/make_schemas.py CRDS KUBERAY_VERSION DEFINITIONS KUBERNETES_VERSION

CRDS is the folder `helm-chart/kuberay-operator/crds` of ray-project/kuberay at a release's tag;
DEFINITIONS is `kubernetes-json-schema/v<version>-local/_definitions.json` of the PyPI package
kubernetes-validate, which is made of Kubernetes' OpenAPI document. Both are under Apache-2.0.

Kept are the kinds below and what they refer to. Descriptions are left out, parts that occur twice
stand once, and a key that is not named is an error, as for `kubectl --validate=strict`.
"""

from __future__ import annotations

import collections
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import yaml

RAY = ("rayclusters", "rayjobs", "rayservices")
BUILT_IN = {
    "CronJob": "io.k8s.api.batch.v1.CronJob",
    "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "PersistentVolumeClaim": "io.k8s.api.core.v1.PersistentVolumeClaim",
    "PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
    "Role": "io.k8s.api.rbac.v1.Role",
    "RoleBinding": "io.k8s.api.rbac.v1.RoleBinding",
    "Service": "io.k8s.api.core.v1.Service",
    "ServiceAccount": "io.k8s.api.core.v1.ServiceAccount",
    "StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
}
#: Shorter parts are not worth a name.
SHARED_LENGTH = 160


def strict(schema: Any) -> Any:
    """Without descriptions; objects whose keys are named take no others."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key == "properties":  # names of fields, `description` perhaps among them
            kept[key] = {name: strict(each) for name, each in value.items()}
        elif key == "$ref":
            kept[key] = "#/$defs/" + value.rsplit("/", 1)[-1]
        elif key not in ("description", "default", "$schema", "$id") and key[:2] != "x-":
            kept[key] = strict(value)
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in kept and not is_open:
        kept["additionalProperties"] = False
    return kept


def shared(schemas: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schemas, and under names what occurs in them more than once."""
    times: collections.Counter[str] = collections.Counter()

    def count(part: Any) -> None:
        for each in part.values() if isinstance(part, dict) else part:
            if isinstance(each, dict | list):
                if isinstance(each, dict):
                    times[json.dumps(each, sort_keys=True)] += 1
                count(each)

    count(schemas)
    definitions: dict[str, Any] = {}

    def name(part: Any, *, fields: bool = False) -> Any:
        if isinstance(part, list):
            return [name(each) for each in part]
        if not isinstance(part, dict):
            return part
        text = json.dumps(part, sort_keys=True)
        inner = {key: name(each, fields=key == "properties") for key, each in part.items()}
        if fields or times[text] < 2 or len(text) < SHARED_LENGTH:
            return inner
        key = hashlib.sha256(text.encode()).hexdigest()[:8]
        definitions[key] = inner
        return {"$ref": f"#/$defs/{key}"}

    return {kind: name(schema) for kind, schema in schemas.items()}, definitions


def reachable(names: list[str], definitions: dict[str, Any]) -> dict[str, Any]:
    """The definitions that these refer to, themselves included."""
    found: dict[str, Any] = {}
    while names:
        each = names.pop()
        if each not in found:
            found[each] = strict(definitions[each])
            text = json.dumps(found[each])
            names += [part.split('"')[0] for part in text.split("#/$defs/")[1:]]
    return found


def main(crds: Path, kuberay: str, definitions: Path, kubernetes: str) -> None:
    """Write the file."""
    rays = {}
    for plural in RAY:
        crd = yaml.safe_load((crds / f"ray.io_{plural}.yaml").read_text())["spec"]
        version = next(each for each in crd["versions"] if each["name"] == "v1")
        rays[crd["names"]["kind"]] = strict(version["schema"]["openAPIV3Schema"])
    kinds, defs = shared(rays)
    built_in = json.loads(definitions.read_text())["$defs"]
    defs |= reachable(list(BUILT_IN.values()), built_in)
    kinds |= {kind: {"$ref": f"#/$defs/{name}"} for kind, name in BUILT_IN.items()}
    about = (
        f"Pruned by make_schemas.py. Sources: custom resources of KubeRay {kuberay} "
        f"(github.com/ray-project/kuberay, Apache-2.0); OpenAPI definitions of Kubernetes "
        f"{kubernetes} (github.com/kubernetes/kubernetes, Apache-2.0)"
    )
    lines = [f'"$comment": {json.dumps(about)}']
    for title, part in (("kinds", kinds), ("$defs", defs)):
        entries = [f"{json.dumps(key)}: {json.dumps(part[key])}" for key in sorted(part)]
        lines.append(f'"{title}": {{\n' + ",\n".join(entries) + "\n}")
    Path(__file__).with_name("schemas.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
