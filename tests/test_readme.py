"""What README and documentation tell a user to type, works: each block of code, each name."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_commands import understood as understood_by_its_files
from documents import PAGES, ROOT, Block, anchors, blocks, code, commands, links, prose
from pydantic import BaseModel, TypeAdapter, ValidationError

from ray_jobs import cli
from recsys.config import Recipe, known_keys, load_recipe, recipe_from_dict
from serve.__main__ import main as serve_main
from serve.access import command as keys_command
from serve.schemas import responses
from serve.schemas.events import EventsRequest
from serve.schemas.requests import (
    EraseRequest,
    ItemsRequest,
    RankRequest,
    RecommendRequest,
    UserTokenRequest,
)

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
#: Route -> what its POST takes.
REQUESTS: dict[str, Any] = {
    "/recommend": RecommendRequest,
    "/rank": RankRequest,
    "/events": EventsRequest,
    "/items": ItemsRequest,
    "/users/erase": EraseRequest,
    "/users/token": UserTokenRequest,
}
#: Commands of `recsys`.
COMMANDS = {*cli.JOBS, "serve", "keys", "demo", "runs", "compare", "plan"}
#: Smallest recipe; a block of YAML is laid over it.
LEAST_DATA = {"source": "x", "cuts": {"valid": "2024-10-01", "test": "2024-11-01"}}
#: What a block may be written in; of `text`, `mermaid` and a console's output nothing is run.
LANGUAGES = {"bash", "console", "yaml", "json", "python", "text", "mermaid", "html"}


def test_the_readme_is_a_front_door() -> None:
    lines = README.splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 120


def test_there_are_examples_to_check() -> None:
    assert len(commands()) >= 40
    assert {block.language for block in blocks()} == LANGUAGES
    assert all(len(blocks(language)) >= 1 for language in LANGUAGES)


@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in commands()])
def test_every_command_is_understood(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs, options, files and keys exist; nothing is run."""
    program, arguments = words[0].rsplit("/", 1)[-1], words[1:]
    if program == "recsys":
        understood_by_recsys(arguments, tmp_path, monkeypatch)
    elif program == "make":
        understood_by_make(arguments)
    elif program == "curl":
        understood_by_the_service(arguments)
    elif program == "python":
        understood_by_python(arguments)
    elif program == "ray":
        own = understood_by_ray(arguments)
        if own:
            understood_by_recsys(own[1:], tmp_path, monkeypatch)
    elif program in ("docker", "helm", "kubectl"):
        understood_by_its_files(program, arguments)
    elif program == "prometheus":
        assert arguments[0] == "--config.file" and (ROOT / arguments[1]).is_file()
    elif program == "pytest":
        markers = re.findall(r"\b(?!not\b|and\b)[a-z]+", arguments[1])
        told = (ROOT / "pyproject.toml").read_text()
        assert arguments[0] == "-m" and all(f'"{marker}: ' in told for marker in markers)
    else:
        assert (program, arguments) == ("pre-commit", ["install"])


