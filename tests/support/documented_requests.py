"""Requests of the documentation, asked of an application in this process."""

from __future__ import annotations

from typing import Any

from documents import Block
from fastapi.testclient import TestClient

#: Items of the demo's log -> items of the small bundle.
ITEMS = {"1082185": "item-0003", "1029743": "item-0005"}


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
