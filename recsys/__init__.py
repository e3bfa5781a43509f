"""Raycommend's library: what it means to recommend. It knows nothing of Ray or HTTP.

The public names are imported when they are first used (PEP 562): `import recsys` imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.artifacts.bundle import Bundle
    from recsys.artifacts.registry import Registry
    from recsys.artifacts.run import Run
    from recsys.config import Recipe, load_recipe
    from recsys.evaluation.evaluate import evaluate
    from recsys.preparation.prepared import Prepared
    from recsys.recommender.by_id import Recommender

__version__ = "0.1.0"

#: Public name -> the module that has it.
_PUBLIC = {
    "Bundle": "recsys.artifacts.bundle",
    "Prepared": "recsys.preparation.prepared",
    "Recipe": "recsys.config",
    "Recommender": "recsys.recommender.by_id",
    "Registry": "recsys.artifacts.registry",
    "Run": "recsys.artifacts.run",
    "evaluate": "recsys.evaluation.evaluate",
    "load_recipe": "recsys.config",
}

__all__ = [
    "Bundle", "Prepared", "Recipe", "Recommender", "Registry", "Run", "evaluate", "load_recipe",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
