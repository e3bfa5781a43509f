import hashlib
import hmac
import multiprocessing
import stat
from pathlib import Path

import polars as pl
import pytest

from recsys.config import Privacy
from recsys.data.pseudonyms import KEY_FILE, load_key, pseudonym, pseudonymise
from recsys.errors import DataError

KEY = b"0123456789abcdef"
ENV = "TEST_PSEUDONYM_KEY"
PRIVACY = Privacy(key_env=ENV)


@pytest.fixture(autouse=True)
def _no_key_in_environment(monkeypatch):
    monkeypatch.delenv(ENV, raising=False)


def test_pseudonym_is_the_first_half_of_hmac_sha256():
    whole = hmac.new(KEY, "Zoë".encode(), hashlib.sha256).hexdigest()
    assert pseudonym("Zoë", KEY) == whole[:32]


def test_pseudonym_depends_on_user_and_key():
    assert len({pseudonym(u, k) for u in ("1", "2") for k in (KEY, KEY[::-1])}) == 4


def test_hmac_agrees_with_the_test_vector_of_rfc_4231():
    # Test case 1; RFC 2104 itself gives vectors for MD5 only.
    assert pseudonym("Hi There", b"\x0b" * 20) == "b0344c61d8db38535ca8afceaf0bf12b"


def test_pseudonymise_agrees_with_pseudonym_and_hashes_each_id_once(monkeypatch):
    calls = []

    def counting(user_id, key):
        calls.append(user_id)
        return pseudonym(user_id, key)

    monkeypatch.setattr("recsys.data.pseudonyms.pseudonym", counting)
    ids = pl.Series("user_id", ["b", "a", None, "b", "a", "a"])
    got = pseudonymise(ids, KEY)
    assert got.name == "user_id"
    assert got.to_list() == [pseudonym(i, KEY) if i else None for i in ids]
    assert sorted(calls) == ["a", "b"]


@pytest.mark.parametrize("ids", [[], [None, None]])
def test_pseudonymise_nothing(ids):
    got = pseudonymise(pl.Series("u", ids, dtype=pl.String), KEY)
    assert got.to_list() == ids
    assert got.dtype == pl.String


def test_key_file_is_made_once_and_private(tmp_path):
    key = load_key(PRIVACY, tmp_path / "run", create=True)
    path = tmp_path / "run" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(key.decode())) == 32
    assert load_key(PRIVACY, tmp_path / "run", create=True) == key
    assert load_key(PRIVACY, tmp_path / "run", create=False) == key
    assert [p.name for p in path.parent.iterdir()] == [KEY_FILE]
    assert load_key(PRIVACY, tmp_path / "other", create=True) != key


def test_environment_wins_and_takes_the_text_of_the_file(tmp_path, monkeypatch):
    key = load_key(PRIVACY, tmp_path, create=True)
    text = (tmp_path / KEY_FILE).read_text()
    monkeypatch.setenv(ENV, text)
    assert load_key(PRIVACY, tmp_path / "elsewhere", create=False) == key
    monkeypatch.setenv(ENV, "another key, long enough")
    assert load_key(PRIVACY, tmp_path, create=True) == b"another key, long enough"


def test_the_recipe_names_the_file(tmp_path):
    privacy = Privacy(key_env=ENV, key_file=str(tmp_path / "keys" / "shop.key"))
    key = load_key(privacy, tmp_path / "run", create=True)
    assert (tmp_path / "keys" / "shop.key").read_text().strip().encode() == key
    assert not (tmp_path / "run").exists()


def test_a_missing_key_is_not_made_unasked(tmp_path):
    with pytest.raises(DataError) as error:
        load_key(PRIVACY, tmp_path, create=False)
    assert ENV in str(error.value)
    assert str(tmp_path / KEY_FILE) in str(error.value)
    assert "prepare" in error.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "  \n", "fifteen bytes..", "fifteen bytes..\n\n\n"])
def test_a_short_key_is_refused(tmp_path, monkeypatch, text):
    (tmp_path / KEY_FILE).write_text(text)
    with pytest.raises(DataError, match="too few") as error:
        load_key(PRIVACY, tmp_path, create=True)
    assert "openssl" in error.value.fix
    monkeypatch.setenv(ENV, text)
    with pytest.raises(DataError, match=ENV):
        load_key(PRIVACY, tmp_path, create=True)


def test_a_key_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(DataError, match=KEY_FILE):
        load_key(PRIVACY, tmp_path, create=True)


def _load(run_dir: Path) -> bytes:
    return load_key(PRIVACY, run_dir, create=True)


def test_processes_that_start_at_once_agree_on_the_key(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        keys = pool.map(_load, [tmp_path] * 12, chunksize=1)
    assert len(set(keys)) == 1
