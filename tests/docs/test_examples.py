"""The Python of README and documentation runs, on a small shop."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
from bundles import make_bundle
from documents import ROOT, Block, blocks
from tiny import tiny_shop

#: Items of the demo's log -> items of the small shop.
ITEMS = {
    "1082185": "item-0003",
    "1029743": "item-0005",
    "6534178": "item-0007",
    "1085604": "item-0008",
}
#: Run elsewhere: against a service.
ELSEWHERE = {"docs/serving/grpc.md": "tests/serve/grpc/test_servicer.py"}
EXAMPLES = [b for b in blocks("python") if str(b.page.relative_to(ROOT)) not in ELSEWHERE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place like the repository after `make demo`, with another log."""
    folder = tmp_path_factory.mktemp("repository")
    run = folder / "runs" / "demo"
    shop = tiny_shop(folder, run_dir=str(run))
    make_bundle(run / "bundle", shop.recipe, seed=3)
    (folder / "recipes").symlink_to(ROOT / "recipes")
    return folder


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_it_runs(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = block.text
    for theirs, ours in ITEMS.items():
        code = code.replace(f'"{theirs}"', f'"{ours}"')
    monkeypatch.chdir(folder)
    exec(compile(code, str(block), "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out
    assert printed
    if "recommend_items" in code:
        assert "item-" in printed
    if "evaluate(" in code:
        assert [line.split()[0] for line in printed.splitlines()[:2]] == ["model", "recency"]


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_its_imports_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_what_is_run_elsewhere_is() -> None:
    for page, test in ELSEWHERE.items():
        text = (ROOT / test).read_text()
        assert all(f'"{part}"' in text for part in page.split("/"))


def test_the_readme_has_ten_lines_of_python() -> None:
    (example,) = (block for block in EXAMPLES if block.page == ROOT / "README.md")
    assert 8 <= len([line for line in example.text.splitlines() if line]) <= 10
