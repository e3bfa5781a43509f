"""A registry holds one product's line: whoever belongs elsewhere is told before anything runs."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from bundles import KEY, make_bundle, make_items, make_language_model, make_recipe

from recsys.artifacts import lineage
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.registry import Registry
from recsys.config import Recipe, with_settings
from recsys.data.pseudonyms import key_check
from recsys.errors import BundleError, DataError
from recsys.schema import Col

CHECK, FOREIGN = key_check(KEY.encode()), "0" * 16


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture
def recipe(tmp_path: Path, language: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A shop called tiny, whose key is at hand, in a folder where nothing was done yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", KEY)
    return make_recipe(tmp_path / "run", language)


def bundle(
    recipe: Recipe, *, seed: int = 1, check: str | None = CHECK, items: pl.DataFrame | None = None
) -> Bundle:
    facts = {} if check is None else {"key_check": check}
    folder = recipe.root.parent / f"{recipe.name}-{seed}"
    return make_bundle(folder, recipe, seed=seed, items=items, **facts)


def promoted(registry: Registry, challenger: Bundle) -> Bundle:
    registry.add(challenger.folder, challenger.version)
    registry.promote(challenger.version)
    return challenger


def of_training(recipe: Recipe, changed: dict[str, object], **facts: object) -> Bundle:
    """What a training of a changed recipe would leave: `bundle.json` alone."""
    return Bundle(recipe.root, {"recipe": with_settings(recipe, changed).resolved(), **facts})


def test_a_refresh_is_told_from_a_changed_recipe(recipe: Recipe) -> None:
    def changed(one: dict[str, object], two: dict[str, object], *facts: dict[str, object]):
        challenger, incumbent = (
            of_training(recipe, settings, **own)
            for settings, own in zip((one, two), facts * (3 - len(facts)), strict=True)
        )
        return lineage.changed_recipe(challenger, incumbent)

    rate, deep, more = {"train.learning_rate": 0.002}, {"model.dim": 32}, {"tune.num_trials": 9}
    alone, search = {"searched": False}, {"searched": True}
    assert changed(deep, {}, search) == ["model.dim"]
    # What a search has found is not the recipe's; what was set is.
    assert changed(rate, {}, search) == []
    for facts in ([alone], [{}], [search, alone], [alone, search]):
        assert changed(rate, {}, *facts) == ["train.learning_rate"]
    assert changed(more, {}, search) == ["tune.num_trials"]
    assert changed(more, {}, alone) == []
    # A language model by its content, where that is known of both.
    moved = {"model.language_model": "/another/folder"}
    one, other = {"language_model": "1"}, {"language_model": "2"}
    assert changed(moved, {}, one) == []
    assert changed({}, {}, one, other) == ["model.language_model"]
    assert changed(moved, {}, {}, one) == ["model.language_model"]


def renamed(recipe: Recipe, name: str) -> Recipe:
    return recipe.model_copy(update={"name": name})


def other_items() -> pl.DataFrame:
    return make_items().with_columns(("other-" + pl.col(Col.item)).alias(Col.item))


def test_each_recipe_has_a_registry_of_its_own(recipe: Recipe, tmp_path: Path) -> None:
    assert Registry.of(recipe).root == tmp_path / "runs" / "registry" / "tiny"
    named = recipe.promote.model_copy(update={"registry": "all/of/them"})
    shared = recipe.model_copy(update={"promote": named})
    assert Registry.of(shared).root == tmp_path / "all" / "of" / "them"


def test_what_belongs_together_passes(recipe: Recipe) -> None:
    registry = Registry.of(recipe)
    lineage.check_start(recipe)
    first, second = bundle(recipe), bundle(recipe, seed=2)
    lineage.check_challenger(recipe, first)
    promoted(registry, first)
    lineage.check_start(recipe)
    # The same again, another one, and one of a catalogue that has changed but for one item.
    lineage.check_challenger(recipe, first)
    lineage.check_challenger(recipe, second)
    changed = pl.concat([make_items()[:1], other_items()[1:]])
    lineage.check_challenger(recipe, bundle(recipe, seed=3, items=changed))
    assert lineage.champion_place(recipe) == registry.path(first.version)
    promoted(registry, second)
    lineage.check_previous(recipe)


def test_a_champion_without_a_check_of_its_key_is_let_be(recipe: Recipe) -> None:
    promoted(Registry.of(recipe), bundle(recipe, check=None))
    lineage.check_start(recipe)
    lineage.check_challenger(recipe, bundle(recipe, seed=2))
    lineage.champion_place(recipe)


class TestOtherName:
    @pytest.fixture
    def registry(self, recipe: Recipe) -> Registry:
        """Where recipes called tiny go, with a champion that another one made."""
        registry = Registry.of(recipe)
        promoted(registry, bundle(renamed(recipe, "grocer")))
        return registry

    def test_nothing_begins_and_nothing_is_served(self, recipe: Recipe, registry: Registry) -> None:
        for check in (
            lambda: lineage.check_start(recipe),
            lambda: lineage.check_challenger(recipe, bundle(recipe, seed=2)),
            lambda: lineage.champion_place(recipe),
        ):
            with pytest.raises(BundleError, match=r"made by the recipe grocer.*tiny") as error:
                check()
            assert error.value.where == registry.root
            assert error.value.field == "name"
            assert "promote.registry" in error.value.fix

    def test_nobody_goes_back_to_it(self, recipe: Recipe, registry: Registry) -> None:
        promoted(registry, bundle(recipe, seed=2))
        with pytest.raises(BundleError, match="recipe grocer"):
            lineage.check_previous(recipe)

    def test_a_bundle_of_another_name_than_the_recipe_is_refused(self, recipe: Recipe) -> None:
        old = bundle(recipe)
        with pytest.raises(BundleError, match="under the name tiny, the recipe is grocer"):
            lineage.check_challenger(renamed(recipe, "grocer"), old)


class TestOtherKey:
    @pytest.fixture
    def registry(self, recipe: Recipe) -> Registry:
        registry = Registry.of(recipe)
        promoted(registry, bundle(recipe, check=FOREIGN))
        return registry

    def test_both_checks_are_told(self, recipe: Recipe, registry: Registry) -> None:
        challenger = bundle(recipe, seed=2)
        for check in (
            lambda: lineage.check_start(recipe),
            lambda: lineage.check_challenger(recipe, challenger),
        ):
            with pytest.raises(BundleError, match="pseudonym key") as error:
                check()
            assert FOREIGN in str(error.value) and CHECK in str(error.value)
            assert error.value.where == registry.root
            assert "RAYCOMMEND_PSEUDONYM_KEY" in error.value.fix

    def test_the_service_is_refused_too(self, recipe: Recipe, registry: Registry) -> None:
        with pytest.raises(DataError, match="pseudonym key") as error:
            lineage.champion_place(recipe)
        assert FOREIGN in str(error.value) and CHECK in str(error.value)
        assert error.value.where == registry.root
        assert "RAYCOMMEND_PSEUDONYM_KEY" in error.value.fix
        assert "promote.registry" in error.value.fix

    def test_a_key_that_is_still_to_be_made_will_be_another(
        self, recipe: Recipe, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("RAYCOMMEND_PSEUDONYM_KEY")
        with pytest.raises(BundleError, match="here it is none yet"):
            lineage.check_start(recipe)
        assert not recipe.root.exists(), "no key was made"

    def test_a_bundle_of_no_registry(self, recipe: Recipe) -> None:
        lineage.check_bundle(recipe, bundle(recipe, seed=2).folder)
        foreign = bundle(recipe, seed=3, check=FOREIGN).folder
        with pytest.raises(DataError, match=FOREIGN) as error:
            lineage.check_bundle(recipe, foreign)
        assert error.value.where == foreign


def test_a_catalogue_that_shares_no_item_is_another_shops(recipe: Recipe) -> None:
    registry = Registry.of(recipe)
    promoted(registry, bundle(recipe))
    challenger = bundle(recipe, seed=2, items=other_items())
    with pytest.raises(BundleError, match=r"there item-0000.*here other-item-0000") as error:
        lineage.check_challenger(recipe, challenger)
    assert (error.value.where, error.value.field) == (registry.root, Col.item)


class TestFormerDefault:
    """Before, recipes that named no registry shared runs/registry."""

    def test_its_champion_is_not_forgotten(self, recipe: Recipe, tmp_path: Path) -> None:
        former = promoted(Registry(tmp_path / "runs" / "registry"), bundle(recipe))
        for check in (
            lambda: lineage.check_start(recipe),
            lambda: lineage.check_challenger(recipe, bundle(recipe, seed=2)),
            lambda: lineage.champion_place(recipe),
        ):
            with pytest.raises(BundleError, match=former.version) as error:
                check()
            assert "set promote.registry to runs/registry" in error.value.fix
        named = recipe.promote.model_copy(update={"registry": "runs/registry"})
        lineage.check_start(recipe.model_copy(update={"promote": named}))

    def test_another_shops_is_none_of_ours(self, recipe: Recipe, tmp_path: Path) -> None:
        promoted(Registry(tmp_path / "runs" / "registry"), bundle(renamed(recipe, "grocer")))
        lineage.check_start(recipe)
        with pytest.raises(BundleError, match="no champion yet"):
            lineage.champion_place(recipe)

    def test_who_has_a_champion_goes_on(self, recipe: Recipe, tmp_path: Path) -> None:
        promoted(Registry(tmp_path / "runs" / "registry"), bundle(recipe))
        promoted(Registry.of(recipe), bundle(recipe, seed=2))
        lineage.check_start(recipe)