def understood_by_recsys(
    arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed by its own parser, and its recipe with all overrides accepted."""
    pairs = list(zip(arguments, arguments[1:], strict=False))
    config = dict(pairs).get("--config", "recipes/demo.yaml").removeprefix("raycommend/")
    path = ROOT / config
    if config == "my.yaml":
        path = folder / config
        path.write_text(next(b.text for b in blocks("yaml") if b.text.startswith("name:")))
    load_recipe(path, [value for option, value in pairs if option == "--set"])
    if arguments[0] == "keys":
        keys_command.parser().parse_args(arguments[1:])
    elif arguments[0] == "serve":
        with pytest.raises(SystemExit) as end:
            serve_main([*arguments[1:], "--help"])
        assert end.value.code == 0
        assert set(arguments[1::2]) <= {"--config", "--set", "--bundle", "--dry-run"}
    elif arguments[0] == "plan":
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0
    elif arguments[0] in ("runs", "compare"):
        looked: list[object] = []
        monkeypatch.setattr(cli, "_look", lambda options: looked.append(options) or 0)
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0 and looked
    else:
        seen: list[Recipe] = []
        monkeypatch.setattr(cli, "_run", lambda job, options: seen.append(options) or 0)
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0 and seen


def understood_by_make(arguments: list[str]) -> None:
    for word in arguments:
        if "=" in word:
            assert re.search(rf"^{word.split('=')[0]} \?=", MAKEFILE, re.MULTILINE)
        else:
            assert word in TARGETS


def understood_by_the_service(arguments: list[str]) -> None:
    path = next(word for word in arguments if word.startswith("http")).split(":8000", 1)[1]
    if "-d" in arguments:
        body = json.loads(arguments[arguments.index("-d") + 1])
        TypeAdapter(REQUESTS[path]).validate_python(body)
        assert "content-type: application/json" in arguments
    else:
        assert re.fullmatch(r"/items/\w+", path)
        assert arguments[:-1] in (["-s"], ["-s", "-X", "DELETE"])


def understood_by_python(arguments: list[str]) -> None:
    assert arguments[0] == "-m"
    spec = importlib.util.find_spec(arguments[1])
    assert spec is not None and spec.origin is not None
    files = (ROOT / arguments[1].split(".")[0]).rglob("*.py")
    source = "".join(path.read_text() for path in files)
    for word in arguments[2:]:
        assert not word.startswith("--") or f'"{word}"' in source


def understood_by_ray(arguments: list[str]) -> list[str]:
    """The command that is submitted, if one is."""
    from ray.scripts.scripts import cli as ray_cli

    group: Any = ray_cli
    while hasattr(group, "commands"):
        group, arguments = group.commands[arguments[0]], arguments[1:]
    own = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    group.make_context(group.name, list(arguments))
    if not own and not arguments[0].startswith("--"):
        assert (ROOT / arguments[0]).is_file()
    return own


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_recipe_is_valid(block: Block) -> None:
    given = yaml.safe_load(block.text)
    recipe_from_dict({"name": "x", **given, "data": LEAST_DATA | given.get("data", {})})


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_every_answer_is_one_of_the_service(block: Block) -> None:
    """It has all fields of an answer and no others."""
    answer = json.loads(block.text)
    models = [
        model
        for model in vars(responses).values()
        if isinstance(model, type) and issubclass(model, BaseModel)
        if model.model_fields.keys() == answer.keys()
    ]
    fitting = []
    for model in models:
        try:
            fitting.append(model.model_validate(answer).model_dump(exclude_unset=True) == answer)
        except ValidationError:
            continue
    assert any(fitting)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestPage:
    def test_links_lead_somewhere(self, page: Path) -> None:
        for link in links(page):
            name, _, anchor = link.partition("#")
            target = page if not name else page.parent / name
            assert target.exists(), link
            assert not anchor or anchor in anchors(shown_by(target)), link

    def test_commands_in_the_text_exist(self, page: Path) -> None:
        if page.name == "names.md":  # tells what was
            return
        for each in code(page):
            words = each.split()
            if words[0] == "make" and len(words) > 1:
                understood_by_make(words[1:])
            elif words[0] == "recsys" and len(words) > 1:
                assert words[1] in COMMANDS or words[1].startswith("--"), each
            elif words[:2] == ["python", "-m"]:
                assert importlib.util.find_spec(words[2]) is not None, each

    def test_names_in_the_text_exist(self, page: Path) -> None:
        """Recipe keys, modules of ours, and files of the repository."""
        if page.name == "names.md":  # tells what was
            return
        for each in code(page):
            dotted = re.match(r"[a-z_]+(?:\.\w+)+(?=$|[:= ])", each)
            if dotted and dotted[0] not in NAMES_OF_OTHERS:
                assert is_a_name(dotted[0]), each
            tops = "recsys|serve|ray_jobs|tests|benchmarks|deploy|recipes|docs"
            if re.fullmatch(rf"(?:{tops})/[\w./]*", each):
                assert (ROOT / each).exists(), each

    def test_blocks_say_what_they_are(self, page: Path) -> None:
        assert all(block.language in LANGUAGES for block in blocks() if block.page == page)
        assert not re.search(r"^ {4}(?:\$ )?(?:recsys|make|curl|python|ray) ", prose(page), re.M)


def test_pages_call_what_the_tracker_has() -> None:
    script = (ROOT / "serve" / "web" / "tracker.js").read_text()
    exported = re.search(r"window\.raycommend = \{([^}]*)\}", script)
    assert exported is not None
    known = {name.strip() for name in exported[1].split(",")}
    called = {
        name for each in blocks("html") for name in re.findall(r"raycommend\.(\w+)", each.text)
    }
    assert called and called <= known


#: Dotted names that look like ours.
NAMES_OF_OTHERS = {"serve.run", "serve.batch", "ray.train.get_dataset_shard"}
_FILES = {"safetensors", "json", "parquet", "yaml", "yml", "sqlite", "npy", "key", "py", "md"}


def shown_by(page: Path) -> Path:
    """The file that a page includes, or the page itself."""
    included = re.search(r"<!-- include: (\S+) -->", page.read_text())
    return ROOT / included[1] if included else page


def is_a_name(dotted: str) -> bool:
    """Whether a dotted name is a recipe's key, a module of ours, or of something else."""
    first, *_, last = dotted.split(".")
    if last in _FILES or first not in {*Recipe.model_fields, "recsys", "ray_jobs", "benchmarks"}:
        return True
    if dotted in known_keys():
        return True
    path = ROOT / dotted.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_figures_of_the_readme_are_those_of_the_results() -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    figures = re.findall(r"(?<!\d)\.\d{4}", README)  # written without a zero
    assert len(figures) >= 12
    assert [figure for figure in figures if figure not in results] == []


def test_every_exit_status_is_told() -> None:
    jobs = (ROOT / "docs" / "jobs.md").read_text()
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", jobs, re.MULTILINE)] == [0, 2, 3, 130]


def test_every_job_is_told() -> None:
    jobs = (ROOT / "docs" / "jobs.md").read_text()
    told = re.findall(r"^\| `recsys ([\w-]+)`", jobs, re.MULTILINE)
    assert sorted(told) == sorted(COMMANDS)


def test_every_room_is_told() -> None:
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text())
    rooms_of = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS"
    )
    text = (ROOT / "docs" / "architecture.md").read_text()
    for package, rooms in rooms_of.items():
        table = text[text.index(f"| `{package}/` | |") :].split("\n\n")[0]
        told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.M))))
        assert told == {room for room in rooms if room != "__main__"}
