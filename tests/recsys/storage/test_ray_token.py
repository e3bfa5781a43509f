from __future__ import annotations

import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from recsys.errors import DataError
from recsys.storage.ray_token import check_token, make_token


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".ray" / "auth_token"


@pytest.mark.parametrize("home", ["/proc/nobody", "/dev/null"])
def test_a_home_that_takes_no_file_is_named(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    with pytest.raises(DataError, match="Ray's token cannot be kept there") as caught:
        make_token()
    assert (caught.value.field, caught.value.value) == ("HOME", home)
    with pytest.raises(DataError) if home == "/dev/null" else nullcontext():
        check_token()  # nothing is written
    for name, value in (("RAY_AUTH_TOKEN_PATH", "/somewhere"), ("RAY_AUTH_MODE", "disabled")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            check_token()
            make_token()


def test_a_token_is_made_once_and_its_owner_alone_reads_it(token: Path) -> None:
    check_token()
    assert not token.parent.exists(), "to look changes nothing"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: make_token(), range(8)))
    made = token.read_text()
    assert re.fullmatch("[0-9a-f]{64}", made)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (token, token.parent)] == [0o600, 0o700]
    make_token()
    assert token.read_text() == made


def test_one_that_is_there_stays_and_is_hidden(token: Path) -> None:
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    check_token()
    make_token()
    assert token.read_text() == "secret"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else for a while")
def test_one_that_can_only_be_read_will_do(token: Path, tmp_path: Path) -> None:
    """As a secret that a container has mounted."""
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o444)
    token.parent.chmod(0o555)
    for folder in (tmp_path, *list(tmp_path.parents)[:-1]):
        folder.chmod(folder.stat().st_mode | 0o111)
    os.seteuid(65534)
    try:
        check_token()
        make_token()
        with pytest.raises(PermissionError):
            token.write_text("another")
    finally:
        os.seteuid(0)
