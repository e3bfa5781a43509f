"""Intervals of what is told cover the truth, from exposures that are counted to the estimates.

The lists are of few kinds, so that 1,000 logs of a known truth take seconds.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import polars as pl
from drawn_lists import GOES_ON

from recsys.outcomes.policy.judging import BELOW, EXPECTED, PREDICTED, TARGET, column
from recsys.outcomes.policy.logged import FOLDS, OUTCOMES, Rates
from recsys.outcomes.policy.values import over_logged
from recsys.ranking.chances import Policy
from recsys.schema import Col

NUM_LOGS, NUM_LISTS, NUM_USERS, ITEMS, PLACES = 1000, 400, 200, 4, 3
LISTS_PK = np.array(list(permutations(range(ITEMS), PLACES)))
SCORES = np.array([1.0, 0.5, 0.0, -0.5], dtype=np.float32)
LOGGED, JUDGED = Policy(temperature=1.0), Policy(temperature=0.6)
APPEAL = np.array([0.5, 0.1, 0.4, 0.3])


def test_intervals_cover_the_truth() -> None:
    every, alone = np.eye(ITEMS), pl.Series(["a", "b", "c", "d"]).to_numpy()
    logged, judged = (
        [policy.chances(SCORES, shown, every) for shown in LISTS_PK] for policy in (LOGGED, JUDGED)
    )
    drawn, ours = (np.array([each.shown.prod() for each in found]) for found in (logged, judged))
    appeal = APPEAL[LISTS_PK]
    looks = np.cumprod(1 - (1 - GOES_ON) * appeal, axis=1)
    looks = np.concatenate([np.ones_like(looks[:, :1]), looks[:, :-1]], axis=1)
    truth = float(ours @ (looks * appeal).sum(axis=1))
    shown_PK, target_PK = (np.array([c.shown for c in found]) for found in (logged, judged))
    means_PKI = np.array([each.expected for each in judged])
    rng, held, refused = np.random.default_rng(1), 0, 0
    for _ in range(NUM_LOGS):
        kind = rng.choice(len(LISTS_PK), NUM_LISTS, p=drawn)
        users = rng.integers(NUM_USERS, size=NUM_LISTS)
        # A reader who clicks mostly reads no further.
        clicks, looking = np.zeros((NUM_LISTS, PLACES)), np.ones(NUM_LISTS, dtype=bool)
        for place in range(PLACES):
            clicks[:, place] = looking & (rng.random(NUM_LISTS) < appeal[kind, place])
            looking &= (clicks[:, place] == 0) | (rng.random(NUM_LISTS) < GOES_ON)
        fold = users % FOLDS
        shown = pl.DataFrame(
            {
                "fold": np.repeat(fold, PLACES), Col.item: alone[LISTS_PK[kind].ravel()],
                Col.position: np.tile(np.arange(1, PLACES + 1), NUM_LISTS),
                "clicks": clicks.ravel(),
            }
        )  # fmt: skip
        others = (pl.lit(0.0).alias(name) for name in OUTCOMES if name != "clicks")
        totals = shown.group_by("fold", Col.item, Col.position).agg(
            pl.len().alias("shows"), pl.col("clicks").sum(), *others
        )
        rates = Rates.fit(totals, alone)
        of_place, of_item = rates.of_position[..., 0][fold], rates.of_item[..., 0][fold]
        first = np.einsum("i,li->l", means_PKI[0, 0], of_item)
        due = np.cumsum((of_place * first[:, None])[:, ::-1], axis=1)[:, ::-1]
        columns = {
            TARGET: target_PK[kind],
            PREDICTED: of_place * np.take_along_axis(of_item, LISTS_PK[kind], axis=1),
            EXPECTED: of_place * np.einsum("lki,li->lk", means_PKI[kind], of_item),
            BELOW: np.concatenate([due[:, 1:], np.zeros((NUM_LISTS, 1))], axis=1),
        }
        frame = pl.DataFrame(
            {
                Col.user: users, Col.propensity: shown_PK[kind].tolist(), "clicks": clicks.tolist(),
                **{
                    column("x", what, None if what == TARGET else "clicks"): values.tolist()
                    for what, values in columns.items()
                },
            }
        )  # fmt: skip
        found = over_logged(frame, "x", "clicks")
        held += found.value.low <= truth <= found.value.high
        refused += bool(found.refusals)
    assert 0.93 <= held / NUM_LOGS <= 0.97
    assert refused <= 0.01 * NUM_LOGS
