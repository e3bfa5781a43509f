"""A recipe whose paths mean the same in every process: replicas run in folders of their own."""

from __future__ import annotations

from pathlib import Path

from recsys.config import Recipe


def anchored(recipe: Recipe) -> Recipe:
    """The recipe with the paths that the service reads made absolute."""
    state, privacy = recipe.serve.state, recipe.privacy
    return recipe.model_copy(
        update={
            "run_dir": str(recipe.root),
            "privacy": privacy.model_copy(update={"key_file": _absolute(privacy.key_file)}),
            "serve": recipe.serve.model_copy(
                update={"state": state.model_copy(update={"path": _absolute(state.path)})}
            ),
        }
    )


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())
