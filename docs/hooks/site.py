"""MkDocs hooks: pages made of files outside `docs/`, and links to such files.

`<!-- include: FILE -->` becomes the file; `<!-- recipe reference -->` the reference. A link that
leaves `docs/` leads to a copy of the file in the site, so the site needs no network and no host.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
from recipe_reference import ROOT, reference  # noqa: E402

#: Folder of the site with the repository's files that pages link to.
COPIES = "repository"
#: File of the repository -> the page that shows it.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "benchmarks/RESULTS.md": "benchmarks.md",
}
_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")
_INCLUDE = re.compile(r"<!-- include: (\S+) -->")


def on_files(files: Any, config: Any) -> Any:
    """Add the files outside `docs/` that a page links to."""
    docs = Path(config["docs_dir"])
    for page in sorted(docs.rglob("*.md")):
        base, markdown = _filled(page.relative_to(docs).as_posix(), page.read_text())
        for link in _LINK.finditer(markdown):
            target = _target(base, link[2])
            copy = f"{COPIES}/{target}"
            if (
                target is not None
                and not target.startswith("docs/")
                and target not in PAGES
                and (ROOT / target).is_file()
                and files.get_file_from_path(copy) is None
            ):
                files.append(File.generated(config, copy, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in what a page includes, and turn the links that leave `docs/`."""
    source = page.file.src_uri
    base, markdown = _filled(source, markdown)

    def turned(link: re.Match[str]) -> str:
        target = _target(base, link[2])
        if target is None:
            return link[0]
        inside = PAGES.get(target, f"{COPIES}/{target}")
        if target.startswith("docs/"):
            inside = target.removeprefix("docs/")
        relative = posixpath.relpath(inside, posixpath.dirname(source) or ".")
        return f"{link[1]}{relative}{link[3] or ''}{link[4]}"

    return _LINK.sub(turned, markdown).replace("<!-- recipe reference -->", reference())


def _filled(source: str, markdown: str) -> tuple[str, str]:
    """The folder that a page's links start at, and its text with the file that it includes."""
    included = _INCLUDE.search(markdown)
    if included is None:
        return posixpath.join("docs", posixpath.dirname(source)), markdown
    text = (ROOT / included[1]).read_text()
    return posixpath.dirname(included[1]), markdown.replace(included[0], text)


def _target(base: str, link: str) -> str | None:
    """The linked file's path in the repository; None for an address."""
    if re.match(r"[a-z]+:", link):
        return None
    return posixpath.normpath(posixpath.join(base, link))
