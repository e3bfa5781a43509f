"""The table of a search's epochs, and the page that shows it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_recipe import changed

from recsys.artifacts.trials import read_trials, trials_frame, write_trials
from recsys.config import recipe_from_dict
from recsys.errors import DataError
from recsys.evaluation.report import METRIC
from recsys.reporting.trials_page import write_page

SPACE = {
    "train.learning_rate": {"loguniform": [0.001, 0.1]},
    "train.optimizer": {"choice": ["adamw", "sgd"]},
    "model.num_layers": {"int": [1, 3]},
}


def trial(name: str, rate: float, values: list[float], **told: Any) -> dict[str, Any]:
    """A trial as the search tells of it."""
    settings = {
        "train.learning_rate": rate, "train.optimizer": "sgd", "model.num_layers": 2,
    }  # fmt: skip
    curve = [
        {"epoch": number, METRIC: value, "loss": 1.0, "train_s": 2.0, "valid_s": 0.5, "step": 3}
        for number, value in enumerate(values, start=1)
    ]
    return {
        "trial": name, "status": "finished", "reason": None, "settings": settings, "curve": curve,
        **told,
    }  # fmt: skip


TRIALS = [
    trial("trial-a", 0.01, [0.1, 0.3]),
    trial("trial-b", 0.1, [0.2], status="stopped", reason="stopped by asha after epoch 1"),
    trial("trial-c", 0.05, [], status="failed", reason="<b>diverged</b>"),
]


def test_a_row_a_trial_and_epoch(tmp_path: Path) -> None:
    path = tmp_path / "trials.parquet"
    write_trials(path, TRIALS)
    table = read_trials(path)
    assert table.select("trial", "epoch", METRIC, "seconds", "train.learning_rate").rows() == [
        ("trial-a", 1, 0.1, 2.5, 0.01),
        ("trial-a", 2, 0.3, 5.0, 0.01),
        ("trial-b", 1, 0.2, 2.5, 0.1),
        ("trial-c", None, None, 0.0, 0.05),
    ]
    assert table["status"].to_list() == ["finished", "finished", "stopped", "failed"]
    assert table["reason"].to_list() == [None, None, *(each["reason"] for each in TRIALS[1:])]


def test_settings_keep_their_types_and_mixed_ones_are_text() -> None:
    one, two = trial("a", 1.0, [0.1]), trial("b", 1.0, [0.1])
    one["settings"] |= {"model.side_features": True, "train.fresh_texts_per_step": None, "x": 1}
    two["settings"] |= {"model.side_features": False, "train.fresh_texts_per_step": 8, "x": "y"}
    table = trials_frame([one, two])
    assert table.schema["model.side_features"] == pl.Boolean
    assert table["train.fresh_texts_per_step"].to_list() == [None, 8]
    assert table["x"].to_list() == ["1", "y"]


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trials.parquet"
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match=str(path)):
        read_trials(path)


class Links(HTMLParser):
    """What a page would fetch, its text, and its scripts' lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text = ""
        self.is_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.is_script = tag == "script"
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self.is_script = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self.is_script else data


def test_the_page_shows_all_trials_and_fetches_nothing(tmp_path: Path) -> None:
    recipe = recipe_from_dict(changed("tune.space", SPACE))
    path = tmp_path / "trials.html"
    write_page(path, recipe, trials_frame(TRIALS))
    text = path.read_text(encoding="utf-8")
    page = Links()
    page.feed(text)
    assert page.fetched == []
    assert "<b>diverged</b>" not in text and "<b>diverged</b>" in page.text
    for each in TRIALS:
        assert str(each["trial"]) in page.text
    # The script once, a plot of each kind, and the axis of the log-uniform range in powers of ten.
    assert 3e6 < len(text) < 8e6
    assert '"type":"parcoords"' in text and '"type":"scatter"' in text
    assert re.search(r'"ticktext":\["0.01","0.1"\]', text)


def test_the_page_of_a_search_whose_trials_all_failed(tmp_path: Path) -> None:
    recipe = recipe_from_dict(changed("tune.space", SPACE))
    write_page(tmp_path / "trials.html", recipe, trials_frame(TRIALS[2:]))
    assert "trial-c" in (tmp_path / "trials.html").read_text(encoding="utf-8")
