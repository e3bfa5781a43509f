"""The stores' clock: the machine's, or for a replay that of a file."""

import os
import time

from recsys.state import CLOCK_FILE, clock_us


def test_a_replay_goes_by_the_time_of_a_file(tmp_path, monkeypatch):
    assert abs(clock_us() - time.time() * 1e6) < 60e6
    file = tmp_path / "clock"
    file.touch()
    monkeypatch.setenv(CLOCK_FILE, str(file))
    for second in (1_709_510_400, 1_709_514_000):
        os.utime(file, ns=(second * 10**9, second * 10**9))
        assert clock_us() == second * 10**6
