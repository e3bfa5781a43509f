"""`from recsys import ...`: what the library offers, and what it costs to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import recsys

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "polars", "pyarrow", "pydantic"}
SHELLS = {"ray", "fastapi", "starlette", "grpc", "ray_jobs", "serve"}


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_package_alone_is_light() -> None:
    assert not modules_after("import recsys; recsys.__version__, dir(recsys)") & (HEAVY | SHELLS)


def test_recipes_need_no_torch() -> None:
    code = "from recsys import Recipe, load_recipe; load_recipe('recipes/demo.yaml')"
    assert not modules_after(code) & ({"torch", "transformers"} | SHELLS)


def test_everything_works_without_ray_and_fastapi() -> None:
    names = ", ".join(recsys.__all__)
    hidden = f"import sys; sys.modules |= dict.fromkeys({sorted(SHELLS)})"
    code = f"{hidden}\nfrom recsys import {names}\n[sys.modules.pop(n) for n in {sorted(SHELLS)}]"
    assert "torch" in modules_after(code)


def test_names_are_told_once() -> None:
    """`__all__`, the table of modules and the imports for type checkers are the same."""
    tree = ast.parse(Path(recsys.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == recsys._PUBLIC
    assert recsys.__all__ == sorted(recsys._PUBLIC)
    assert set(recsys.__all__) <= set(dir(recsys))
    assert all(getattr(recsys, name).__name__ == name for name in recsys.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = recsys.nothing_of_ours
