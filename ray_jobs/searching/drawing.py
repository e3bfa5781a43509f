"""How trials are drawn, and what ends those that lag: the recipe's `tune` in Ray Tune's words."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

from recsys.config import Distribution, Recipe
from recsys.errors import RecipeError

#: Trials of a TPE search that are drawn at random: a share of them, this many at most. Optuna's
#: default is 10 of however many.
RANDOM_SHARE, MOST_RANDOM = 0.25, 8


def check_installed(recipe: Recipe) -> None:
    """Refuse a search by a library that is not there.

    Raises:
        RecipeError: Optuna is asked for, and not installed.
    """
    if recipe.tune.search == "tpe" and importlib.util.find_spec("optuna") is None:
        raise RecipeError(
            "needs Optuna, which is not installed", field="tune.search", value="tpe",
            fix="pip install 'raycommend[tune]', or set tune.search to random",
        )  # fmt: skip


def param_space(recipe: Recipe) -> dict[str, Any]:
    """The space by dotted names, as Tune's distributions."""
    return {name: _domain(each) for name, each in recipe.tune.space.items()}


def _domain(distribution: Distribution) -> Any:
    from ray import tune

    if distribution.choice is not None:
        return tune.choice(list(distribution.choice))
    low, high = distribution.values
    if distribution.loguniform is not None:
        return tune.loguniform(low, high)
    if distribution.uniform is not None:
        return tune.uniform(low, high)
    return tune.randint(low, high + 1)


def algorithm(recipe: Recipe, concurrent: int) -> Any:
    """What draws the trials, by the recipe's seed, at most `concurrent` unfinished ones at once."""
    from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter

    if recipe.tune.search == "random":
        # TuneConfig's own max_concurrent_trials is ignored beside a given search_alg.
        return BasicVariantGenerator(random_state=recipe.seed, max_concurrent=concurrent)
    from ray.tune.search.optuna import OptunaSearch

    return ConcurrencyLimiter(OptunaSearch(sampler=sampler(recipe)), max_concurrent=concurrent)


def sampler(recipe: Recipe) -> Any:
    """Optuna's sampler."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        # Fields of one recipe depend on each other, and trials that run side by side are not to be
        # drawn from the same place: Optuna calls both options experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=recipe.seed, multivariate=True, constant_liar=True,
            n_startup_trials=min(MOST_RANDOM, 1 + int(RANDOM_SHARE * recipe.tune.num_trials)),
        )  # fmt: skip


def scheduler(recipe: Recipe) -> Any:
    """What ends trials that lag, asked after every epoch."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

    settings, epochs = recipe.tune, recipe.train.epochs
    grace = min(settings.grace_epochs, epochs)
    if settings.scheduler == "none":
        return FIFOScheduler()
    if settings.scheduler == "median":
        return MedianStoppingRule(time_attr="epoch", grace_period=grace)
    return ASHAScheduler(
        time_attr="epoch",
        # One more than there are: a trial that gets so far ends by itself.
        max_t=epochs + 1,
        grace_period=grace,
        reduction_factor=settings.reduction_factor,
    )
