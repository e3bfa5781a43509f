"""Gauges of drift: from `drift.json`, read anew each minute or when asked to."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

from drifting import stable_night
from monitoring import Tally

from recsys.drift.findings import DRIFT_FILE
from recsys.storage.outputs import write_json
from recsys.storage.shared import SharedFolder
from serve.observability.drift import DriftGauges


def test_gauges_are_what_the_file_says(tmp_path: Path) -> None:
    tally, found = Tally(), stable_night()
    gauges = DriftGauges(SharedFolder(tmp_path), tally)
    gauges.set()
    assert not tally.gauges, "nobody has checked yet"
    write_json(tmp_path / DRIFT_FILE, found)
    gauges.set()
    assert not tally.gauges, "it is looked at once a minute"
    gauges.look_again()
    gauges.set()
    by_name = {each["name"]: each for each in found["quantities"]}
    assert tally.gauges[("drift_psi", "price")] == by_name["price"]["psi"]
    assert tally.gauges[("drift_share", "ctr", "now")] == 0.2
    assert tally.gauges[("drift_share", "new_items", "then")] == by_name["new_items"]["reference"]
    promise = "clicks_per_promised_click"
    windows = [tally.gauges[("drift_share", promise, window)] for window in ("then", "now")]
    assert windows == [1.0, 0.98]
    assert {key[1] for key in tally.gauges if key[0] == "drift_verdict"} == by_name.keys()
    assert (
        tally.gauges[("drift_verdict", "ctr")] == 1 and not tally.gauges[("drift_asks_full_run",)]
    )
    checked = dt.datetime.fromisoformat(found["checked_at"])
    assert tally.gauges[("drift_check_timestamp_seconds",)] == checked.timestamp()


def test_a_broken_file_is_as_good_as_none(tmp_path: Path) -> None:
    """Whatever is wrong with it: an error would end the thread that reports all gauges."""
    found, path = stable_night(), tmp_path / DRIFT_FILE
    price = next(each for each in found["quantities"] if each["name"] == "price")
    broken: list[object] = [
        [], found | {"format": 9}, found | {"checked_at": "yesterday"}, found | {"quantities": [1]},
        *(
            found | {"quantities": [{**price, **wrong}]}
            for wrong in ({"verdict": "well"}, {"psi": "0.1"}, {"name": "mood"})
        ),
    ]  # fmt: skip
    for content in ("{", *map(json.dumps, broken)):
        path.write_text(content)
        tally = Tally()
        DriftGauges(SharedFolder(tmp_path), tally).set()
        assert not tally.gauges, content
