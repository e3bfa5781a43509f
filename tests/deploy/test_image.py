"""The Dockerfile: what it copies is there, what it installs is what is pinned, nobody is root."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from documents import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument, in order, of both stages."""
    code = re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in code.splitlines() if line.strip()]  # type: ignore[misc]


def given(name: str) -> list[str]:
    return [argument for instruction, argument in instructions() if instruction == name]


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path out: the last line that fits says it."""
    result = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line[0] == "#":
            continue
        is_kept = line[0] == "!"
        pattern = re.escape(line.lstrip("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{pattern}(?:/.*)?", path):
            result = not is_kept
    return result


def test_what_is_copied_is_there_and_is_sent() -> None:
    copied = set()
    for words in map(shlex.split, given("COPY")):
        if not words[0].startswith("--from"):
            copied |= set(words[:-1])
    for name in copied:
        assert (ROOT / name).exists() and not ignored(name), name
    packages = {each.removesuffix("*") for each in ("recsys*", "ray_jobs*", "serve*")}
    assert copied >= packages | {"pyproject.toml", "constraints.txt", PROJECT["readme"]}
    assert copied >= set(PROJECT["license-files"])


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".venv/bin/python", "runs/demo/pseudonym.key", "data/events.parquet",
        "tests/conftest.py", "serve/__pycache__/x.pyc", "recipes/keys.key", "recipes/.env",
        "recipes/state.sqlite-wal", "keys.json", "build/lib/x.py",
    ],
)  # fmt: skip
def test_keys_logs_and_runs_stay_here(path: str) -> None:
    assert ignored(path)


def test_versions_are_those_that_are_pinned() -> None:
    torch = re.search(r"^TORCH := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert torch and f'"{torch[1]}"' in TEXT
    installs = [
        argument for argument in given("RUN") if "pip" in argument and " install" in argument
    ]
    with_dependencies = [each for each in installs if "--no-deps" not in each]
    assert with_dependencies and all("--constraint constraints.txt" in x for x in with_dependencies)
    assert f"raycommend:{PROJECT['version']} " in TEXT
    extras = next(each for each in given("ARG") if each.startswith("EXTRAS=")).split("=")[1]
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_the_base_has_a_python_that_the_package_takes() -> None:
    base = next(each for each in given("ARG") if each.startswith("BASE="))
    version = re.search(r"python:3\.(\d+)-", base)
    assert version and PROJECT["requires-python"] == ">=3.11,<3.13"
    assert int(version[1]) in (11, 12)
    assert [each.split()[0] for each in given("FROM")] == ["${BASE}", "${BASE}"]


def test_it_runs_recsys_as_nobody_in_particular() -> None:
    (entrypoint,), (user,) = given("ENTRYPOINT"), given("USER")
    assert json.loads(entrypoint) == ["recsys"] and "recsys" in PROJECT["scripts"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    names = [instruction for instruction, _ in instructions()]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))


def test_recsys_needs_no_shell_to_start(tmp_path: Path) -> None:
    """The entry point is a program: it runs where PATH names no shell at all."""
    recsys = Path(sys.executable).with_name("recsys")
    done = subprocess.run(
        [str(recsys), "--version"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("raycommend "), done.stderr
