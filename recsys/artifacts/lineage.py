"""Lineage checks: a registry holds the bundles of one product only.

A challenger is compared with the champion, and the service answers with it. So all champions of a
registry are made under one recipe name, with one key of the pseudonyms, and of one catalogue, which
may change item by item.
"""

from __future__ import annotations

from pathlib import Path

from recsys.artifacts.bundle import BUNDLE, Bundle
from recsys.artifacts.registry import CHAMPION, Registry
from recsys.config import Privacy, Promote, Recipe, changed_keys
from recsys.data.pseudonyms import find_key, key_check, load_key
from recsys.errors import BundleError, DataError
from recsys.schema import Col
from recsys.storage.location import Place, place_of
from recsys.storage.node_cache import Fetched

#: Where recipes that name no registry had theirs, all in one, before each had its own.
FORMER_DEFAULT = "runs/registry"
_LANGUAGE = "model.language_model"
_OWN = "set promote.registry to a folder of this product's own, e.g. runs/registry/{name}"


#: Bundles of a store stay on the node until the process ends.
_HELD: list[Fetched] = []


def named_bundle(recipe: Recipe, name: str, *, verify: bool = True) -> Bundle:
    """The bundle that somebody names.

    Args:
        recipe: names the registry.
        name: `champion`, a version of the registry, or a bundle's folder or URI.
        verify: see `Bundle.open`.

    Raises:
        BundleError: there is none, or it is broken.
    """
    registry = Registry.of(recipe)
    if name == CHAMPION or name in registry.versions():
        folder = registry.path(name)
    else:
        found = recipe.storage.cache.local(place_of(name))
        _HELD.append(found)
        # A name that is no folder is rather a version that the registry does not have.
        is_there = (found.folder / BUNDLE).is_file()
        folder = found.folder if is_there else registry.path(name)
    return Bundle.open(folder, verify=verify)


def check_key(
    bundle: Bundle, key: bytes, privacy: Privacy, registry: Registry | None = None
) -> None:
    """Refuse a bundle whose log was made pseudonymous with another key than the service's.

    Args:
        bundle: to be served.
        key: the service's.
        privacy: names where the key comes from.
        registry: the bundle is its champion.

    Raises:
        DataError: no user of that log would be recognised.
    """
    made_with, own = bundle.meta.get("key_check"), key_check(key)
    if made_with is not None and made_with != own:
        fix = f"give the service that key: {privacy.key_env}, or the run's pseudonym.key"
        raise DataError(
            f"the pseudonym key is not the one that the log of {bundle.version} was prepared with "
            f"(its check is {made_with}, here it is {own})",
            where=registry.root if registry else bundle.folder, field="key_check",
            fix=f"{fix}; or {_OWN}" if registry else fix,
        )  # fmt: skip


def check_start(recipe: Recipe) -> None:
    """Refuse to begin a run whose bundle could not enter the recipe's registry.

    Raises:
        BundleError: the champion is another product's, as far as name and key tell; or the line
            goes on in `FORMER_DEFAULT`.
    """
    registry = Registry.of(recipe)
    incumbent = _champion(registry)
    if incumbent is None:
        _check_former(registry, recipe)
        return
    _check_name(registry, incumbent, recipe.name)
    # A key that is still to be made is none that anything was made with.
    key = find_key(recipe.privacy, recipe.root)
    own = "none yet" if key is None else key_check(key)
    _check_made_with(registry, incumbent, own, recipe.privacy)


def check_challenger(recipe: Recipe, challenger: Bundle) -> None:
    """Refuse a bundle that does not belong into the recipe's registry.

    Raises:
        BundleError: it is of another name than the recipe, the champion is another product's, or
            the line goes on in `FORMER_DEFAULT`.
    """
    if challenger.recipe.name != recipe.name:
        raise BundleError(
            f"the bundle was made under the name {challenger.recipe.name}, the recipe is "
            f"{recipe.name}", where=challenger.folder, field="name",
            fix="run `recsys tune` and `recsys embed` again; finished trainings are not repeated",
        )  # fmt: skip
    registry = Registry.of(recipe)
    incumbent = _champion(registry)
    if incumbent is None:
        _check_former(registry, recipe)
        return
    _check_name(registry, incumbent, recipe.name)
    own = challenger.meta.get("key_check")
    _check_made_with(registry, incumbent, own, recipe.privacy)
    _check_items(registry, incumbent, challenger)


def changed_recipe(challenger: Bundle, incumbent: Bundle) -> list[str]:
    """The keys by which a bundle is more than a refresh of another; see `changed_keys`.

    What both have searched in one space is each one's own finding. The language model counts by
    its content: one that was adapted lies in its run's folder.
    """
    bundles = (challenger, incumbent)
    searched = [bundle.meta.get("searched") for bundle in bundles]
    languages = [bundle.meta.get("language_model") for bundle in bundles]
    changed = changed_keys(challenger.recipe, incumbent.recipe)
    if searched == [True, True]:
        changed = [key for key in changed if key not in challenger.recipe.tune.space]
    elif searched == [False, False]:
        changed = [key for key in changed if not key.startswith("tune.")]
    if None not in languages:
        changed = [key for key in changed if key != _LANGUAGE]
        changed += [_LANGUAGE] if languages[0] != languages[1] else []
    return changed


