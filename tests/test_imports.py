"""Imports run downwards: the library's layers, and the walls around `ray_jobs` and `serve`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: The modules and sub-packages of `recsys`, lowest layer first. Each may import the layers above it
#: in this list, none beside or below. Inside a sub-package the order is its own business.
LAYERS = (
    "schema errors files index stacked exploration scratch weights",
    "reading ray_token",
    "config",
    "language_model logs privacy adapters",
    "catalogue",
    "histories neighbours",
    "moments item_stats item_fields",
    "relations",
    "prepared text_store state",
    "features batches feedback metrics corpus adapted response coverage",
    "pairs objective optim exchange intake",
    "model survey",
    "scoring checkpoint",
    "training masked_language baselines explain encoded",
    "bundle",
    "registry rerank drift gate",
    "recommender line",
    "evaluation",
)
LAYER = {unit: depth for depth, units in enumerate(LAYERS) for unit in units.split()}

#: Narrower than the layers: the service's store of users knows nothing of models or training.
ONLY = {"state": {"schema", "errors", "config", "histories"}}

#: Top-level package -> what it must not import, not even inside a function.
WALLS = {
    "recsys": {"ray", "fastapi", "ray_jobs", "serve"},
    "ray_jobs": {"serve"},
    "serve": {"ray_jobs"},
}


@dataclass(frozen=True)
class Import:
    """One imported module, as its dotted parts, and the line that does it."""

    at: str
    target: tuple[str, ...]


def imports_of(source: str, module: tuple[str, ...], *, package: bool, at: str) -> Iterator[Import]:
    """All imports in a file, lazy ones too; relative ones resolved.

    `from a import b` may name the module `a.b`: the target is (a, b).
    """
    here = module if package else module[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(f"{at}:{node.lineno}", tuple(name.name.split(".")))
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            for name in node.names:
                yield Import(f"{at}:{node.lineno}", (*base, name.name))


def imports_in(package: str) -> Iterator[tuple[tuple[str, ...], Import]]:
    """Each file of a package with each of its imports."""
    for path in sorted((ROOT / package).rglob("*.py")):
        relative = path.relative_to(ROOT)
        module = relative.with_suffix("").parts
        is_package = module[-1] == "__init__"
        module = module[:-1] if is_package else module
        for found in imports_of(path.read_text(), module, package=is_package, at=str(relative)):
            yield module, found


def units() -> set[str]:
    """The modules and sub-packages that lie in `recsys` now."""
    inside = (ROOT / "recsys").iterdir()
    return {
        path.stem
        for path in inside
        if (path.suffix == ".py" and path.stem != "__init__") or any(path.glob("*.py"))
    }


def breach(importer: str, imported: str) -> str | None:
    """Why the unit must not import the other one, if it must not."""
    if importer == imported:
        return None
    if importer in ONLY and imported not in ONLY[importer]:
        return f"{importer} may import only {', '.join(sorted(ONLY[importer]))}"
    if LAYER[imported] >= LAYER[importer]:
        return f"{imported} does not lie below {importer}"
    return None


def test_every_module_has_its_layer() -> None:
    unplaced = units() - LAYER.keys()
    assert not unplaced, f"place {sorted(unplaced)} in LAYERS of {Path(__file__).name}"


def test_recsys_imports_run_downwards() -> None:
    wrong = []
    for module, found in imports_in("recsys"):
        if module[0] != found.target[0] or not {*module[1:2], *found.target[1:2]} <= LAYER.keys():
            continue  # not ours, or reported above
        if len(module) > 1 and (reason := breach(module[1], found.target[1])):
            wrong.append(f"{found.at}: {reason}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", WALLS)
def test_walls_hold(package: str) -> None:
    wrong = [
        f"{found.at}: {package} must not import {found.target[0]}"
        for _, found in imports_in(package)
        if found.target[0] in WALLS[package]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("import a.b, c", [("a", "b"), ("c",)]),
        ("from recsys import schema", [("recsys", "schema")]),
        ("from . import base", [("recsys", "state", "base")]),
        ("from ..config import State", [("recsys", "config", "State")]),
        ("def lazy():\n    import ray.data", [("ray", "data")]),
    ],
)
def test_the_reader_of_imports(source: str, targets: list[tuple[str, ...]]) -> None:
    found = imports_of(source, ("recsys", "state", "sqlite"), package=False, at="sqlite.py")
    assert [each.target for each in found] == targets


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("config", "schema", True),
        ("schema", "config", False),
        ("catalogue", "histories", False),
        ("training", "baselines", False),
        ("state", "config", True),
        ("state", "privacy", False),
        ("model", "model", True),
    ],
)
def test_the_rule(importer: str, imported: str, allowed: bool) -> None:
    assert (breach(importer, imported) is None) is allowed


def test_the_recipe_loads_without_heavy_imports() -> None:
    """A misspelt key is answered at once: no torch, no transformers, no Ray."""
    code = "import sys, recsys.config; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "ray"} & set(done.stdout.split())
