"""What is found of a shop that stays what it is, and of one that changes on a day."""

from __future__ import annotations

import numpy as np
import pytest
from drifting import THEN, WARM_UP, clicks, facts, of, reference_of, shop

from recsys.config import Drift
from recsys.drift.findings import VERDICTS, findings
from recsys.drift.measuring import Window, count_users
from recsys.drift.quantities import CTR, EVENT_MIX, ITEM_AGE, NEW_USERS, PRICE
from recsys.drift.reference import Reference

TONIGHT = WARM_UP + THEN


def test_95_percent_of_stable_nights_are_stable() -> None:
    """And of the intervals 95 % hold "as before": of an index 0 is the lowest end there is."""
    alarms, moved, compared = 0, 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        users, known = shop(TONIGHT + 1, rng, users_a_day=12), facts(TONIGHT + 1, rng)
        then, window = reference_of(users, known), Window(TONIGHT, 1)
        found = findings(
            "v",
            then,
            window,
            count_users(users, window, then.bins, known.binned(then.bins)),
            Drift(),
        )
        alarms += found["verdict"] != "stable" or found["asks_full_run"]
        intervals = [each["interval"] for each in found["quantities"]]
        moved += sum(not low <= 0 <= high for low, high in intervals)
        compared += len(intervals)
    assert compared == 200 * 9
    assert alarms <= 0.05 * 200
    assert moved <= 0.05 * compared


def test_a_planted_drift_is_found_on_its_day() -> None:
    """From one night on half of the views are purchases; prices go up with the new items."""
    rng, planted = np.random.default_rng(4), TONIGHT + 3
    users = shop(TONIGHT + 6, rng, users_a_day=40, mix_from=planted)
    known = facts(TONIGHT + 6, rng, dear_from=planted)
    then, verdicts = reference_of(users, known), {}
    for night in range(TONIGHT, TONIGHT + 6):
        window = Window(night, 1)
        found = findings(
            "v",
            then,
            window,
            count_users(users, window, then.bins, known.binned(then.bins)),
            Drift(),
        )
        verdicts[night] = {n: of(found, n)["verdict"] for n in (EVENT_MIX, PRICE, ITEM_AGE)}
        assert found["asks_full_run"] == (night >= planted)
        if night >= planted:
            assert found["verdict"] == "drifted" and found["reason"].startswith("event_mix: PSI")
    assert all(set(verdicts[night].values()) == {"stable"} for night in range(TONIGHT, planted))
    assert verdicts[planted][EVENT_MIX] == "drifted"
    assert verdicts[planted][ITEM_AGE] == "stable"


def test_few_users_say_nothing() -> None:
    rng = np.random.default_rng(0)
    users, known = shop(TONIGHT + 1, rng, users_a_day=2), facts(TONIGHT + 1, rng)
    then, window = reference_of(users, known), Window(TONIGHT, 1)
    found = findings(
        "v", then, window, count_users(users, window, then.bins, known.binned(then.bins)), Drift()
    )
    assert found["verdict"] == VERDICTS[0] and not found["asks_full_run"]
    assert of(found, PRICE)["psi"] is None and of(found, NEW_USERS)["interval"] is None
    assert sum(of(found, PRICE)["now"]) == pytest.approx(1)


def test_clicks_that_are_lost_ask_for_a_full_run() -> None:
    then = Reference(Window(0, 28), {CTR: clicks(0.2, 8000, 28)})
    window, settings = Window(28, 1), Drift()
    found = findings("v", then, window, {CTR: clicks(0.1, 2000, 1)}, settings)
    assert found["asks_full_run"] and found["reason"].startswith("ctr: 0.1000, was 0.2000: more")
    assert of(found, CTR)["interval"][1] < -0.05 and of(found, CTR)["verdict"] == "drifted"
    more = findings("v", then, window, {CTR: clicks(0.3, 2000, 1)}, settings)
    assert more["verdict"] == "drifted" and not more["asks_full_run"]
    never = Drift(full_run_ctr_loss=None)
    assert not findings("v", then, window, {CTR: clicks(0.1, 2000, 1)}, never)["asks_full_run"]


def test_what_one_side_lacks_is_named() -> None:
    then = Reference(Window(0, 28), {CTR: clicks(0.2, 8000, 28)})
    found = findings("v", then, Window(28, 0), {}, Drift())
    assert found["days"] is None and found["quantities"] == [] and CTR in found["not_compared"]
    assert found["verdict"] == "unknown" and found["reason"] is None
