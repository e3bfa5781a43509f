"""`report.html`: what the files of a run say, for people; it fetches nothing and runs no script."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from recsys.artifacts.run import Run
from recsys.reporting.blocks import Block, Folded, Section, Table
from recsys.reporting.findings import Findings
from recsys.reporting.sections import (
    changes,
    data,
    drift,
    heads,
    night,
    outcomes,
    people,
    policy_value,
    ranking,
    scores,
    training,
)
from recsys.reporting.sections.verdict import Verdict, verdict
from recsys.storage.outputs import whole_file
from recsys.storage.reading import BROKEN

#: In the order of the page.
SECTIONS: Final[Sequence[Callable[[Findings], Section]]] = (
    changes.section, ranking.baselines, ranking.slices, people.section, outcomes.section,
    heads.section, scores.section, policy_value.section, ranking.diversity, drift.section,
    night.section, training.section, data.section,
)  # fmt: skip
#: What a file of another release is missing, or has otherwise.
_OTHER_FORMAT: Final = "its file is of another release, which this one cannot read"


def write_page(run: Run) -> Path:
    """Write the page of a run anew from the files that are there, whole or not at all."""
    text = page(Findings.of(run))
    with whole_file(run.page_file) as aside:
        aside.write_text(text, encoding="utf-8")
    run.recipe.shared.hand_in(run.page_file)
    return run.page_file


def page(found: Findings) -> str:
    """The page as HTML."""
    sections = [_tried(section, found) for section in SECTIONS]
    try:
        first = verdict(found)
    except BROKEN:
        first = Verdict("open", f"Not known: {_OTHER_FORMAT}.", [], [], "Evaluate again:",
                        "recsys evaluate --config FILE")  # fmt: skip
    return _template().render(
        found=found,
        verdict=first,
        sections=[section for section in sections if section.absent is None],
        absent=[section for section in sections if section.absent is not None],
        written=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
        bundle=found.report.get("bundle", ""),
    )


def _tried(section: Callable[[Findings], Section], found: Findings) -> Section:
    """A section, or the reason why there is none."""
    try:
        return section(found)
    except BROKEN:
        name = f"{section.__module__.rpartition('.')[2]}-{section.__name__}"
        title = name.replace("-section", "").replace("-", ": ").capitalize()
        return Section(name, title, absent=_OTHER_FORMAT)


@cache
def _template() -> Template:
    """The template; all that is put into it is escaped, and of text `code` is set apart."""
    environment = Environment(
        loader=PackageLoader("recsys.reporting"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["coded"] = _coded
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.tests["folded"] = lambda block: isinstance(block, Folded)
    environment.tests["markup"] = _is_markup
    return environment.get_template("page.html")


def _is_markup(block: Block) -> bool:
    return isinstance(block, Markup)


def _coded(text: str) -> Markup:
    """Escape a text and set what stands in backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return Markup().join([text])
    return Markup().join(
        Markup("<code>{}</code>").format(part) if place % 2 else part
        for place, part in enumerate(parts)
    )
