"""`deploy/nights`: the crontab and systemd's units, and that the command in them is understood."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT

from ray_jobs import cli

FOLDER = ROOT / "deploy" / "nights"
SERVICE, TIMER = "raycommend-nightly.service", "raycommend-nightly.timer"


def unit(name: str) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(FOLDER / name)
    return found


def cron_line() -> str:
    lines = (FOLDER / "crontab").read_text().splitlines()
    (line,) = [line for line in lines if re.match(r"[\d*]", line)]
    return line


def commands() -> dict[str, list[str]]:
    """File -> the words of `recsys ...` in it."""
    scheduled = shlex.split(cron_line().split("&& ")[-1].split(" >>")[0])
    return {"crontab": scheduled, SERVICE: shlex.split(unit(SERVICE)["Service"]["ExecStart"])}


@pytest.mark.parametrize("file", ["crontab", SERVICE])
def test_the_command_is_understood(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = commands()[file]
    assert Path(program).name == "recsys" and Path(program).is_absolute()
    seen: list[str] = []
    monkeypatch.setattr(cli, "_run", lambda job, options: seen.append(job) or 0)
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 0 and seen == ["nightly"]


def test_cron_runs_it_once_a_day_and_the_shell_can_read_it() -> None:
    minute, hour, *rest = cron_line().split()[:5]
    assert 0 <= int(minute) < 60 and 0 <= int(hour) < 24 and rest == ["*"] * 3
    script = cron_line().split(maxsplit=5)[5]
    assert "%" not in script, "cron takes it for the end of the line"
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0


def test_a_refused_night_is_no_failure_and_others_are_tried_again() -> None:
    service, about = unit(SERVICE)["Service"], unit(SERVICE)["Unit"]
    told = (ROOT / "docs" / "jobs.md").read_text()
    assert f"| {service['SuccessExitStatus']} | the gate refused" in told
    assert (service["Type"], service["Restart"]) == ("oneshot", "on-failure")
    assert int(about["StartLimitBurst"]) > 1
    # Ray joins a service on this machine by files in /tmp.
    assert "PrivateTmp" not in service


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """Its own check, with programs that are here; sections by hand where it is not installed."""
    assert unit(SERVICE).sections() == ["Unit", "Service"]
    assert unit(TIMER).sections() == ["Unit", "Timer", "Install"]
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    for name in (SERVICE, TIMER):
        text = (
            (FOLDER / name).read_text().replace("/opt/raycommend/.venv/bin/recsys", sys.executable)
        )
        (tmp_path / name).write_text(text.replace("User=raycommend", "User=root"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", tmp_path / SERVICE, tmp_path / TIMER],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "raycommend" not in done.stderr, done.stderr
    calendar = subprocess.run(
        [analyze, "calendar", unit(TIMER)["Timer"]["OnCalendar"]], capture_output=True, check=False
    )
    assert calendar.returncode == 0
