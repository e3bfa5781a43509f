"""What the gate said of a run's bundle, for its page: `decision.json`."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.run import Run
from recsys.reporting.page import write_page
from recsys.schema import Col
from recsys.storage.outputs import write_json
from recsys.storage.reading import read_json

FORMAT: Final = 1


def decided_on(run: Run) -> str | None:
    """The version that `decision.json` tells of; None: there is none.

    Raises:
        DataError: it is broken.
    """
    if not run.decision_file.is_file():
        return None
    found = read_json(
        run.decision_file, "remove it, and run `recsys promote` again", {"bundle": str}
    )
    return str(found["bundle"])


def note_decision(
    run: Run, bundle: str, evidence: dict[str, Any], *, promoted: bool,
    changes: dict[str, Any] | None,
) -> None:  # fmt: skip
    """Write `decision.json`, and the page anew.

    Args:
        run: whose bundle was the challenger.
        bundle: its version.
        evidence: that it was decided on, as the registry keeps it.
        promoted: whether the bundle is champion now.
        changes: what is other than the champion's, see docs/formats.md; None: not compared.
    """
    decision = {
        "format": FORMAT,
        "bundle": bundle,
        "promoted": promoted,
        "decided_at": f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "evidence": evidence,
        "changes": changes,
    }
    write_json(run.decision_file, decision)
    run.recipe.shared.hand_in(run.decision_file)
    write_page(run)


def changed_items(champion: Bundle, challenger: Bundle) -> dict[str, int]:
    """How many items the challenger has that the champion has not, and the other way round."""
    theirs, ours = (set(bundle.items[Col.item]) for bundle in (champion, challenger))
    return {"new": len(ours - theirs), "gone": len(theirs - ours), "both": len(ours & theirs)}
