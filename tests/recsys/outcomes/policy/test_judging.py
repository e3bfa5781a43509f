"""Policies of a real bundle on lists that were drawn by it, with clicks by a known rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from bundles import make_bundle
from drawn_lists import clicked, draw, expected_clicks, exposures_of, moments, write_exposures
from tiny import Shop, tiny_shop

from recsys.data.histories import Histories
from recsys.outcomes.policy.judging import Judged, Judging
from recsys.outcomes.policy.logged import LoggedLists
from recsys.outcomes.policy.values import as_json, over_logged, over_other
from recsys.ranking.chances import Policy
from recsys.ranking.scorer import Scorer
from recsys.recommender.loading import scorer_on
from recsys.schema import Col

NUM_LISTS, PLACES, LOGGED = 1000, 3, 0.6
TARGETS = {"sharper": Policy(temperature=0.4), "even": Policy(epsilon=1.0)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return tiny_shop(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def scorer(shop: Shop) -> Scorer:
    """A real bundle's, as of the test window; items are matched by id."""
    bundle = make_bundle(shop.recipe.root / "bundle", shop.recipe, seed=4)
    return scorer_on(bundle, shop.prepared, "test", shop.store.content_similarity)


class Log:
    """Lists of users at moments of the test window, and each one's scores, looked up by hand."""

    def __init__(self, shop: Shop, scorer: Scorer) -> None:
        self.rng = np.random.default_rng(8)
        users, ids = shop.prepared.users(), shop.prepared.item_ids()
        on_sale = shop.prepared.catalogue.items[Col.available].to_numpy()
        self.rates = self.rng.uniform(0.02, 0.5, len(ids))
        self.user = self.rng.integers(len(users) + 2, size=NUM_LISTS)
        us, pasts = moments(NUM_LISTS, self.rng), []
        for user, now in zip(self.user.tolist(), us.tolist(), strict=True):
            low, high = users.offsets[user : user + 2].tolist() if user < len(users) else (0, 0)
            past = slice(low, low + int(np.searchsorted(users.timestamps[low:high], now)))
            columns = (users.item_rows, users.event_codes, users.timestamps)
            pasts.append(Histories.of(*(each[past] for each in columns), now))
        self.scores = scorer.scores(Histories.joined(pasts))
        self.scores[:, ~on_sale] = -np.inf
        rows = []
        for number, (user, now) in enumerate(zip(self.user.tolist(), us.tolist(), strict=True)):
            shown, chances = draw(self.scores[number], PLACES, LOGGED, self.rng)
            # The last two are in no shard: nothing is known of them.
            name = users.user_ids[user] if user < len(users) else f"{user:064x}"
            rows += exposures_of(
                f"r{number}", name, now, ids[shown].tolist(), propensity=chances.tolist(),
                clicked=clicked(self.rates[shown], self.rng), value=2.0,
            )  # fmt: skip
        self.folder = write_exposures(shop.recipe.root, rows)

    def truth(self, temperature: float, num_draws: int = 20) -> float:
        """Clicks per list of a policy at these moments, by simulation."""
        found = [
            expected_clicks(self.rates[draw(scores, PLACES, temperature, self.rng)[0]])
            for scores in self.scores
            for _ in range(num_draws)
        ]
        return float(np.mean(found))


@pytest.fixture(scope="module")
def log(shop: Shop, scorer: Scorer) -> Log:
    return Log(shop, scorer)


@pytest.fixture(scope="module")
def judged(shop: Shop, scorer: Scorer, log: Log) -> pl.DataFrame:
    since, _ = shop.prepared.window("test")
    days = tuple(sorted(path.stem for path in log.folder.glob("*.parquet")))
    lists = LoggedLists(log.folder, days, since, shop.prepared.summary["log_us"][1])
    survey = lists.survey()
    assert survey.counts["judged"] == NUM_LISTS
    policies = {"own": Policy(temperature=LOGGED), **TARGETS}
    judging = Judging(
        shop.prepared, lists, survey,
        {name: Judged(scorer, policy) for name, policy in policies.items()},
        owned_codes=[], batch_size=64,
    )  # fmt: skip
    found = pl.concat([judging(shard) for shard in [*shop.prepared.shards, None]])
    assert found.height == NUM_LISTS
    return found


