"""`recsys policy-value` on lists that a small shop's arm drew, from the command line, on Ray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from drawn_lists import clicked, draw, exposures_of, moments, write_exposures
from tiny import KEY, KEY_ENV, tiny_recipe_file, tiny_shop

from ray_jobs import cli
from ray_jobs import policy_value as job
from ray_jobs.common.by_outcomes import by_lists
from recsys.artifacts.run import Run
from recsys.config import load_recipe

ARMS = [
    {"name": "plain", "weight": 9},
    {"name": "draws", "exploration": "plackett_luce", "temperature": 0.7},
]


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A shop whose lists of two were drawn evenly, by no model."""
    shop = tiny_shop(tmp_path)
    make_bundle(Run.open(shop.recipe).bundle_folder, shop.recipe, seed=4)
    rng, users, ids = np.random.default_rng(1), shop.prepared.users(), shop.prepared.item_ids()
    rates, rows = rng.uniform(0.1, 0.6, len(ids)), []
    for number, us in enumerate(moments(400, rng).tolist()):
        shown, chances = draw(np.zeros(len(ids)), 2, 1.0, rng)
        rows += exposures_of(
            f"r{number}", users.user_ids[int(rng.integers(len(users)))], us, ids[shown].tolist(),
            propensity=chances.tolist(), clicked=clicked(rates[shown], rng),
        )  # fmt: skip
    write_exposures(shop.recipe.root, rows)
    return str(tiny_recipe_file(tmp_path, serve={"arms": ARMS}))


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setenv(KEY_ENV, KEY)
        cli.main(["policy-value", *arguments])
    told = capsys.readouterr()
    assert end.value.code == status, told.err
    return told.err if status else told.out


def test_what_is_judged_and_what_is_refused(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = ("--config", config, "--dry-run")
    assert "plackett_luce at temperature 0.7, on the lists of 12 days" in run(capsys, *dry)
    assert ", epsilon 0.2, on" in run(capsys, *dry, "--epsilon", "0.2")
    assert ", sorted by score, on" in run(capsys, *dry, "--exploration", "none")
    bundle = str(tmp_path / "run" / "bundle")
    assert "sorted by score" in run(capsys, bundle, *dry, "--arm", "plain")
    assert "name one of serve.arms (plain, draws)" in run(capsys, *dry, "--arm", "no", status=2)
    both = ("--exploration", "none", "--temperature", "2")
    assert "`temperature` is needed with" in run(capsys, *dry, *both, status=2)
    assert "no champion" in run(capsys, "champion", *dry, status=2)
    assert not (tmp_path / "run" / job.FILE).exists()


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_the_command_estimates_and_tells(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy that draws evenly, as the lists were drawn but for an item that is sold out."""
    told = run(capsys, "--config", config, "--epsilon", "1")
    found = json.loads((tmp_path / "run" / job.FILE).read_text())
    assert (found["lists"], found["places"], found["policy"]) == (400, 2, "epsilon 1")
    assert not any(found["left_out"].values())
    clicks = found["outcomes"]["clicks"]
    logged, value = clicks["logged"]["value"], clicks[found["default"]]["value"]
    assert value == pytest.approx(logged, rel=0.1) and clicks["difference"]["refusals"] == []
    assert clicks["first_place"]["snips"]["value"] == pytest.approx(
        clicks["first_place"]["logged"]["value"], rel=0.1
    )
    assert "clicks per list" in told and "place 1, switch doubly robust" in told
    assert "carts per list: none came of these lists" in told
    assert "users, first 2 places" in told
    # The gate asks two bundles the same, as the exploring arm draws: the log hardly has that.
    on_clicks = Run.open(load_recipe(config, ["promote.metric=clicks"]))
    bundle = on_clicks.bundle()
    other = make_bundle(tmp_path / "other", bundle.recipe, seed=5)
    evidence = by_lists(on_clicks, other, bundle)
    assert evidence.source == "policy value of clicks on 400 logged lists"
    assert evidence.champion > 0 and evidence.verdict.num_users > 20
    assert any(why.startswith("champion: the effective sample") for why in evidence.doubts)
