from __future__ import annotations

import stat
from pathlib import Path

import pytest

from recsys.errors import DataError
from recsys.ray_token import check_token, hide_token


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_a_home_that_takes_no_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nobody")
    with pytest.raises(DataError, match="Ray's token cannot be kept there") as caught:
        check_token()
    assert (caught.value.field, caught.value.value) == ("HOME", "/proc/nobody")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/somewhere/else")
    check_token()


def test_a_token_that_is_there_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray" / "auth_token"
    check_token()
    assert not token.exists(), "Ray makes it"
    token.write_text("secret")
    token.chmod(0o644)
    check_token()
    hide_token()
    assert token.read_text() == "secret"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
