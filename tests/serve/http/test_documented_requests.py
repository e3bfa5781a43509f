"""Every request of README and documentation, asked of the application in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from documented_requests import answers
from documents import PAGES, ROOT, blocks
from fastapi.testclient import TestClient

ASKED = {block.page for block in blocks("bash") if "curl" in block.text}
#: Their requests bring keys, or ask a bundle with outcome heads: `tests/serve/access` and
#: `tests/serve/ranking` ask with such.
ELSEWHERE = {ROOT / "docs" / "serving" / name for name in ("access.md", "objectives.md")}


def test_there_are_requests() -> None:
    assert {"README.md", "api.md", "feedback.md"} <= {page.name for page in ASKED}


@pytest.mark.parametrize("page", sorted(ASKED - ELSEWHERE), ids=lambda page: page.name)
def test_requests_of_a_page_are_answered_as_it_says(page: Path, client: TestClient) -> None:
    """One after another, as a reader would; a block of JSON below one is its answer."""
    told: dict[str, Any] | None
    own = [block for block in blocks() if block.page == page]
    for block, after in zip(own, [*own[1:], None], strict=True):
        told = json.loads(after.text) if after and after.language == "json" else None
        for answer in answers(block, client):
            if told is not None:
                assert list(answer) == list(told)
                kinds = {tuple(item) for each in (answer, told) for item in each.get("items", ())}
                assert len(kinds) <= 1
                stable = answer.keys() - {"model_version", "request_id", "basis", "items"}
                assert {key: answer[key] for key in stable} == {key: told[key] for key in stable}


def test_every_page_is_looked_at() -> None:
    assert set(PAGES) >= ASKED
