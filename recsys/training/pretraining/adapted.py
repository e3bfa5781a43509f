"""The language model of a recipe: the one it names, or the one that `pretrain` adapted.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from recsys.config import Recipe
from recsys.errors import DataError
from recsys.preparation.prepared import Prepared
from recsys.storage.reading import read_json
from recsys.text.pretrained import fingerprint, locate

LANGUAGE_DIR, PRETRAIN_FILE = "language_model", "pretrain.json"


def made_of(recipe: Recipe, prepared: Prepared) -> dict[str, str]:
    """Fingerprint of an adapted language model: its origin, the data, the settings."""
    return {
        "language_model": prepared.summary["language_model"],
        "data_fingerprint": prepared.summary["data_fingerprint"],
        "settings": recipe.fingerprint("data", "pretrain"),
    }


def bring_adapted(recipe: Recipe) -> None:
    """Have the adapted language model on this node, if the recipe asks for one."""
    if recipe.pretrain.epochs:
        recipe.shared.bring(recipe.root / LANGUAGE_DIR)


def adapted(recipe: Recipe, prepared: Prepared) -> Recipe:
    """The recipe, with the adapted language model in `model.language_model` if it pretrains.

    Raises:
        DataError: it pretrains, and there is no adapted model of this recipe and data.
    """
    if not recipe.pretrain.epochs:
        return recipe
    path, folder = recipe.root / PRETRAIN_FILE, recipe.root / LANGUAGE_DIR
    if not (path.is_file() and folder.is_dir()):
        raise DataError(
            "the language model is not adapted yet", where=path, field="pretrain.epochs",
            value=recipe.pretrain.epochs,
            fix="run `recsys pretrain` first, or set pretrain.epochs=0",
        )  # fmt: skip
    fix = "run `recsys pretrain` again"
    names = [*made_of(recipe, prepared), "adapted"]
    then = read_json(path, fix, dict.fromkeys(names, str))
    now = {**made_of(recipe, prepared), "adapted": fingerprint(locate(str(folder)))}
    for name, value in now.items():
        if then[name] != value:
            raise DataError(
                f"the language model was adapted under another recipe or on other data ({name})",
                where=path, field=name, value=then[name], fix=fix,
            )  # fmt: skip
    model = recipe.model.model_copy(update={"language_model": str(folder)})
    return recipe.model_copy(update={"model": model})
