"""The documentation builds as a site, without a warning, and fetches nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def test_every_page_stands_in_the_navigation_once() -> None:
    told = [page for part in CONFIG["nav"] for page in pages_of(part)]
    there = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(told) == sorted(there)


def pages_of(part: object) -> list[str]:
    if isinstance(part, str):
        return [part]
    assert isinstance(part, dict)
    (inside,) = part.values()
    return [inside] if isinstance(inside, str) else [p for each in inside for p in pages_of(each)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_the_recipe_and_the_public_names_are_filled_in(site: Path) -> None:
    assert "train.language_model_lr_factor" in (site / "recipe.html").read_text()
    assert "recommend_items" in (site / "python.html").read_text()
    assert "Serving beside other servers" in (site / "benchmarks.html").read_text()


def test_the_site_fetches_nothing(site: Path) -> None:
    """A link may lead elsewhere; scripts, styles, fonts and pictures are the site's own."""
    fetched = re.compile(
        r"<(?:script|img|iframe)[^>]+src=\"?https?:|<link[^>]+rel=\"?stylesheet[^>]+href=\"?https?:"
    )
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not fetched.search(text), page
        assert "fonts.googleapis" not in text, page


def test_files_of_the_repository_that_pages_link_to_are_in_the_site(site: Path) -> None:
    copy = site / "repository" / "recipes" / "canonical.yaml"
    assert copy.read_text() == (ROOT / "recipes" / "canonical.yaml").read_text()
    assert 'href="repository/recipes/canonical.yaml"' in (site / "your-log.html").read_text()
