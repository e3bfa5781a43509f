"""A night's state on disk, and its stages: a real fault at each, and the next attempt goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recsys.errors import DataError
from recsys.nightly import Night, Nights, NothingToDo, Stage, go_through
from recsys.storage.location import Location
from recsys.storage.node_cache import NodeCache
from recsys.storage.shared import SharedFolder

NAMES = ("first", "second", "third")


@dataclass
class Shop:
    """What the stages work on: each reads the file that the one before it wrote."""

    folder: Path
    clusters: list[str] = field(default_factory=list)

    @contextmanager
    def cluster(self) -> Iterator[None]:
        self.clusters.append("up")
        try:
            yield
        finally:
            self.clusters.append("down")


def copies(name: str, before: str, *, on_ray: bool = False) -> Stage[Shop]:
    def work(shop: Shop, night: Night) -> list[str]:
        text = (shop.folder / before).read_text()
        with (shop.folder / name).open("a") as file:
            file.write(f"{text}{name} ")
        return [f"wrote {name}"]

    return Stage(name, work, on_ray)


STAGES = [
    copies("first", "log"), copies("second", "first", on_ray=True),
    copies("third", "second", on_ray=True),
]  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    (tmp_path / "log").write_text("log ")
    return Shop(tmp_path)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(SharedFolder(tmp_path / "run"))


def night(day: str = "2026-11-30") -> Night:
    return Night(day, "abc", f"{day}T02:00:00+00:00")


def go(shop: Shop, nights: Nights, this: Night) -> None:
    go_through(STAGES, shop, this, nights, shop.cluster)


def test_all_stages_in_order_in_one_cluster(shop: Shop, nights: Nights) -> None:
    this = night()
    go(shop, nights, this)
    assert (shop.folder / "third").read_text() == "log first second third "
    assert shop.clusters == ["up", "down"] and this.failed is None
    kept = nights.read("2026-11-30")
    assert kept is not None and tuple(kept.stages) == NAMES
    assert kept.stages["second"]["told"] == ["wrote second"] and kept.seconds.keys() == {*NAMES}


@pytest.mark.parametrize("number", range(3))
def test_a_stage_that_fails_is_the_one_that_begins_again(
    number: int, shop: Shop, nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that the stage reads is not there; then it is."""
    missing, this = ("log", "first", "second")[number], night()
    stages = list(STAGES)
    if number:  # what the stage before wrote is gone
        before = STAGES[number - 1]

        def lost(shop: Shop, night: Night) -> list[str]:
            told = list(before.work(shop, night))
            (shop.folder / missing).rename(shop.folder / "lost")
            return told

        stages[number - 1] = Stage(before.name, lost, before.on_ray)
    else:
        (shop.folder / missing).rename(shop.folder / "lost")
    with pytest.raises(FileNotFoundError):
        go_through(stages, shop, this, nights, shop.cluster)
    assert this.failed is not None and this.failed["stage"] == NAMES[number]
    assert shop.clusters in ([], ["up", "down"])
    (shop.folder / "lost").rename(shop.folder / missing)
    kept = nights.read("2026-11-30") if number else night()
    assert kept is not None and tuple(kept.stages) == NAMES[:number]
    capsys.readouterr()
    go(shop, nights, kept)
    assert (shop.folder / "third").read_text() == "log first second third "
    assert capsys.readouterr().out.count("done before") == number


def test_without_anything_to_do_a_stage_says_so_and_the_night_goes_on(
    shop: Shop, nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    def idle(shop: Shop, night: Night) -> Iterator[str]:
        raise NothingToDo("no service was here")
        yield

    this = night()
    go_through([Stage("compact", idle), STAGES[0]], shop, this, nights, shop.cluster)
    assert "nothing to do: no service was here" in capsys.readouterr().out
    assert [*this.stages] == ["compact", "first"] and shop.clusters == []


def test_each_day_has_a_night_and_the_last_full_one_is_known(nights: Nights) -> None:
    ways = {"2026-11-20": "full", "2026-11-25": "full", "2026-11-26": "warm", "2026-11-30": "full"}
    for day, kind in ways.items():
        each = night(day)
        each.way, each.ended_at = {"kind": kind, "why": ""}, f"{day}T03:00:00+00:00"
        nights.write(each)
    unfinished = night("2026-11-28")
    unfinished.way = {"kind": "full", "why": ""}
    nights.write(unfinished)
    assert nights.days() == sorted({*ways, "2026-11-28"})
    assert str(nights.last_full(before="2026-11-30")) == "2026-11-25"
    assert nights.last_full(before="2026-11-20") is None
    assert nights.read("2026-11-29") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"day": 1}', json.dumps({**vars(night()), "stages": {"first": 3}}),
             json.dumps(vars(night("2026-11-29")))],
)  # fmt: skip
def test_a_damaged_state_is_named(text: str, nights: Nights) -> None:
    path = nights.file("2026-11-30")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(DataError, match="damaged") as error:
        nights.read("2026-11-30")
    assert error.value.where == path and "begins anew" in error.value.fix


def test_a_night_in_a_store_goes_on_on_another_node(tmp_path: Path, store: object) -> None:
    location = Location("s3://shop/run")
    here, there = (
        Nights(SharedFolder(tmp_path / name, location, NodeCache(tmp_path / f"cache-{name}", 1)))
        for name in ("here", "there")
    )
    this = night()
    this.stages["compact"] = {"seconds": 1.5, "told": []}
    here.write(this)
    found = there.read(this.day)
    assert found == this and there.days() == [this.day]
