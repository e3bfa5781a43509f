"""Every request of README and documentation, asked of the application in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from documents import PAGES, ROOT, Block, blocks
from fastapi.testclient import TestClient

#: Items of the demo's log -> items of the small bundle.
ITEMS = {"1082185": "item-0003", "1029743": "item-0005"}
ASKED = {block.page for block in blocks("bash") if "curl" in block.text}
#: Its requests bring keys; `tests/serve/access` asks with such.
WITH_KEYS = ROOT / "docs" / "serving" / "access.md"


def test_there_are_requests() -> None:
    assert {"README.md", "api.md", "feedback.md"} <= {page.name for page in ASKED}


@pytest.mark.parametrize("page", sorted(ASKED - {WITH_KEYS}), ids=lambda page: page.name)
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


def answers(block: Block, client: TestClient) -> list[dict[str, Any]]:
    """The answers to the requests of a block, each 200."""
    found = []
    for words in block.commands() if block.language == "bash" else ():
        if words[0] != "curl":
            continue
        text = " ".join(words)
        for theirs, ours in ITEMS.items():
            words = [word.replace(theirs, ours) for word in words]
        path = next(word for word in words if word.startswith("http")).split(":8000", 1)[1]
        body = words[words.index("-d") + 1] if "-d" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else "POST" if body else "GET"
        headers = dict(
            value.split(": ", 1)
            for option, value in zip(words, words[1:], strict=False)
            if option == "-H"
        )
        answer = client.request(method, path, content=body, headers=headers)
        assert answer.status_code == 200, (text, answer.text)
        found.append(answer.json())
    return found


def test_every_page_is_looked_at() -> None:
    assert set(PAGES) >= ASKED