def test_the_logging_policy_is_worth_its_own_rate(judged: pl.DataFrame) -> None:
    """Its chances are the propensities that were logged, so all weights are 1."""
    targets, logged = (judged[name].explode() for name in ("own:target", Col.propensity))
    assert targets.to_numpy() == pytest.approx(logged.to_numpy(), rel=1e-3)
    found, rate = over_logged(judged, "own", "clicks"), judged["clicks"].list.sum().mean()
    assert as_json(judged, "own")["clicks"]["rips"]["value"] == pytest.approx(rate, rel=1e-3)
    assert found.value.value == pytest.approx(rate, rel=0.02)
    assert found.value.overlap.effective_rows == pytest.approx(NUM_LISTS, rel=1e-3)
    assert found.difference.low < 0 < found.difference.high and not found.refusals


def test_another_policy_is_worth_what_it_would_have_earned(judged: pl.DataFrame, log: Log) -> None:
    truth, found = log.truth(0.4), over_logged(judged, "sharper", "clicks")
    assert not found.refusals
    assert found.value.low <= truth <= found.value.high
    assert found.value.high - found.value.low < 0.35 * truth
    own = over_logged(judged, "own", "clicks").value.value
    one, other = (
        over_other(judged, *names, "clicks") for names in (("sharper", "own"), ("own", "sharper"))
    )
    assert one.difference.value == pytest.approx(found.value.value - own)
    assert other.difference.value == pytest.approx(-one.difference.value)
    assert one.beside == pytest.approx(own) and not one.refusals


def test_a_policy_that_shows_what_the_log_hardly_has_is_refused(judged: pl.DataFrame) -> None:
    found = over_logged(judged, "even", "clicks")
    assert "the effective sample size is" in found.refusals[0]
    between = over_other(judged, "sharper", "even", "clicks")
    assert all(why.startswith("even: ") for why in between.refusals) and between.refusals


def test_users_of_whom_nothing_is_known_are_judged_as_newcomers(
    judged: pl.DataFrame, log: Log
) -> None:
    unknown = judged.filter(pl.col(Col.user).str.starts_with("0" * 32))
    assert unknown.height == (log.user >= log.user.max() - 1).sum() > 0
    assert not unknown["known"].any() and judged["known"].mean() > 0.9


def test_the_report_tells_all_estimators(judged: pl.DataFrame) -> None:
    found: dict[str, Any] = as_json(judged, "sharper")
    clicks = found["clicks"]
    wide, narrow = (np.diff(clicks[each]["interval"]) for each in ("rips", "cascade_doubly_robust"))
    assert narrow < wide
    first = clicks["first_place"]
    assert first["ips"]["effective_rows"] > clicks["rips"]["effective_rows"]
    values = [first[each]["value"] for each in ("ips", "snips", "doubly_robust")]
    assert values == pytest.approx([values[0]] * 3, rel=0.1)
    assert found["revenue"]["logged"]["value"] == pytest.approx(2.0 * PLACES)
    # Nothing was bought: nothing can be said of it.
    assert "worth 0.0 outcomes" in found["purchases"]["cascade_doubly_robust"]["refusals"][0]
    assert found["purchases"]["difference"]["refusals"]


def test_a_list_that_the_log_could_not_show_is_refused(
    shop: Shop, scorer: Scorer, log: Log, tmp_path: Path
) -> None:
    """Half of the catalogue was filtered out when lists were logged; the policy would show it."""
    days = tuple(sorted(path.stem for path in log.folder.glob("*.parquet")))
    for each in days:
        rows = pl.read_parquet(log.folder / f"{each}.parquet")
        doubled = pl.min_horizontal(pl.col(Col.propensity) * 1.5, 1.0).cast(pl.Float32)
        rows.with_columns(doubled).write_parquet(tmp_path / f"{each}.parquet")
    lists = LoggedLists(tmp_path, days, 0, 2**62, places=1)
    judging = Judging(
        shop.prepared, lists, lists.survey(), {"own": Judged(scorer, Policy(temperature=LOGGED))},
        owned_codes=[], batch_size=64,
    )  # fmt: skip
    found = over_logged(judging(shop.prepared.shards[0]), "own", "clicks")
    assert "standard errors from 1" in found.refusals[0]
