"""README and documentation, as what can be checked: blocks of code, commands, links, names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Everything that a user reads, and that changes with the code. The changelog and the results tell
#: of their day.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(((?!https?:)[^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """Its commands as words, without comments and environment; of a console, what is typed."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        pending = ""
        for line in lines:
            pending = f"{pending}\n{line}" if pending else line
            try:
                words = shlex.split(pending, comments=True)
            except ValueError:  # a quotation that goes on
                continue
            pending = ""
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                yield words
        assert not pending, f"{self}: a quotation is not closed"


def blocks(*languages: str) -> list[Block]:
    """All blocks of some languages."""
    return [
        Block(page, match[1], match[2], text[: match.start()].count("\n") + 1)
        for page in PAGES
        for text in [page.read_text()]
        for match in _FENCE.finditer(text)
        if match[1] in languages or not languages
    ]


def commands() -> list[tuple[str, list[str]]]:
    """Every command of a shell block, with its place."""
    return [
        (f"{block} {' '.join(words)[:60]}", words)
        for block in blocks("bash", "console")
        for words in block.commands()
    ]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """The links of a page to other files."""
    return _LINK.findall(prose(page))


def code(page: Path) -> list[str]:
    """What stands between backticks in the text of a page."""
    return _CODE.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", t.lower())).strip("-") for t in titles}
