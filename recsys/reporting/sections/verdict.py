"""What stands on the first screen: is it better, by how much, how sure, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsys.evaluation.evidence import BETTER
from recsys.evaluation.gate import MIN_USERS, not_judged
from recsys.evaluation.report import METRIC, OURS
from recsys.reporting.blocks import number
from recsys.reporting.findings import Findings

#: What the metric is, for who has not met it.
METRIC_TOLD = (
    "nDCG@10 tells how high in a list of ten stands what a customer took next: 1 where it is "
    "always at the top, 0 where it is never in the list."
)


@dataclass(frozen=True)
class Verdict:
    """The first screen.

    Attributes:
        tone: `good`, `bad` or `open`.
        sentence: is it better.
        how_much: a line a comparison.
        how_sure: a line a comparison.
        to_do: what to do next.
        command: that does it; None: none is needed.
    """

    tone: str
    sentence: str
    how_much: list[str]
    how_sure: list[str]
    to_do: str
    command: str | None = None


def verdict(found: Findings) -> Verdict:
    """The verdict on the run's bundle."""
    if not found.report:
        return Verdict(
            "open", "Not known yet: nothing has been evaluated.", ["–"], ["–"],
            "Evaluate the bundle:", "recsys evaluate --config FILE",
        )  # fmt: skip
    evidence, ours = found.decision.get("evidence"), value_of(found.report, OURS)
    if evidence is None:
        gain, baseline = found.report["gain_over_best_baseline"], found.report["best_baseline"]
        beside = f"beside the best baseline, {baseline}, it is {judged(gain)}" if gain else (
            "it was evaluated without a baseline"
        )  # fmt: skip
        compared = [(f"{baseline}, the best baseline", gain)] if gain else []
        return Verdict(
            "open", f"Not decided yet: {beside}.", *_figures(compared, ours, 0.95),
            "Let the gate compare it with the champion:", "recsys promote --config FILE",
        )  # fmt: skip
    champion, over = evidence["champion"], evidence["over_champion"]
    on, compared = evidence["metric"], []
    if over and on == METRIC:
        compared.append(("the champion", over))
    if evidence["over_baseline"]:
        told = f"{evidence['baseline']}, the best baseline"
        compared.append((told, evidence["over_baseline"]))
    figures = _figures(compared, ours, evidence["confidence"])
    if over and on != METRIC:
        much, sure = _by_outcome(evidence)
        figures = [much, *figures[0]], [sure, *(figures[1] if compared else [])]
    if not found.decision["promoted"]:
        stays = "the champion goes on" if champion else "there is no champion"
        todo = f"Nothing has to be done: {stays}. The sections below tell where it falls short."
        return Verdict("bad", f"No: it stays out. {_refused(evidence)}", *figures, todo)
    serve = (
        "Serve it. A service that runs takes it by the command that it printed as `update`.",
        "recsys serve --config FILE",
    )
    if evidence["forced"]:
        sentence = f"It is the champion by force only. {_refused(evidence)}"
        return Verdict("bad", sentence, *figures, *serve)
    return Verdict(*_promoted(evidence), *figures, *serve)


def _promoted(evidence: dict[str, Any]) -> tuple[str, str]:
    """Tone and sentence of a bundle that the gate let through."""
    over = evidence["over_champion"]
    if over is None:
        beside = evidence["over_baseline"]
        told = f" Beside {evidence['baseline']}, the best baseline, it is {judged(beside)}."
        tone = "good" if beside and _surely_better(beside) else "open"
        return tone, "It is the first champion." + (told if beside else "")
    if _surely_better(over):
        return "good", "Yes: it is surely better than the champion, and has taken its place."
    return "good", (
        "It is as good as the champion, within the margin that the recipe allows, and has taken "
        "its place."
    )


def _refused(evidence: dict[str, Any]) -> str:
    """What spoke against a bundle, in a sentence."""
    beside, over = evidence["over_baseline"], evidence["over_champion"]
    if beside and beside["judged"] and beside["high"] < 0:
        return f"It is surely worse than {evidence['baseline']}, the best baseline."
    if evidence["metric"] != METRIC:
        return f"{'; '.join(evidence['refusals'])}."
    if over is None:
        few = not_judged(evidence["num_users"])
        why = few if evidence["num_users"] < MIN_USERS else "; ".join(evidence["refusals"])
        return f"It could not be compared with the champion: {why}."
    if evidence["rule"] == BETTER:
        return "It is not surely better than the champion, as a changed recipe must be."
    return "It may be worse than the champion by more than the recipe allows."


def _surely_better(found: dict[str, Any]) -> bool:
    return bool(found["judged"] and found["low"] > 0)


def judged(found: dict[str, Any] | None) -> str:
    """A paired difference in words."""
    if found is None or not found["judged"]:
        return "not judged: too few users"
    if found["low"] > 0:
        return "surely better"
    return "surely worse" if found["high"] < 0 else "not surely better or worse"


def _figures(
    compared: list[tuple[str, dict[str, Any]]], ours: float | None, confidence: float
) -> tuple[list[str], list[str]]:
    """By how much, and how sure: a line a comparison."""
    much, sure = [f"nDCG@10 is {number(ours)}."], []
    for name, found in compared:
        difference = found["difference"]
        if difference is None:
            continue
        base = None if ours is None else ours - difference
        share = f" ({difference / base:+.1%})" if base else ""
        much.append(f"{difference:+.4f}{share} beside {name}, which has {number(base)}.")
        if found["judged"]:
            sure.append(
                f"Beside {name}: {judged(found)}. The {confidence:.0%} interval of the difference "
                f"is {found['low']:+.4f} to {found['high']:+.4f}, by {found['num_users']:,} users."
            )
        else:
            sure.append(f"Beside {name}: {not_judged(found['num_users'])}.")
    return much, sure or ["Nothing was compared."]


def _by_outcome(evidence: dict[str, Any]) -> tuple[str, str]:
    """By how much and how sure, where what came of lists has decided."""
    over = evidence["over_champion"]
    by = f", by {evidence['source']}" if evidence.get("source") else ""
    if over["difference"] is None or not over["judged"]:
        return f"{evidence['metric']} beside the champion{by}: not judged.", "Not judged."
    return (
        f"{over['difference']:+.4g} {evidence['metric']} beside the champion{by}.",
        f"Beside the champion: {judged(over)}. The {evidence['confidence']:.0%} "
        f"interval is {over['low']:+.4g} to {over['high']:+.4g}, by {over['num_users']:,} users.",
    )


def value_of(
    report: dict[str, Any], model: str, slice_: str = "all", metric: str = METRIC
) -> float | None:
    """A figure of the report, None where there is none."""
    for row in report["rows"]:
        if (row["model"], row["slice"], row["metric"]) == (model, slice_, metric):
            return float(row["value"])
    return None
