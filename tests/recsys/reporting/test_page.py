"""The page is well-formed, says all that was found, and takes no text for markup."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import found
import pytest
from browser import DESK, PHONE, in_browser, look
from object_store import ObjectStore
from tiny import tiny_recipe

from recsys.artifacts.run import Run
from recsys.reporting.findings import Findings
from recsys.reporting.page import page, write_page

#: Elements without an end.
VOID = {"meta", "link", "br", "img", "input"}
#: File of the findings -> the section that is made of it.
MADE_OF = {
    "report": {"baselines", "slices", "diversity", "heads"}, "examples": {"people"},
    "decision": {"changes"}, "outcomes": {"outcomes", "scores"}, "policy_value": {"policy-value"},
    "drift": {"drift"}, "night": {"night"}, "prepared": {"data"},
}  # fmt: skip
ALL = {"training", *(name for names in MADE_OF.values() for name in names)}


class Seen(HTMLParser):
    """Sections, elements and text of a page; an element that does not end fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: set[str] = set()
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        assert not {name for name in given if name.startswith("on") or name == "src"}
        assert tag != "a" or str(given["href"]).startswith("#")
        if tag == "section":
            self.sections.add(str(given["id"]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data


def test_all_that_was_found_is_on_the_page() -> None:
    seen = Seen(page(found.everything()))
    assert seen.sections == ALL | {"absent"}
    for told in (
        "Yes: it is surely better than the champion", "The champion was b-old",
        "the best baseline, which has", "of 10 items are in",
        "train.learning_rate", "viewed", "popular with others", "✓",
        "Nothing is known of this user",
        "Click: happened to 5.00%", "item rate",
        "Classification report of m<1>", "Calibration; dashed: as promised",
        "No verdict on revenue: too little overlap", "A full run is asked for: event_mix",
        "Night of 2026-01-14", "a <b>warning</b>", "null_user_id", "trials.html",
        "broken.json: no <JSON> object",
    ):  # fmt: skip
        assert told in seen.text, told


def test_no_title_becomes_markup() -> None:
    text = page(found.everything())
    seen = Seen(text)
    assert not {"script", "img", "b", "i"} & set(seen.tags)
    for title in filter(None, found.TITLES):
        assert title.strip("\u202e") in seen.text
    assert "\u202e" not in text, "a mark that turns a line turns no other text"
    assert "{{ 7 * 7 }}" in seen.text, "a title is no template"
    assert "http://" not in text and "https://" not in text


@pytest.mark.parametrize("name", MADE_OF)
def test_a_file_that_is_not_there_leaves_its_sections_out_and_says_so(name: str) -> None:
    less = dataclasses.replace(found.everything(), **{name: {}})
    seen = Seen(page(less))
    assert ALL - seen.sections == MADE_OF[name]
    assert "recsys " in seen.text


def test_of_a_run_without_anything_there_is_a_page() -> None:
    seen = Seen(page(Findings("empty")))
    assert seen.sections == {"absent"}
    assert "Not known yet: nothing has been evaluated." in seen.text


def test_without_a_search_the_winners_curve_is_drawn() -> None:
    curve = [{"epoch": 1, "ndcg@10": 0.2, "loss": 3.0}, {"epoch": 2, "ndcg@10": 0.3, "loss": 2.0}]
    alone = dataclasses.replace(found.everything(), trials=None, winner={"curve": curve})
    assert "training" in Seen(page(alone)).sections


def older() -> list[tuple[str, dict[str, object]]]:
    """Files with one key less, and of an unlike kind, as another release may write them."""
    whole, files = found.everything(), list[tuple[str, dict[str, object]]]()
    for name in MADE_OF:
        content = getattr(whole, name)
        less = [{k: v for k, v in content.items() if k != key} for key in content]
        files += [
            (name, each) for each in (*less, dict.fromkeys(content, 7), dict.fromkeys(content))
        ]
    return files


@pytest.mark.parametrize(("name", "content"), older())
def test_a_file_of_another_release_costs_its_sections_at_most(
    name: str, content: dict[str, object]
) -> None:
    seen = Seen(page(dataclasses.replace(found.everything(), **{name: content})))
    touched = MADE_OF[name] | ({"changes", "people"} if name in ("decision", "examples") else set())
    assert ALL - seen.sections <= touched


def written(run: Run) -> None:
    """The files of all jobs, as they lie in a run's folder."""
    whole = found.everything()
    files = {
        run.report_file: whole.report, run.examples_file: whole.examples,
        run.decision_file: whole.decision, run.winner_file: whole.winner,
        run.root / "outcomes.json": whole.outcomes, run.root / "drift.json": whole.drift,
        run.root / "policy_value.json": whole.policy_value,
        run.root / "nightly" / "2026-01-13" / "night.json": {},
        run.root / "nightly" / "2026-01-14" / "night.json": whole.night,
        run.prepared_folder / "prepare.json": whole.prepared,
    }  # fmt: skip
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    assert whole.trials is not None
    whole.trials.write_parquet(run.trials_file)


def test_the_files_of_a_run_are_read(tmp_path: Path) -> None:
    run = Run.open(tiny_recipe(tmp_path))
    written(run)
    assert Seen(write_page(run).read_text()).sections == ALL


def test_files_of_another_bundle_are_not_told_of_this_one(tmp_path: Path) -> None:
    run = Run.open(tiny_recipe(tmp_path))
    written(run)
    run.report_file.write_text(json.dumps(found.report() | {"bundle": "b-newer"}))
    seen = Seen(write_page(run).read_text())
    assert {"changes", "people"}.isdisjoint(seen.sections)
    assert "Not decided yet" in seen.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    run = Run.open(tiny_recipe(tmp_path))
    written(run)
    broken = (run.report_file, run.trials_file, run.prepared_folder / "prepare.json",
              run.root / "drift.json")  # fmt: skip
    for path in broken:
        path.write_bytes(content)
    seen = Seen(write_page(run).read_text())
    assert all(f"{path.name}: " in seen.text for path in broken)


def test_a_run_in_a_store_has_its_page_there(tmp_path: Path, store: ObjectStore) -> None:
    cache = {"storage": {"cache_dir": str(tmp_path / "cache")}}
    run = Run.open(tiny_recipe(tmp_path, run_dir=f"{store.uri}/run", **cache))
    run.root.mkdir(parents=True, exist_ok=True)
    run.report_file.write_text(json.dumps(found.report()))
    run.recipe.shared.hand_in(run.report_file)
    run.report_file.unlink()
    write_page(run)
    run.page_file.unlink()
    run.recipe.shared.bring_files([run.page_file])
    assert "baselines" in Seen(run.page_file.read_text()).sections


@in_browser
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_in_a_browser(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(found.everything()), encoding="utf-8")
    seen = look(
        path.as_uri(), tmp_path / "profile", size,
        "document.documentElement.scrollWidth",
        "document.querySelector('header').getBoundingClientRect().bottom",
        "[...document.querySelectorAll('h1, dd')].map(each => each.innerText).join(' ')",
        "console.log('heard')",
    )  # fmt: skip
    assert seen.said == ["heard"], "the page's own console is silent"
    assert seen.asked == [path.as_uri()], "it asks for nothing else"
    width, bottom, first, *_ = seen.found
    assert width <= size[0], "nothing stands out to the right"
    assert bottom <= size[1], "the verdict is on the first screen"
    for told in ("surely better", "+0.0200", "95% interval", "recsys serve"):
        assert told in first
    assert seen.picture.startswith(b"\x89PNG")
