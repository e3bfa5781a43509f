"""Where a rehearsal cannot run it says so, and how it could."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from benchmarks.rehearsal import command as rehearsal


def test_without_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert rehearsal.main([]) == rehearsal.CANNOT
    assert "rehearsal: needs root" in capsys.readouterr().err


def test_without_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "ip" else f"/bin/{name}")
    assert rehearsal.why_not() == "needs ip. Fix: install util-linux and iproute2"


def test_without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without rights."""
    refused = SimpleNamespace(returncode=1, stderr="unshare: unshare failed: not permitted\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: refused)
    assert "no namespaces are to be had here: unshare: unshare failed" in str(rehearsal.why_not())
