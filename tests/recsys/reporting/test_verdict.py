"""The first screen says what the gate decided, and no more than is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import found
import pytest
from found import BETTER, EVEN, UNSURE, WORSE

from recsys.reporting.sections.verdict import Verdict, verdict


def told(decision: dict[str, Any], **more: Any) -> Verdict:
    return verdict(dataclasses.replace(found.everything(), decision=decision, **more))


@pytest.mark.parametrize(
    ("decision", "tone", "sentence"),
    [
        (found.decision(BETTER), "good", "Yes: it is surely better than the champion, and has"),
        (found.decision(EVEN, rule="not_worse"), "good", "It is as good as the champion, within"),
        (found.decision(None), "good", "It is the first champion. Beside item_knn, the best"),
        (found.decision(None, EVEN), "open", "It is the first champion. Beside item_knn, the best"),
        (found.decision(None, None), "open", "It is the first champion."),
        (found.decision(EVEN, promoted=False), "bad", "No: it stays out. It is not surely better"),
        (
            found.decision(WORSE, promoted=False, rule="not_worse"), "bad",
            "No: it stays out. It may be worse than the champion by more than the recipe allows",
        ),
        (found.decision(BETTER, WORSE, promoted=False), "bad", "It is surely worse than item_knn"),
        (found.decision(WORSE), "bad", "It is the champion by force only. It is not surely better"),
    ],
)  # fmt: skip
def test_the_gates_decision_in_a_sentence(
    decision: dict[str, Any], tone: str, sentence: str
) -> None:
    found_ = told(decision)
    assert sentence in found_.sentence and found_.tone == tone


def test_by_how_much_and_how_sure() -> None:
    report = found.report()
    row = next(row for row in report["rows"] if row["metric"] == "ndcg@10")
    row["value"] = 0.22
    said = told(found.decision(BETTER, EVEN), report=report)
    assert said.how_much[1] == ("+0.0200 (+10.0%) beside the champion, which has 0.2000.")
    assert (
        "surely better. The 95% interval of the difference is +0.0100 to +0.0300, by 900"
        in (said.how_sure[0])
    )
    assert "not surely better or worse" in said.how_sure[1]
    assert said.command == "recsys serve --config FILE"


def test_too_few_users_are_told_and_not_judged() -> None:
    decision = found.decision(UNSURE, UNSURE, promoted=False, num_users=3)
    decision["evidence"]["over_champion"] = None
    said = told(decision)
    assert "could not be compared with the champion: not judged: 3 users" in said.sentence
    assert said.how_sure[0].endswith("fewer than 20 prove nothing.")


def test_where_outcomes_decided_their_own_figures_are_told() -> None:
    decision = found.decision(BETTER, EVEN)
    decision["evidence"] |= {"metric": "ctr", "source": "the arms new and old"}
    said = told(decision)
    assert said.how_much[0] == "+0.02 ctr beside the champion, by the arms new and old."
    assert "+0.01 to +0.03, by 900 users" in said.how_sure[0]
    decision = found.decision(BETTER, EVEN, promoted=False)
    decision["evidence"] |= {"over_champion": None, "refusals": ["not judged, by the arms"]}
    assert "the champion: not judged, by the arms." in told(decision).sentence


def test_before_the_gate_the_best_baseline_is_beside_it() -> None:
    said = told({})
    assert said.sentence == (
        "Not decided yet: beside the best baseline, item_knn, it is surely better."
    )
    assert said.command == "recsys promote --config FILE"
    assert "without a baseline" in told({}, report=found.report(None)).sentence
