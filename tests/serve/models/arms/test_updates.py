"""New bundles of arms, and broken ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from arms import USER, arm, post
from bundles import diverge, make_bundle, make_recipe, version_in
from fastapi.testclient import TestClient


class TestUpdates:
    def test_a_broken_bundle_keeps_that_arm_s_last_good_one(
        self, client: TestClient, load: Callable[..., None], bundle: Path, other_bundle: Path,
        language_model: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        load(arm("a"), arm("b", other_bundle))
        third = make_bundle(
            tmp_path / "third", make_recipe(tmp_path, language_model), seed=3
        ).folder
        diverged = diverge(shutil.copytree(other_bundle, tmp_path / "diverged"))
        load(arm("a", third, weight=7), arm("b", diverged))
        told = client.get("/model").json()
        assert [each["version"] for each in told["arms"]] == [
            version_in(third),
            version_in(other_bundle),
        ]
        assert told["arms"][0]["weight"] == 7
        assert told["failed_update"].startswith("arm b: ") and "finite" in told["failed_update"]
        load(arm("a"), arm("b", other_bundle))
        assert client.get("/model").json()["failed_update"] is None

    def test_a_new_arm_that_is_broken_changes_nothing(
        self, client: TestClient, load: Callable[..., None], other_bundle: Path, tmp_path: Path
    ) -> None:
        load(arm("a"))
        diverged = diverge(shutil.copytree(other_bundle, tmp_path / "diverged"))
        load(arm("a", other_bundle), arm("b", diverged))
        told = client.get("/model").json()
        assert [each["name"] for each in told["arms"]] == ["a"]
        assert told["failed_update"].startswith("arm b: ")
        assert post(client, "/recommend", USER)["arm"] == "a"
