"""`recsys nightly`: two nights on a small log, one of them killed; faults, the lock, notices."""

from __future__ import annotations

import base64
import datetime as dt
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from http_receiver import Receiver, receiving
from small_disk import fill, mounted
from tiny import (
    KEY,
    KEY_ENV,
    NUM_DAYS,
    day,
    prepared_in_process,
    tiny_items,
    tiny_log,
    tiny_recipe_file,
    user_id,
)

from ray_jobs import cli
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.registry import Registry
from recsys.config import load_recipe
from recsys.data.pseudonyms import pseudonym
from recsys.nightly import SECRET_VARIABLE, Nights
from recsys.preparation.preparing import one_by_one
from recsys.schema import EVENT_CODE, Col
from recsys.state import STATE_FILE, StateEvent, open_state, state_of
from recsys.storage.shared import SharedFolder

ROOT = Path(__file__).parents[2]
#: The night whose windows are those of the small recipe, and the next one.
FIRST, SECOND = (day(NUM_DAYS + number).date() for number in (0, 1))
SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    monkeypatch.setenv(KEY_ENV, KEY)
    with receiving() as found:
        yield found


@pytest.fixture
def config(tmp_path: Path, receiver: Receiver) -> Path:
    tiny_log(tmp_path / "log")
    return tiny_recipe_file(
        tmp_path,
        nightly={"test_days": 13, "webhook": {"url": receiver.url, "attempts": 1}},
        promote={"registry": str(tmp_path / "registry"), "margin": 0.9},
    )


def status_of(config: Path, date: dt.date, *more: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["nightly", "--config", str(config), "--day", date.isoformat(), *more])
    return int(end.value.code or 0)


def told(receiver: Receiver) -> tuple[str, dict[str, Any]]:
    """The last notice."""
    body = receiver.got[-1].json()
    return body["type"], body["data"]


def give_champion(config: Path) -> str:
    recipe = load_recipe(config)
    bundle = make_bundle(config.parent / "first", recipe, seed=1)
    registry = Registry.of(recipe)
    registry.add(bundle.folder, bundle.version)
    registry.promote(bundle.version)
    return bundle.version


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What comes before training runs in this process."""
    monkeypatch.setattr("ray_jobs.nightly.connected", lambda *_, **__: nullcontext())
    monkeypatch.setattr("ray_jobs.exposures.tasks_on", lambda _: nullcontext(one_by_one))
    with prepared_in_process():
        yield


@pytest.mark.usefixtures("without_ray")
class TestBroken:
    """A real fault at one stage after another: the champion stays, and all is told."""

    def check(self, config: Path, receiver: Receiver, stage: str, error: str) -> None:
        champion = give_champion(config)
        assert status_of(config, FIRST) == 2
        kind, data = told(receiver)
        assert kind == "night.failed" and data["failed"]["stage"] == stage
        assert error in data["failed"]["error"] and error in data["verdict"]
        assert data["champion"] == {"before": champion, "after": champion}
        assert f"{champion} stays champion" in data["verdict"]

    def test_a_store_of_users_that_is_no_store(self, config: Path, receiver: Receiver) -> None:
        path = load_recipe(config).root / STATE_FILE
        path.parent.mkdir()
        path.write_bytes(b"no database" * 100)
        self.check(config, receiver, "compact", STATE_FILE)
        path.unlink()
        (config.parent / "log" / "items.parquet").unlink()
        assert status_of(config, FIRST) == 2
        _, data = told(receiver)
        assert data["failed"]["stage"] == "prepare" and data["seconds"].keys() == {"compact"}

    def test_a_log_that_cannot_be_read_and_then_lists_that_cannot(
        self, config: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With the log as it was the same command goes on, until it comes to the lists."""
        events = config.parent / "log" / "events.parquet"
        whole = events.read_bytes()
        events.write_bytes(whole[:-100])
        self.check(config, receiver, "prepare", "events.parquet")
        events.write_bytes(whole)
        lists = load_recipe(config).root / "feedback" / "impressions" / "2024-03-30-0.parquet"
        lists.parent.mkdir(parents=True)
        lists.write_bytes(b"no table")
        capsys.readouterr()
        assert status_of(config, FIRST) == 2
        assert "[1/11] compact: done before\n[2/11] prepare\n" in capsys.readouterr().out
        assert told(receiver)[1]["failed"]["stage"] == "exposures"
        assert status_of(config, FIRST, "--set", "data.max_tokens=8") == 2
        assert "compact: done before" not in capsys.readouterr().out, "another recipe"

    def test_a_full_disk(self, config: Path, receiver: Receiver, tmp_path: Path) -> None:
        """Not even the night's own state can be written; with room the same command goes on."""
        with mounted(tmp_path / "disk", megabytes=32) as disk:
            overrides = ("--set", f"run_dir={disk / 'run'}")
            other = fill(disk)
            assert status_of(config, FIRST, *overrides) == 2
            kind, data = told(receiver)
            assert kind == "night.failed" and "no space is left" in data["failed"]["error"]
            other.unlink()
            lists = disk / "run" / "feedback" / "impressions" / "2024-03-30-0.parquet"
            lists.parent.mkdir(parents=True)
            lists.write_bytes(b"no table")
            assert status_of(config, FIRST, *overrides) == 2
            assert told(receiver)[1]["seconds"].keys() == {"compact", "prepare"}

    def test_a_registry_that_is_another_shops(self, config: Path, receiver: Receiver) -> None:
        give_champion(config)
        assert status_of(config, FIRST, "--set", "name=grocer") == 2
        kind, data = told(receiver)
        assert (kind, data["failed"]["stage"]) == ("night.failed", "start")
        assert "one product's line" in data["failed"]["error"]


