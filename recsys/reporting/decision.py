"""What the gate said of a run's bundle, for its page: `decision.json`."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.run import Run
from recsys.evaluation.evidence import Evidence
from recsys.reporting.page import write_page
from recsys.schema import Col
from recsys.storage.outputs import write_json

FORMAT: Final = 1


def note_decision(
    run: Run, evidence: Evidence, *, promoted: bool, changes: dict[str, Any] | None
) -> None:
    """Write `decision.json`, and the page anew.

    Args:
        run: whose bundle was the challenger.
        evidence: that it was decided on.
        promoted: whether the bundle is champion now.
        changes: what is other than the champion's, see docs/formats.md; None: not compared.
    """
    decision = {
        "format": FORMAT,
        "bundle": evidence.challenger,
        "promoted": promoted,
        "decided_at": f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "evidence": evidence.as_json(),
        "changes": changes,
    }
    write_json(run.decision_file, decision)
    run.recipe.shared.hand_in(run.decision_file)
    write_page(run)


def changed_items(champion: Bundle, challenger: Bundle) -> dict[str, int]:
    """How many items the challenger has that the champion has not, and the other way round."""
    theirs, ours = (set(bundle.items[Col.item]) for bundle in (champion, challenger))
    return {"new": len(ours - theirs), "gone": len(theirs - ours), "both": len(ours & theirs)}
