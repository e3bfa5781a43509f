"""The rules of the gate: whom they let in, how often they err, and what is told of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from recsys.evaluation.evidence import BETTER, NOT_WORSE, Evidence, Rule, told
from recsys.evaluation.gate import MIN_USERS, Verdict, beats

NUM_DRAWS, NUM_USERS, MARGIN = 300, 400, 0.02


def share_let_in(name: str, *, lost: float) -> float:
    """How often a rule lets in a challenger that truly loses a share of the champion's nDCG@10.

    Two of three questions are without a hit, and the two models differ on a third, as in a shop.
    """
    rng = np.random.default_rng(5)
    rule, users, let_in = Rule(name, "", MARGIN), np.arange(NUM_USERS), 0
    for draw in range(NUM_DRAWS):
        champion = rng.beta(2, 1, NUM_USERS) * (rng.random(NUM_USERS) < 0.33)
        differs = rng.random(NUM_USERS) < 0.33
        challenger = champion + differs * rng.normal(0, 0.04, NUM_USERS) - lost * 0.33 * 2 / 3
        verdict = beats(challenger, champion, users, 0.95, 200, draw)
        let_in += verdict.above(rule.bound(champion))
    return let_in / NUM_DRAWS


def test_a_refresh_that_is_as_good_goes_live() -> None:
    assert share_let_in(NOT_WORSE, lost=0.0) > 0.93
    # By the other rule it would wait for luck.
    assert share_let_in(BETTER, lost=0.0) < 0.06


def test_a_refresh_that_loses_more_than_the_margin_stays_out() -> None:
    """At the margin itself by the level of the interval: in 2.5 % of the cases at 95 %."""
    assert share_let_in(NOT_WORSE, lost=MARGIN) < 0.06
    assert share_let_in(NOT_WORSE, lost=1.5 * MARGIN) < 0.01


@pytest.mark.parametrize(
    ("name", "changed", "expected", "why"),
    [
        (None, [], NOT_WORSE, "a refresh"),
        (None, ["train.epochs", "model.dim"], BETTER, "changed: train.epochs, model.dim"),
        (BETTER, [], BETTER, "promote.rule is set"),
        (NOT_WORSE, ["train.epochs"], NOT_WORSE, "promote.rule is set"),
    ],
)
def test_the_rule_follows_the_recipe(
    name: str | None, changed: list[str], expected: str, why: str
) -> None:
    rule = Rule.of(name, MARGIN, changed)
    assert rule.name == expected and why in rule.why


def test_the_margin_is_a_share_of_the_champions_metric() -> None:
    champion = np.array([0.2, np.nan, 0.6])
    assert Rule(NOT_WORSE, "", 0.05).bound(champion) == pytest.approx(-0.02)
    assert Rule(BETTER, "", 0.05).bound(champion) == 0.0


FIRST = Evidence("b", MIN_USERS, 0.95, baseline="personal_frequency")
SECOND = replace(FIRST, champion="a", rule=Rule.of(None, MARGIN, []), bound=-0.004)


@pytest.mark.parametrize(
    ("evidence", "refusals"),
    [
        (FIRST, []),
        (replace(FIRST, over_baseline=Verdict(-0.01, -0.02, 0.001, 50)), []),
        (
            replace(FIRST, over_baseline=Verdict(-0.01, -0.02, -0.001, 50)),
            ["b is worse than personal_frequency, the best baseline, on ndcg@10: -0.01000 "
             "[-0.02000, -0.00100] at 95%"],
        ),
        (replace(FIRST, over_baseline=Verdict(-0.01, -0.02, -0.001, MIN_USERS - 1)), []),
        (SECOND, []),
        (replace(SECOND, over_champion=Verdict(0.0, -0.003, 0.003, 50)), []),
        (
            replace(SECOND, over_champion=Verdict(0.0, -0.005, 0.003, 50)),
            ["b may lose more than 2.0% of a's ndcg@10: +0.00000 [-0.00500, +0.00300] at 95%, not "
             "above -0.00400; by the rule not_worse (a refresh: the champion's recipe but for "
             "dates and places)"],
        ),
        (
            replace(SECOND, rule=Rule.of(None, MARGIN, ["model.dim"]), bound=0.0,
                    over_champion=Verdict(0.0, -0.003, 0.003, 50)),
            ["b does not beat a on ndcg@10: +0.00000 [-0.00300, +0.00300] at 95%, not above "
             "+0.00000; by the rule better (the recipe was changed: model.dim)"],
        ),
        (
            replace(SECOND, num_users=3, on="clicks", source="policy value", bound=-0.004,
                    over_champion=Verdict(0.0, -0.005, 0.003, 50)),
            ["b may lose more than 2.0% of a's clicks: +0.00000 [-0.00500, +0.00300] at 95%, not "
             "above -0.00400; by the rule not_worse (a refresh: the champion's recipe but for "
             "dates and places), policy value"],
        ),
        (
            replace(SECOND, on="clicks", source="ctr of two arms", doubts=("SRM", "too few")),
            ["b beside a on clicks is not judged, by ctr of two arms: SRM; too few"],
        ),
        (
            replace(SECOND, num_users=3),
            ["b beside a is not judged: 3 users have rows to compare, fewer than 20 prove nothing"],
        ),
    ],
)  # fmt: skip
def test_what_speaks_against_a_challenger(evidence: Evidence, refusals: list[str]) -> None:
    assert evidence.refusals == refusals
    noted = evidence.as_json()
    assert json.loads(json.dumps(noted, allow_nan=False)) == noted
    assert (noted["forced"], noted["refusals"]) == (bool(refusals), refusals)


def test_evidence_in_words() -> None:
    evidence = replace(
        SECOND, over_champion=Verdict(0.001, -0.003, 0.005, 50),
        over_baseline=Verdict(0.03, 0.02, 0.04, 50),
    )  # fmt: skip
    assert told(evidence.as_json()) == [
        "over a by the rule not_worse (a refresh: the champion's recipe but for dates and places): "
        "+0.0010 [-0.0030, +0.0050], asked for above -0.0040",
        "over personal_frequency, the best baseline: +0.0300 [+0.0200, +0.0400]",
    ]
    assert told(replace(FIRST, num_users=1, over_baseline=Verdict(0, 0, 0)).as_json()) == [
        "not judged: 1 user has rows to compare, fewer than 20 prove nothing"
    ]
    outcome = replace(evidence, on="clicks", source="ctr of the arms x and y").as_json()
    assert outcome["metric"] == "clicks" and outcome["source"] == "ctr of the arms x and y"
    assert "dates and places), ctr of the arms x and y: +0.0010" in told(outcome)[0]
    earlier = {name: value for name, value in evidence.as_json().items() if name != "source"}
    assert told(earlier) == told(evidence.as_json())
    assert told({}) == []
    assert told({"rule": "of a later release"}) == [
        "decided on evidence that this release cannot read"
    ]
    forced = replace(FIRST, over_baseline=Verdict(-0.01, -0.02, -0.001, 50)).as_json()
    assert told(forced)[1].startswith("forced, although b is worse than personal_frequency")
