"""The text encoder in this process: batches of calls, and the language models that it holds."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import THINGS, version_in
from monitoring import Tally

from recsys.errors import BundleError
from serve.ray.text_encoder import TextEncoder


def test_new_items_without_a_text_are_marked(
    tmp_path: Path, language_model: Path, bundle: Path
) -> None:
    items: list[dict[str, str | None]] = [{"title": "red cup"}, {"title": " "}]
    vectors = asyncio.run(TextEncoder().encode(str(bundle), version_in(bundle), items))
    assert vectors.shape == (2, 32)
    assert np.isfinite(vectors[0]).all()
    assert np.isnan(vectors[1]).all()


def test_the_encoder_holds_two_models_at_most(
    bundle: Path, other_bundle: Path, tmp_path: Path, metrics: Tally
) -> None:
    encoder = TextEncoder(lambda: metrics)
    third = shutil.copytree(bundle, tmp_path / "third")
    for folder in (bundle, other_bundle, third, other_bundle, third, bundle):
        asyncio.run(encoder.encode(str(folder), version_in(folder), [{"title": "pen"}]))
    assert metrics.counts["text_models_total", "hit"] == 2
    assert metrics.counts["text_models_total", "miss"] == 4


def test_the_encoder_does_not_take_one_bundle_for_another(bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    with pytest.raises(BundleError, match="the folder holds"):
        asyncio.run(TextEncoder().encode(str(folder), "tiny-before", [{"title": "pen"}]))


class TestBatches:
    def test_calls_at_once_are_answered_each_with_its_own(
        self, bundle: Path, other_bundle: Path, tmp_path: Path
    ) -> None:
        async def run() -> None:
            encoder = TextEncoder()
            wanted = [[f"red {thing}"] * (n + 1) for n, thing in enumerate(THINGS)]
            folders = [bundle, other_bundle, bundle, tmp_path / "gone", bundle]

            def call(folder: Path, titles: list[str]) -> Any:
                items = [{"title": title} for title in titles]
                return encoder.encode(str(folder), version_in(folder), items)

            alone = []
            for folder, titles in zip(folders, wanted, strict=True):
                alone.append(None if folder.name == "gone" else await call(folder, titles))
            together = await asyncio.gather(*map(call, folders, wanted), return_exceptions=True)
            left = asyncio.create_task(call(bundle, ["red cup"]))
            await asyncio.sleep(0)
            left.cancel()  # a caller that waits no longer takes nobody's answer along
            assert (await call(bundle, ["red pen"])).shape == (1, 32)
            for found, expected in zip(together, alone, strict=True):
                if expected is None:
                    assert isinstance(found, BundleError)
                else:
                    np.testing.assert_allclose(found, expected, atol=1e-5)

        asyncio.run(run())
