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

#: Room -> the rooms it imports, lowest first: each imports rooms above it in this table alone, and
#: the table is what is there, neither more nor less. Inside a room the order is its own business.
ROOMS = {
    "recsys": {
        "arrays": "",
        "errors": "",
        "schema": "",
        "storage": "errors",
        "config": "errors schema storage",
        "text": "arrays errors schema storage",
        "state": "arrays config errors schema",
        "data": "arrays config errors schema state storage text",
        "features": "arrays config data errors schema storage",
        "model": "arrays config errors features schema storage text",
        "preparation": "arrays config data errors features schema state storage text",
        "planning": "config errors preparation",
        "ranking": "arrays data features model",
        "evaluation": "arrays data errors features model preparation schema",
        "outcomes": "arrays config data errors evaluation preparation ranking schema state storage",
        "outcome_heads": "config errors evaluation schema storage",
        "training": "arrays config data errors evaluation features model preparation ranking "
        "schema storage text",
        "artifacts": "arrays config data errors evaluation features model outcome_heads "
        "preparation ranking schema storage text training",
        "tracking": "artifacts config errors evaluation storage",
        "nightly": "config errors storage",
        "recommender": "arrays artifacts config data errors features model outcome_heads "
        "preparation ranking schema storage text training",
        "reporting": "arrays artifacts config data errors evaluation outcomes preparation ranking "
        "schema state storage",
        "drift": "arrays artifacts config data errors evaluation features outcome_heads outcomes "
        "preparation ranking schema storage",
    },
    "serve": {
        "settings": "",
        "schemas": "",
        "protos": "",
        "web": "",
        "observability": "schemas",
        "access": "observability schemas",
        "models": "observability schemas",
        "ranking": "models observability schemas",
        "stores": "access ranking schemas settings",
        "core": "access models observability ranking schemas settings stores",
        "http": "access core schemas web",
        "grpc": "access core http observability protos schemas",
        "ray": "core grpc http models observability protos schemas settings",
        "launch": "access models ray",
        "__main__": "launch models ray settings",
    },
}  # fmt: skip

#: Below these rooms nothing knows Ray or Ray Serve.
WITHOUT_RAY = {
    "schemas", "observability", "access", "settings", "models", "ranking", "stores", "core", "http",
    "grpc",
}  # fmt: skip

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


def rooms_of(package: str) -> dict[str, set[str]]:
    """Room -> the other rooms of its package that it imports."""
    root = ROOT / package
    found: dict[str, set[str]] = {
        path.stem: set()
        for path in root.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or any(path.glob("*.py"))
    }
    for module, each in imports_in(package):
        inside, target = each.target[0] == package, each.target[1:2]
        if inside and module[1:2] and module[1:2] != target and found.keys() & set(target):
            found[module[1]].add(target[0])
    return found


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_what_the_table_says(package: str) -> None:
    assert rooms_of(package) == {room: set(names.split()) for room, names in ROOMS[package].items()}


@pytest.mark.parametrize("package", ROOMS)
def test_imports_run_downwards(package: str) -> None:
    below: set[str] = set()
    for room, names in ROOMS[package].items():
        assert set(names.split()) <= below, f"{package}.{room} imports what does not lie below it"
        below.add(room)


def test_the_service_itself_does_not_know_ray() -> None:
    wrong = [
        found.at
        for module, found in imports_in("serve")
        if module[1:2] and module[1] in WITHOUT_RAY and found.target[0] == "ray"
    ]
    assert not wrong


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


def test_the_recipe_loads_without_heavy_imports() -> None:
    """A misspelt key is answered at once: no torch, no transformers, no Ray."""
    code = "import sys, recsys.config; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "ray"} & set(done.stdout.split())