def check_unseen(recipe: Recipe, bundle: Bundle) -> None:
    """Refuse a bundle that has learned from the recipe's test window.

    Raises:
        DataError: so it has.
    """
    cuts, test = bundle.recipe.data.cuts, recipe.data.cuts.test
    seen_until = cuts.test if bundle.recipe.train.retrain else cuts.valid
    if seen_until > test:
        raise DataError(
            f"{bundle.version} learned from baskets up to {seen_until:%Y-%m-%d}, some of this test "
            "window: the comparison would flatter it",
            where=recipe.root, field="data.cuts.test", value=str(test),
            fix="prepare with cuts that lie later than that bundle's",
        )  # fmt: skip


def check_previous(recipe: Recipe) -> None:
    """Refuse a rollback to a bundle that is another product's.

    The champion that goes is not looked at: it may be broken.

    Raises:
        BundleError: so it is, as far as name and key tell, or there is none to go back to.
    """
    registry = Registry.of(recipe)
    bundle = Bundle.open(registry.path(registry.previous()), verify=False)
    key = find_key(recipe.privacy, recipe.root)
    _check_name(registry, bundle, recipe.name)
    own = None if key is None else key_check(key)
    _check_made_with(registry, bundle, own, recipe.privacy)


def champion_place(recipe: Recipe) -> Place:
    """Where the champion lies that a service of this recipe answers with.

    Raises:
        BundleError: there is no champion, or it was made under another name.
        DataError: it was made with another pseudonym key, or there is no key.
    """
    registry = Registry.of(recipe)
    version = registry.champion()
    if version is None:
        _check_former(registry, recipe)
        return registry.place(CHAMPION)
    incumbent = Bundle.open(registry.path(version), verify=False)
    _check_name(registry, incumbent, recipe.name)
    _check_served(recipe, incumbent, registry)
    return registry.place(version)


def check_bundle(recipe: Recipe, place: Place) -> None:
    """Refuse a bundle, of no registry, that a service of this recipe could not answer with.

    Raises:
        BundleError: there is none.
        DataError: it was made with another pseudonym key, or there is no key.
    """
    _check_served(recipe, Bundle.open(recipe.storage.cache.local(place).folder, verify=False))


def _check_served(recipe: Recipe, bundle: Bundle, registry: Registry | None = None) -> None:
    if bundle.meta.get("key_check") is not None:
        key = load_key(recipe.privacy, recipe.root, create=False)
        check_key(bundle, key, recipe.privacy, registry)


def _champion(registry: Registry) -> Bundle | None:
    if registry.champion() is None:
        return None
    return Bundle.open(registry.path(CHAMPION), verify=False)


def _check_name(registry: Registry, bundle: Bundle, name: str) -> None:
    if bundle.recipe.name != name:
        raise BundleError(
            f"a registry holds one product's line: {bundle.version} in it was made by the recipe "
            f"{bundle.recipe.name}, this one is {name}", where=registry.root, field="name",
            fix=_OWN,
        )  # fmt: skip


def _check_made_with(registry: Registry, bundle: Bundle, own: str | None, privacy: Privacy) -> None:
    theirs = bundle.meta.get("key_check")
    if theirs is not None and own is not None and theirs != own:
        raise BundleError(
            f"a registry holds one product's line: {bundle.version} in it was made with another "
            f"pseudonym key (its check is {theirs}, here it is {own})", where=registry.root,
            field="key_check",
            fix=f"{_OWN}; or give the key that was used then, in {privacy.key_env} or "
            "privacy.key_file",
        )  # fmt: skip


def _check_items(registry: Registry, incumbent: Bundle, challenger: Bundle) -> None:
    theirs, ours = incumbent.items[Col.item], challenger.items[Col.item]
    if not ours.is_in(theirs.implode()).any():
        raise BundleError(
            f"a registry holds one product's line: no item of {challenger.version} is in the "
            f"catalogue of {incumbent.version} (there {theirs[0]}, ..., here {ours[0]}, ...)",
            where=registry.root, field=Col.item, fix=_OWN,
        )  # fmt: skip


def _check_former(registry: Registry, recipe: Recipe) -> None:
    """Refuse a new registry while this product's champion is in the former default folder."""
    if recipe.promote.registry != Promote().registry:
        return
    former = Registry(Path(FORMER_DEFAULT).absolute())
    champion = former.champion()
    if champion is not None and champion.rpartition("-")[0] == recipe.name:
        raise BundleError(
            f"no champion here, but {champion} is champion in {former.root}, which all recipes "
            "shared before", where=registry.root, field="promote.registry",
            value=recipe.promote.registry,
            fix=f"set promote.registry to {FORMER_DEFAULT}, or move registry.json and bundles/ "
            "from there to here",
        )  # fmt: skip
