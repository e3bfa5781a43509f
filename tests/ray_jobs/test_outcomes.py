"""`recsys outcomes`: the command on a small shop's exposures, and with the run in a store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from object_store import ObjectStore
from prepare_runs import tiny_data
from shown_lists import ShownLists, event, shown
from tiny import prepare_here, tiny_log, tiny_recipe, tiny_recipe_file

from ray_jobs import cli
from ray_jobs import outcomes as job
from recsys.artifacts.run import Run
from recsys.config import recipe_from_dict
from recsys.outcomes.joining import EXPOSURES_DIR
from recsys.outcomes.measuring import OUTCOMES_FILE
from recsys.schema import TOLD_BY

ARMS = {"arms": [{"name": "new", "bundle": "runs/new/bundle"}, {"name": "a"}]}


@pytest.fixture
def shop(tmp_path: Path) -> ShownLists:
    """120 users of two arms on three days; of the new arm fewer click, but some buy."""
    shop = ShownLists(tmp_path)
    lists: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for number in range(120):
        user, request, hours = f"user-{number}", f"r{number}", 0.5 * number
        arm = "new" if number % 2 else "a"
        lists += shown(request, user, hours, "i1", "i2", arm=arm)
        if number % (3 if number % 2 else 4) == 0:
            events.append(event(user, "i1", "click", hours + 0.1, request, dwell_ms=100 + number))
        if number % 10 == 3:
            events.append(event(user, "i1", "purchase", hours + 0.2, request, value=5.0))
    shop.lists(lists)
    shop.live(events)
    shop.join()
    return shop


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main(["outcomes", *arguments])
    told = capsys.readouterr()
    assert end.value.code == status, told.err
    return told.err if status else told.out


def written(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / OUTCOMES_FILE).read_text())
    return found


def test_the_command_tells_rates_and_compares_arms(
    shop: ShownLists, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(tiny_recipe_file(tmp_path, data=tiny_data(tmp_path), serve=ARMS))
    told = run(capsys, "--config", config, "--dry-run")
    assert "would read 240 exposures on 3 days" in told and "Ray" not in told
    assert "would compare the arm new with a" in told
    assert not (tmp_path / "run" / OUTCOMES_FILE).exists()
    told = run(capsys, "--config", config)
    found = written(tmp_path)
    assert {*found["by"]} == {*TOLD_BY} and found["num_items"] is None
    arms = {each["name"]: each for each in found["by"]["arm"]}
    assert arms["a"]["users"] == arms["new"]["requests"] == 60
    assert (arms["a"]["clicks"], arms["new"]["clicks"]) == (30, 20)
    assert arms["new"]["revenue"] == 60.0 and arms["a"]["purchases"] == 0
    assert arms["new"]["rates"]["ctr"]["value"] == pytest.approx(20 / 120)
    assert [each["name"] for each in found["by"]["position"]] == [1, 2]
    (compared,) = found["comparisons"]
    assert compared["mismatch_p"] == 1 and compared["users"] == [60, 60]
    assert compared["models"] == [["m1"], ["m1"]]
    assert compared["rates"]["ctr"]["incumbent_value"] == pytest.approx(30 / 120)
    assert "new less a: 60 and 60 users, planned 50.0% of them" in told
    assert "ctr: -0.08333 [" in told and "more users to show the smallest effect" in told
    assert "cvr: no verdict: one arm is worth 0.0 outcomes" in told
    assert "no coverage: nothing is prepared" in told
    assert f"-> {tmp_path / 'run' / OUTCOMES_FILE}" in told
    first = (tmp_path / "run" / OUTCOMES_FILE).read_bytes()
    run(capsys, "--config", config)
    assert (tmp_path / "run" / OUTCOMES_FILE).read_bytes() == first


def test_a_part_of_it(shop: ShownLists, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One dimension; arms from a day on; a split that is not the planned one."""
    arms = {"arms": [{"name": "a", "weight": 9}, {"name": "new"}]}
    config = str(tiny_recipe_file(tmp_path, data=tiny_data(tmp_path), serve=arms))
    told = run(capsys, "--config", config, "--of", "arm", "day")
    assert [*written(tmp_path)["by"]] == ["arm", "day"]
    assert "no verdict: users are not split as planned" in told and "ctr: " not in told
    since = ("--set", "outcomes.arms_since=2024-03-03", "--of", "arm")
    run(capsys, "--config", config, *since)
    found = written(tmp_path)
    assert found["compared_days"] == 1 and sum(found["comparisons"][0]["users"]) == 42
    assert sum(each["users"] for each in found["by"]["arm"]) == 120
    run(capsys, "--config", config, "--of", "planet", status=2)
    config = str(tiny_recipe_file(tmp_path, data=tiny_data(tmp_path)))
    assert "not compared: a, new: no share in serve.arms" in run(capsys, "--config", config)


def test_without_exposures_it_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(tiny_recipe_file(tmp_path))
    for more in ((), ("--dry-run",)):
        told = run(capsys, "--config", config, *more, status=2)
        assert "exposures.json: the file is missing" in told and "recsys exposures" in told
    ShownLists(tmp_path).join()
    assert "no exposures: nothing to tell" in run(capsys, "--config", config)


def test_coverage_is_of_the_prepared_catalogue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = ShownLists(tmp_path)
    shop.lists(shown("r1", "u", 1, "item-0000", "item-0007", "added-since"))
    shop.join()
    tiny_log(tmp_path / "other")
    prepare_here(tiny_recipe(tmp_path, data=tiny_data(tmp_path, source=str(tmp_path / "other"))))
    run(capsys, "--config", str(tiny_recipe_file(tmp_path)), "--of", "day")
    found = written(tmp_path)
    assert found["num_items"] == 40 and found["all"][0]["coverage"] == 2 / 40


def test_a_run_in_a_store_comes_to_the_same(
    store: ObjectStore, shop: ShownLists, tmp_path: Path
) -> None:
    raw = shop.recipe.resolved() | {"run_dir": "s3://shop/runs/{name}"}
    raw["storage"] |= {"cache_dir": str(tmp_path / "node")}
    stored = recipe_from_dict(raw)
    with stored.shared.whole(stored.root / EXPOSURES_DIR) as out:
        shutil.copytree(shop.out, out, dirs_exist_ok=True)
    here = job.execute(Run.open(shop.recipe), of=["arm"])
    assert job.execute(Run.open(stored), of=["arm"]) != here
    assert store.read(f"runs/tiny/{OUTCOMES_FILE}") == here.read_bytes()
