"""Reference and window -> `drift.json`: every quantity then and now, and what to do about it.

The interval decides, never the figure alone: of little data a large index says little.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, Final

from recsys.artifacts.run import Run
from recsys.config import Drift
from recsys.drift.change import change
from recsys.drift.counts import Counts
from recsys.drift.measuring import Window, days_of
from recsys.drift.psi import psi
from recsys.drift.quantities import CTR, PROMISED, QUANTITIES, Quantity, labels_of
from recsys.drift.reference import Reference
from recsys.errors import DataError
from recsys.evaluation.metrics.ratio import MIN_OUTCOMES, Ratio
from recsys.evaluation.report import finite
from recsys.storage.reading import read_json, reading

FORMAT: Final = 1
DRIFT_FILE: Final = "drift.json"
#: Of least weight first; `unknown` where there are too few users.
VERDICTS: Final = ("unknown", "stable", "moderate", "drifted")
#: What surely lies above counts as moderate, and as drifted: of the PSI (Siddiqi, Credit Risk
#: Scorecards, 2006), and of a share's change as a part of the share.
MODERATE, DRIFTED = 0.1, 0.25
#: With fewer the intervals were not tried, see `tests/recsys/drift`.
MIN_USERS: Final = 50
_FIX: Final = "run `recsys drift` again"


def findings(
    version: str,
    reference: Reference,
    window: Window,
    now: dict[str, Counts],
    settings: Drift,
    promised: Ratio | None = None,
) -> dict[str, Any]:
    """What has drifted, as plain data; docs/formats.md lists it.

    Args:
        version: of the bundle that has the reference.
        reference: then.
        window: the days of `now`.
        now: by name of `QUANTITIES`.
        settings: when a full run is asked for.
        promised: clicks per promised click; None: nothing was promised.
    """
    names = [name for name in QUANTITIES if name in reference.counts and name in now]
    quantities = [_compared(name, reference, now[name]) for name in names]
    if promised is not None:
        names.append(PROMISED)
        quantities.append(_kept(promised))
    found = {each["verdict"] for each in quantities}
    reasons = [reason for each in quantities if (reason := _asks(each, settings))]
    return {
        "format": FORMAT,
        "checked_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "bundle": version,
        "reference_days": _ends(reference.window),
        "days": _ends(window) if window.days else None,
        "quantities": quantities,
        "not_compared": [name for name in QUANTITIES if name not in names],
        "verdict": max(found or {VERDICTS[0]}, key=VERDICTS.index),
        "asks_full_run": bool(reasons),
        "reason": "; ".join(reasons) or None,
    }


def read_findings(path: Path) -> dict[str, Any]:
    """A `drift.json`.

    Raises:
        DataError: it is missing or broken.
    """
    kinds = {
        "format": int, "checked_at": str, "bundle": str, "quantities": list, "not_compared": list,
        "verdict": str, "asks_full_run": bool,
    }  # fmt: skip
    found = read_json(path, _FIX, kinds)
    if found["format"] != FORMAT:
        raise DataError(
            f"this release reads format {FORMAT}", where=path, field="format",
            value=found["format"], fix=_FIX,
        )  # fmt: skip
    with reading(path, _FIX):
        dt.datetime.fromisoformat(found["checked_at"])
        for told in found["quantities"]:
            has_bins = QUANTITIES[told["name"]].kind == "distribution"
            figures = ("psi", "by_chance") if has_bins else ("reference", "now")
            known = [told[name] for name in figures if told[name] is not None]
            if told["verdict"] not in VERDICTS or not all(type(each) is float for each in known):
                raise ValueError(f"`{told['name']}` is none of ours")
    return found


def asks_full_run(run: Run) -> str | None:
    """Why the last `recsys drift` of a run asks for a full run; None: it does not.

    Raises:
        DataError: `drift.json` is missing or broken.
    """
    path = run.root / DRIFT_FILE
    run.recipe.shared.bring_files([path])
    found = read_findings(path)
    return str(found["reason"]) if found["asks_full_run"] else None


def _compared(name: str, reference: Reference, now: Counts) -> dict[str, Any]:
    quantity, then = QUANTITIES[name], reference.counts[name]
    told = _told(name, quantity) | {
        "rows": [int(then.num_rows), int(now.num_rows)],
        "users": [then.num_users, now.num_users],
    }
    enough = min(then.num_users, now.num_users) >= MIN_USERS
    if quantity.kind == "share":
        told |= {"reference": _share(then), "now": _share(now)}
        if enough:
            found = change(then, now)
            told |= {"interval": [found.low, found.high], "verdict": _verdict(abs(found.surely))}
        return told
    told |= {
        "labels": list(labels_of(name, reference.bins)),
        "reference": _shares(then), "now": _shares(now), "psi": None, "by_chance": None,
    }  # fmt: skip
    if enough:
        index = psi(then, now)
        told |= {
            "psi": index.value, "by_chance": index.by_chance, "interval": [index.low, index.high],
            "verdict": _verdict(index.low),
        }  # fmt: skip
    return told


def _kept(promised: Ratio) -> dict[str, Any]:
    """Clicks per promised click beside 1."""
    told = _told(PROMISED, QUANTITIES[PROMISED]) | {
        "rows": None, "users": [None, promised.num_users],
        "reference": 1.0, "now": finite(promised.value),
    }  # fmt: skip
    if promised.num_users >= MIN_USERS and promised.effective_outcomes >= MIN_OUTCOMES:
        low, high = (end - 1 for end in promised.interval())
        nearer = max(low, 0.0) + min(high, 0.0)
        told |= {"interval": [low, high], "verdict": _verdict(abs(nearer))}
    return told


def _told(name: str, quantity: Quantity) -> dict[str, Any]:
    return {
        "name": name, "kind": quantity.kind, "unit": quantity.unit, "text": quantity.text,
        "verdict": "unknown", "interval": None,
    }  # fmt: skip


def _asks(told: dict[str, Any], settings: Drift) -> str | None:
    """Why a quantity asks for a full run."""
    if told["interval"] is None:
        return None
    low, high = told["interval"]
    if told["kind"] == "distribution":
        limit = settings.full_run_psi
        if limit is None or low < limit:
            return None
        return f"{told['name']}: PSI {told['psi']:.3f} [{low:.3f}, {high:.3f}], above {limit:g}"
    limit = settings.full_run_ctr_loss
    if told["name"] != CTR or limit is None or high > -limit * told["reference"]:
        return None
    return f"ctr: {told['now']:.4f}, was {told['reference']:.4f}: more than {limit:.0%} are lost"


def _verdict(size: float) -> str:
    return "drifted" if size >= DRIFTED else "moderate" if size >= MODERATE else "stable"


def _shares(counts: Counts) -> list[float]:
    return [float(each) for each in counts.values / max(counts.num_rows, 1)]


def _share(counts: Counts) -> float | None:
    return float(counts.values[1] / counts.num_rows) if counts.num_rows else None


def _ends(window: Window) -> list[str]:
    days = days_of(window)
    return [days[0], days[-1]]
