"""Logged lists -> `policy_value.json`: what a bundle would have earned on them.

python -m ray_jobs.policy_value runs/other/bundle --config recipes/demo.yaml --temperature 0.5
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray_jobs.common.judged_lists import (
    exploring_policy,
    judge_lists,
    logged_lists,
    policy_of,
)
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.lineage import check_unseen, named_bundle
from recsys.artifacts.registry import CHAMPION
from recsys.artifacts.run import Run
from recsys.config import Recipe, with_settings
from recsys.errors import RecipeError
from recsys.outcomes.policy.logged import OUTCOMES
from recsys.outcomes.policy.values import DEFAULT, as_json
from recsys.ranking.chances import Policy
from recsys.reporting.page import write_page
from recsys.schema import Col
from recsys.storage.outputs import write_json
from recsys.storage.reading import read_json

FILE = "policy_value.json"
FORMAT = 1
_NAME = "judged"
#: In the order of the table.
_FIRST_PLACE = ("logged", "ips", "snips", "doubly_robust", "switch_doubly_robust")
#: What `policy_value.json` calls what becomes of a list -> in words.
_LEFT_OUT = {
    "not_drawn": "of arms that do not explore",
    "session": "answered to a session, whose events are not logged",
    "incomplete": "with a place or a propensity that is not known",
    "not_listed": "told by the shop, without a propensity",
    "before_window": "before the test window, which the model has learned from",
    "after_log": "after the last event that is prepared: run `recsys prepare` again",
}


def plan(run: Run, **options: Any) -> list[str]:
    """What a run would do.

    Raises:
        DataError: nothing is prepared, there are no exposures, or the bundle has learned from them.
        RecipeError: the options contradict each other.
    """
    bundle, policy = _asked(run, verify=False, **options)
    lists = logged_lists(run)
    return [
        f"judge {bundle.version}, {policy}, on the lists of {len(lists.days):,} days in "
        f"{lists.folder} shown from {_date(lists.since_us)} to {_date(lists.until_us)}",
        f"write {run.root / FILE}",
    ]


def execute(run: Run, **options: Any) -> Path:
    """Estimate what a bundle would have earned.

    Args:
        run: with prepared data and exposures.
        options: `bundle`, `arm`, `exploration`, `epsilon` and `temperature` of the command line.

    Raises:
        DataError: see `plan`.
        NotJudged: no list can be judged.
        RecipeError: the options contradict each other.
    """
    bundle, policy = _asked(run, verify=True, **options)
    lists, path = logged_lists(run), run.root / FILE
    judged, survey = judge_lists(run, lists, {_NAME: (bundle, policy)})
    write_json(
        path,
        {
            "format": FORMAT,
            "bundle": bundle.version,
            "policy": str(policy),
            "window": [_date(lists.since_us), _date(lists.until_us)],
            "places": int(judged[Col.propensity].list.len().max() or 0),  # type: ignore[arg-type]
            "lists": judged.height,
            "users": judged[Col.user].n_unique(),
            "lists_of_newcomers": int((~judged["known"]).sum()),
            "left_out": {why: survey.counts.get(why, 0) for why in _LEFT_OUT},
            "default": DEFAULT,
            "outcomes": as_json(judged, _NAME),
        },
    )
    run.recipe.shared.hand_in(path)
    write_page(run)
    return path


def report(run: Run) -> list[str]:
    """The estimates as tables."""
    kinds = {"outcomes": dict, "left_out": dict, "lists": int, "users": int, "bundle": str}
    found = read_json(run.root / FILE, "run `recsys policy-value` again", kinds)
    lines = [
        f"{found['bundle']}, {found['policy']}, on {found['lists']:,} lists of "
        f"{found['users']:,} users, first {found['places']} places",
        f"{found['lists_of_newcomers']:,} of them are of users of whom nothing was known before",
    ]
    for why, told in _LEFT_OUT.items():
        if number := found["left_out"][why]:
            lines.append(f"{number:,} left out: {told}")
    for name in OUTCOMES:
        lines += ["", *_table(name, found["outcomes"][name])]
    return [
        *lines,
        "",
        "cascade DR weighs a place by its item given those above, as propensities are logged;",
        "the estimators of single items hold for the first place, where that is the same",
    ]


def _asked(
    run: Run,
    *,
    verify: bool,
    bundle: str | None = None,
    arm: str | None = None,
    exploration: str | None = None,
    epsilon: float | None = None,
    temperature: float | None = None,
) -> tuple[Bundle, Policy]:
    """The bundle and the policy that are to be judged."""
    recipe, place = run.recipe, bundle
    told = {"exploration": exploration, "epsilon": epsilon, "temperature": temperature}
    told = {name: value for name, value in told.items() if value is not None}
    if arm is not None:
        named = next((each for each in recipe.serve.arms if each.name == arm), None)
        if named is None or told:
            names = ", ".join(each.name for each in recipe.serve.arms) or "the recipe has none"
            raise RecipeError(
                "names one arm of the recipe, and its way to answer", field="--arm", value=arm,
                fix=f"name one of serve.arms ({names}), without {', '.join(told) or 'more'}",
            )  # fmt: skip
        policy, place = policy_of(recipe, named), place or named.bundle or CHAMPION
    else:
        policy = _as_told(recipe, told) if told else exploring_policy(recipe)
    found = _bundle(run, place, verify)
    check_unseen(recipe, found)
    return found, policy


def _as_told(recipe: Recipe, told: dict[str, Any]) -> Policy:
    """The policy of some keys of an arm, checked as an arm's are."""
    ways = {"epsilon": "epsilon", "temperature": "plackett_luce"}
    way = next((way for name, way in ways.items() if name in told), "none")
    arms = [{"name": _NAME, "exploration": way, **told}]
    arm = with_settings(recipe, {"serve.arms": arms}).serve.arms[0]
    return Policy(arm.epsilon, arm.temperature)