def test_a_receiver_without_a_secret_is_refused_at_once(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(SECRET_VARIABLE)
    assert status_of(config, FIRST) == status_of(config, FIRST, "--dry-run") == 2
    assert SECRET_VARIABLE in capsys.readouterr().err
    assert not load_recipe(config).root.exists()


def test_two_at_once_are_refused_with_the_others_name(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other is killed: its lock goes with it."""
    code = (
        "import sys, time; from ray_jobs.cli import *\n"
        "with load_recipe(sys.argv[1]).shared.locked():\n"
        "    print('locked', flush=True); time.sleep(100)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(config)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        assert status_of(config, FIRST) == 2
        assert f"another job of this run is at work (process {other.pid} on " in (
            capsys.readouterr().err
        )
    finally:
        other.kill()
        other.wait()
    with load_recipe(config).shared.locked():
        pass


def test_a_dry_run_tells_and_does_nothing(
    config: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(config, FIRST, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = [
        f"would run the night of {FIRST}: compact, prepare, exposures, drift, train, embed, ",
        "would cut the log at 2024-02-20 (head), 2024-03-05 (valid) and 2024-03-18 (test)",
        "would take nothing in: no store of users here",
        "would train, full: there is no champion",
    ]
    assert all(any(line.startswith(each) for line in lines) for each in wanted), lines
    assert not load_recipe(config).root.exists() and receiver.got == []


def test_what_is_no_date_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["nightly", "--config", str(config), "--day", "tonight"])
    assert end.value.code == 2 and "'tonight' is no date" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.usefixtures("cluster")
def test_two_nights_the_second_one_killed_and_gone_on_with(
    config: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full night; then what the service took in, and a warm night from the champion's weights."""
    recipe = load_recipe(config)
    nights, registry = Nights(SharedFolder(recipe.root)), Registry.of(recipe)
    assert status_of(config, FIRST) == 0
    printed = capsys.readouterr().out
    assert "[11/11] page" in printed and "nothing to do: no store of users here" in printed
    kind, data = told(receiver)
    champion = registry.champion()
    assert kind == "night.finished" and data["training"]["kind"] == "full"
    assert data["champion"] == {"before": None, "after": champion}
    assert data["metrics"]["bundle"] == champion and data["verdict"].startswith(f"{champion} is")
    first = nights.read(FIRST.isoformat())
    assert first is not None and first.ended_at and first.seconds == data["seconds"]

    assert status_of(config, FIRST) == 0, "it is over"
    assert "--again runs it once more" in capsys.readouterr().out and len(receiver.got) == 1

    take_in(config)
    command = [sys.executable, "-m", "ray_jobs.nightly", "--config", str(config)]
    killed = subprocess.Popen(
        [*command, "--day", SECOND.isoformat()], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert killed.stdout is not None
        lines = []
        for line in killed.stdout:
            lines.append(line)
            if "[5/11] train" in line:
                break
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert any("40 live events" in line for line in lines), lines
    second = nights.read(SECOND.isoformat())
    assert second is not None and [*second.stages] == ["compact", "prepare", "exposures", "drift"]
    assert registry.champion() == champion and len(receiver.got) == 1

    assert status_of(config, SECOND) == 0
    printed = capsys.readouterr().out
    assert printed.count("done before") == 4 and f"warm: from {champion}" in printed
    kind, data = told(receiver)
    assert kind == "night.finished" and data["training"]["kind"] == "warm"
    assert data["champion"]["before"] == champion != data["champion"]["after"]
    bundle = Bundle.open(registry.path("champion"))
    assert bundle.meta["started_from"] == champion
    assert bundle.recipe.data.cuts.test == day(78)
    moves = [move["evidence"]["rule"] for move in registry.history()]
    assert moves == [None, "not_worse"]


def take_in(config: Path) -> None:
    """What a service that runs would have taken in on the second day."""
    recipe = load_recipe(config)
    store = open_state(state_of(recipe), recipe.root / STATE_FILE)
    purchase, items = EVENT_CODE["purchase"], tiny_items()[Col.item].to_list()
    events = [
        StateEvent(
            pseudonym(user_id(number % 20), KEY.encode()), f"e{number}", items[number % 30],
            purchase, int(day(NUM_DAYS + 0.01 * number).timestamp() * 1e6),
        )
        for number in range(40)
    ]  # fmt: skip
    assert store.append(events) == ["new"] * 40
    store.close()
