"""A warm start: training that begins from a bundle's weights, on a log that has grown since.

Rows of the embedding tables move with the catalogue, so they are matched: an id vector by the
item's id, a field's vector by its value. What the bundle does not know keeps what a fresh training
begins with. The language model is held fixed: a night's new events hardly change it, and vectors of
known texts stay as they are.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.arrays import Int64s
from recsys.artifacts.bundle import ID_ROW, ITEMS, MODEL, Bundle
from recsys.artifacts.checkpoint import FROZEN
from recsys.artifacts.lineage import named_bundle
from recsys.config import Recipe, changed_keys, searched, with_settings
from recsys.errors import BundleError, DataError, RaycommendError, RecipeError
from recsys.features.item_fields import ItemFields
from recsys.model.item_encoder import NO_ID
from recsys.model.ranking_head import ScoringHead
from recsys.model.two_tower import TwoTower
from recsys.schema import Col

#: What a model's weights mean depends on these keys and sections of the recipe.
_SAME: Final = ("model.", "data.text_fields", "data.max_tokens", "data.target_events")
_IN_FULL = "train in full once, without --from"
_IDS, _FIELDS = "items.ids.weight", "items.fields.weight"


def start_bundle(recipe: Recipe, start: str) -> Bundle:
    """The bundle that a training is to begin from.

    Args:
        recipe: names the registry.
        start: `champion`, a version of the registry, or a bundle's folder or URI.

    Raises:
        BundleError: there is none, it is broken, or too old to tell whose its id vectors are.
    """
    bundle = named_bundle(recipe, start)
    if bundle.id_rows is None:
        raise BundleError(
            f"{bundle.version} was written by an earlier release and does not say which item each "
            "id vector belongs to",
            where=bundle.folder / ITEMS, field=ID_ROW, fix=_IN_FULL,
        )  # fmt: skip
    return bundle


def warm_recipe(recipe: Recipe, bundle: Bundle) -> Recipe:
    """The recipe of a warm training, with the settings that a search found for the bundle.

    Raises:
        RecipeError: a key differs on which the meaning of the weights depends, or the recipe
            retrains: then nothing is held out to judge the bundle by.
        DataError: the bundle has learned from these validation baskets.
    """
    if recipe.train.retrain:
        raise RecipeError(
            "a training that starts from a bundle is judged on the validation window, and keeps "
            "it out", field="train.retrain", value=True, fix="set train.retrain=false for it, or "
            + _IN_FULL,
        )  # fmt: skip
    before = bundle.recipe
    if bundle.meta.get("searched"):
        recipe = with_settings(recipe, searched(before))
    changed = [key for key in changed_keys(recipe, before) if key.startswith(_SAME)]
    changed = [key for key in changed if key != "model.language_model"]
    if changed:
        section, name = changed[0].split(".")[:2]
        raise RecipeError(
            f"{bundle.version}, which training is to start from, has another value",
            field=changed[0], value=recipe.resolved()[section][name],
            fix=f"use {before.resolved()[section][name]!r}, or {_IN_FULL}",
        )  # fmt: skip
    then, now = before.data.cuts, recipe.data.cuts
    cuts = [("head", then.head_at, now.head_at), ("valid", then.valid, now.valid)]
    if before.train.retrain:
        cuts = [("head", then.valid, now.head_at), ("valid", then.test, now.valid)]
    for name, seen_until, begins in cuts:
        if seen_until > begins:
            raise DataError(
                f"{bundle.version} learned from baskets up to {seen_until:%Y-%m-%d}, some of the "
                "window that begins at this cut",
                where=bundle.folder, field=f"data.cuts.{name}", value=str(begins),
                fix=f"prepare with cuts that are no earlier than that bundle's, or {_IN_FULL}",
            )  # fmt: skip
    return recipe


@torch.no_grad()
def load_start(
    bundle: Bundle, model: TwoTower, head: ScoringHead, item_rows: Tensor, items: pl.DataFrame
) -> None:
    """Give an untrained model a bundle's weights, in place.

    Args:
        bundle: of `start_bundle`.
        model: of `build_two_tower`, for the catalogue of now.
        head: of the model.
        item_rows: of `build_two_tower`.
        items: of the catalogue, in the order of `item_rows`.

    Raises:
        BundleError: its weights do not fit the recipe, or each other.
        RecipeError: its language model is another one.
    """
    bundle.load_into(head, "head.")
    weights = bundle.weights("")
    known_by_name = _known_rows(bundle, weights, model, item_rows, items)
    for name, value in model.state_dict().items():
        if ".lora_" in name:  # folded into the bundle's layers; fresh updates are zero
            continue
        given = weights.get(name.replace(".base_layer", ""))
        if name in known_by_name:
            rows = torch.from_numpy(known_by_name[name])
            assert given is not None
            value[rows >= 0] = given[rows[rows >= 0]]
        elif given is None or given.shape != value.shape:
            shape = None if given is None else tuple(given.shape)
            raise _unfit(bundle, name, shape, f"weights of the shape {tuple(value.shape)}")
        elif name.startswith(FROZEN) and not torch.equal(given, value):
            raise RecipeError(
                f"{bundle.version}, which training is to start from, has another language model "
                f"({name} differs)", field="model.language_model",
                fix=f"use the one that it was trained from, or {_IN_FULL}",
            )  # fmt: skip
        else:
            value.copy_(given)


def _known_rows(
    bundle: Bundle,
    weights: dict[str, Tensor],
    model: TwoTower,
    item_rows: Tensor,
    items: pl.DataFrame,
) -> dict[str, Int64s]:
    """Of each table, every row's row in the bundle's, -1 where that has none."""
    assert bundle.id_rows is not None
    names = bundle.recipe.model.item_fields
    fields, theirs = ItemFields.of(items, names), ItemFields.of(bundle.items, names)
    num_ids = int(bundle.id_rows.max(initial=NO_ID)) + 1
    for name, num_rows in ((_IDS, max(num_ids, 1)), (_FIELDS, theirs.num_rows)):
        given = weights.get(name)
        if given is None or tuple(given.shape) != (num_rows, model.items.project.out_features):
            shape = None if given is None else tuple(given.shape)
            raise _unfit(bundle, name, shape, f"{num_rows} rows, as its items say")
    row_of = dict(zip(bundle.items[Col.item].to_list(), bundle.id_rows.tolist(), strict=True))
    ids = np.full(len(model.items.ids.weight), NO_ID, dtype=np.int64)
    own = item_rows[:, 0].numpy()
    has_id = own != NO_ID
    item_ids = items[Col.item].filter(pl.Series(has_id)).to_list()
    ids[own[has_id]] = [row_of.get(item_id, NO_ID) for item_id in item_ids]
    return {_IDS: ids, _FIELDS: fields.rows_in(theirs)}


def _unfit(bundle: Bundle, name: str, value: object, expected: str) -> RaycommendError:
    return BundleError(
        f"no start for this recipe: expected {expected}", where=bundle.folder / MODEL,
        field=name, value=value, fix=_IN_FULL,
    )  # fmt: skip
