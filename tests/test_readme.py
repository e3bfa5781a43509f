"""What the README and the recipes tell a user to type, works."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from ray_jobs import cli
from recsys.config import Data, Recipe, known_keys, load_recipe, recipe_from_dict
from serve.access import command
from serve.schemas.requests import EventsRequest, ItemsRequest, RankRequest, RecommendRequest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
REQUESTS = {
    "/recommend": RecommendRequest,
    "/rank": RankRequest,
    "/events": EventsRequest,
    "/items": ItemsRequest,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> Iterator[list[str]]:
    """Every `recsys ...` line of the README's indented and fenced code, continuations joined."""
    joined = README.replace("\\\n", " ")
    start = r"(?:\$ )?(?:RAY_AUTH_MODE=token )?(?:recsys|ray job submit) "
    for line in re.findall(rf"^ {{4}}({start}.*)$", joined, re.MULTILINE):
        words = shlex.split(line, comments=True)
        yield words[words.index("recsys") + 1 :]


def test_there_are_examples_to_check() -> None:
    assert len(list(commands())) >= 8
    assert len(blocks("bash")) >= 4
    assert blocks("yaml")


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_is_understood(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed, and its recipe with all overrides accepted; the job itself is not run."""
    arguments = list(words)
    if arguments[0] in ("serve", "demo"):
        assert set(arguments[1::2]) <= {"--config", "--set", "--bundle"}
    elif arguments[0] == "keys":
        command.parser().parse_args(arguments[1:])
    else:
        seen: list[Recipe] = []
        monkeypatch.setattr(cli, "_run", lambda job, options: seen.append(options) or 0)
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0 and seen
    pairs = list(zip(arguments, arguments[1:], strict=False))
    config = dict(pairs).get("--config", "recipes/demo.yaml").removeprefix("raycommend/")
    overrides = [value for option, value in pairs if option == "--set"]
    path = ROOT / config
    if config == "my.yaml":
        path = tmp_path / config
        path.write_text(blocks("yaml")[0])
    load_recipe(path, overrides)


@pytest.mark.parametrize("block", blocks("bash"))
def test_every_request_fits_the_api(block: str) -> None:
    words = shlex.split(block.replace("\\\n", " "))
    route = next(word for word in words if word.startswith("http")).rsplit("/", 1)[1]
    body = json.loads(words[words.index("-d") + 1])
    TypeAdapter(REQUESTS[f"/{route}"]).validate_python(body)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_every_recipe_is_valid(block: str) -> None:
    recipe_from_dict(yaml.safe_load(block))


def test_links_and_targets_exist() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets


def test_no_figure_is_left_open() -> None:
    assert "FIGURE" not in README


def test_every_exit_status_is_told() -> None:
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)] == [0, 2, 3, 130]


class TestCanonicalRecipe:
    """`recipes/canonical.yaml` holds every key, and its default."""

    raw = yaml.safe_load((ROOT / "recipes" / "canonical.yaml").read_text())
    #: What it sets as an example.
    examples = frozenset({"name", "data.event_types", "data.source", "data.cuts"})

    def test_every_key_is_there(self) -> None:
        missing = [key for key in known_keys() if not self._has(key)]
        assert not missing

    def test_every_value_is_the_default(self) -> None:
        least = {
            "name": self.raw["name"],
            "data": {"source": "x", "cuts": self.raw["data"]["cuts"]},
        }
        given, default = recipe_from_dict(self.raw).resolved(), recipe_from_dict(least).resolved()
        sections = {key.rsplit(".", 1)[0] for key in known_keys() if "." in key}
        for key in known_keys():
            if key not in self.examples | sections and not key.startswith("data.cuts."):
                assert self._of(given, key) == self._of(default, key), key

    def test_the_text_fields_are_named_in_their_order(self) -> None:
        assert tuple(self.raw["data"]["text_fields"]) == Data.model_fields["text_fields"].default

    def _has(self, key: str) -> bool:
        node = self.raw
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    @staticmethod
    def _of(node: dict, key: str) -> object:  # type: ignore[type-arg]
        for part in key.split("."):
            node = node[part]
        return node