def _bundle(run: Run, name: str | None, verify: bool) -> Bundle:
    """The run's bundle, or the one that is named."""
    return (
        run.bundle(verify=verify) if name is None else named_bundle(run.recipe, name, verify=verify)
    )


def _date(us: int) -> str:
    return f"{dt.datetime.fromtimestamp(us / 1e6, dt.UTC):%Y-%m-%d %H:%M}"


def _table(name: str, found: dict[str, Any]) -> list[str]:
    """Lines of equal columns: an estimator each, what was logged first."""
    if not found["logged"]["value"]:
        return [f"{name} per list: none came of these lists"]
    first = found["first_place"] | {"logged": found["first_place"]["logged"] | {"refusals": []}}
    rows: list[tuple[str, ...]] = [
        (f"{name} per list", "", "effective lists", "largest weight", "effective outcomes"),
        _row("as logged", found["logged"] | {"refusals": []}),
        _row("cascade DR", found[DEFAULT]),
        _row("less logged", found["difference"]),
        _row("RIPS", found["rips"]),
        *(_row(f"place 1, {each.replace('_', ' ')}", first[each]) for each in _FIRST_PLACE),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [*lines, *_refusals(found)]


def _row(name: str, told: dict[str, Any]) -> tuple[str, ...]:
    value = "-" if told["value"] is None else f"{told['value']:.4g}"
    low, high = ("?" if end is None else f"{end:.4g}" for end in told["interval"])
    return (
        name,
        f"{value} [{low}, {high}]" + (" refused" if told["refusals"] else ""),
        f"{told['effective_rows']:,.0f}",
        f"{told['largest_weight']:.1f}",
        f"{told['effective_outcomes']:,.0f}",
    )


def _refusals(found: dict[str, Any]) -> Iterator[str]:
    for why in found[DEFAULT]["refusals"]:
        yield f"  no verdict may rest on cascade DR: {why}"


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("policy-value")
