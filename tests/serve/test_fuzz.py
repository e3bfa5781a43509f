"""Fuzz of the whole HTTP application: cases made from its own OpenAPI document.

`make fuzz` makes more than 5,000 cases; the tests take a fixed sample of them.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from bundles import SOLD_OUT, item_id
from fuzzed_application import KEY, application, complaints, with_keys
from schemathesis.engine import events as told
from schemathesis.engine import from_schema
from starlette.types import ASGIApp

from serve.access.key_file import own_key

pytestmark = pytest.mark.slow

#: Random cases of each operation; what its limits give comes on top.
NUM_RANDOM = int(os.environ.get("RAYCOMMEND_FUZZ_CASES", "30"))
#: Kinds of refusals that a JSON schema cannot predict: they depend on the recipe, the catalogue,
#: the clock, or several fields. The document says them in words.
BEYOND_A_SCHEMA = {
    "context", "event_id", "event_type", "future", "history", "objective", "price_range",
    "repeated", "text", "timestamp", "too_large", "too_many", "unknown_item",
}  # fmt: skip
#: Without these a random request would hardly ever get past the names.
NAMES = {
    "events": ["view", "click", "purchase", "buy", "ping"],
    "items": [item_id(0), item_id(7), item_id(123), SOLD_OUT, "gone"],
}
PLACES = {
    "body.event_type": "events",
    "body.events[*].event_type": "events",
    "body.history[*].event_type": "events",
    "body.item_id": "items",
    "body.events[*].item_id": "items",
    "body.history[*].item_id": "items",
    "body.exclude[*]": "items",
    "body.candidates[*]": "items",
}


@dataclass
class Fuzzed:
    """What a run of Schemathesis told."""

    cases: int = 0
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def fuzz(app: ASGIApp, headers: dict[str, str], *, limits: bool) -> Fuzzed:
    """All operations of the document, with all of Schemathesis's checks and ours.

    Args:
        app: the application.
        headers: sent with every request.
        limits: also what lies at and past each limit of the document, and methods it lacks.
    """
    document = schemathesis.openapi.from_asgi(
        "/openapi.json", app, config=settings(headers, limits)
    )
    found = Fuzzed()
    for event in from_schema(document).execute():
        assert not isinstance(event, told.NonFatalError | told.FatalError), event
        if isinstance(event, told.ScenarioFinished):
            judge(event.recorder, found)
    print(f"\n{found.cases} cases", *sorted(found.statuses.items()), sep="\n  ")
    return found


def settings(headers: dict[str, str], limits: bool) -> schemathesis.Config:
    """Seeded; invalid data may be refused with any status that the document names."""
    return schemathesis.Config.from_dict(
        {
            "seed": 1,
            "headers": headers,
            "continue-on-failure": True,
            "cache": {"enabled": False},  # what an earlier run met must not steer this one
            "generation": {
                "mode": "all", "deterministic": True, "max-examples": NUM_RANDOM,
                "database": "none",
            },
            "phases": {"coverage": {"enabled": limits}},
            "checks": {
                "negative_data_rejection": {
                    "expected-statuses": [400, 401, 403, 405, 413, 415, 422]
                },
                "positive_data_acceptance": {"enabled": False},  # see `BEYOND_A_SCHEMA`
            },
            "dictionaries": {name: {"values": values} for name, values in NAMES.items()},
            "parameters": {
                place: {"dictionary": name, "probability": 0.8} for place, name in PLACES.items()
            },
        }
    )  # fmt: skip


def judge(recorder: Any, found: Fuzzed) -> None:
    for case_id, node in recorder.cases.items():
        case, found.cases = node.value, found.cases + 1
        answer = recorder.interactions[case_id].response
        found.statuses[case.operation.label, answer.status_code] += 1
        problems = [
            f"{check.name}: {check.failure_info.failure}"
            for check in recorder.checks.get(case_id, [])
            if check.failure_info is not None
            and not (check.name == "negative_data_rejection" and refuses_by_itself(answer))
        ]
        problems += complaints(answer.status_code, answer.headers, answer.content)
        is_valid = case.meta is not None and not case.meta.generation.mode.is_negative
        if is_valid and answer.status_code == 422:
            kinds = {problem["type"] for problem in answer.json()["detail"]}
            if not kinds <= BEYOND_A_SCHEMA:
                problems.append(f"valid by the document, refused for {kinds - BEYOND_A_SCHEMA}")
        request = recorder.interactions[case_id].request
        found.failures += [
            f"{case.method} {case.path} {request.body!r:.300}: {problem}" for problem in problems
        ]


def refuses_by_itself(answer: Any) -> bool:
    """Whether some of several events are refused, and the others are not."""
    return answer.status_code == 200 and answer.json().get("refused", 0) > 0


# An application of its own each: at the end of a run Schemathesis ends it, as a server would.


def test_no_case_of_the_document_breaks_the_service(
    tmp_path: Path, language_model: Path, bundle: Path
) -> None:
    found = fuzz(application(tmp_path, language_model, bundle), {}, limits=True)
    assert not found.failures, "\n".join(found.failures[:20])
    assert found.cases > 500
    answered = {label for label, status in found.statuses if status == 200}
    assert answered == {
        "POST /recommend", "POST /rank", "POST /events", "POST /items", "DELETE /items/{item_id}",
        "GET /items/{item_id}", "DELETE /users/{user_id}", "POST /users/erase", "GET /healthz",
        "GET /readyz", "GET /model",
    }  # fmt: skip


def test_nor_with_keys(tmp_path: Path, language_model: Path, bundle: Path) -> None:
    headers = {"Authorization": f"Bearer {own_key(KEY.encode())}"}
    app = with_keys(tmp_path, language_model, bundle)
    found = fuzz(app, headers, limits=NUM_RANDOM >= 1000)
    assert not found.failures, "\n".join(found.failures[:20])
    assert {status for _, status in found.statuses} >= {200, 401, 422}
    assert ("POST /users/token", 200) in found.statuses
