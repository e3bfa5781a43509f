"""Damaged recipes, keys and SQLite stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from damaged_reading import NOW, SCALE, Tally, each_damage, is_flip, outcome
from tiny import tiny_recipe_file

from recsys.config import Privacy, load_recipe
from recsys.data.pseudonyms import load_key
from recsys.state import StateEvent
from recsys.state.sqlite.users import SqliteState


@pytest.mark.slow
def test_recipes(tmp_path: Path) -> None:
    path = tiny_recipe_file(tmp_path)
    # The name last: what is cut off ends before it, and is no recipe without it.
    raw = yaml.safe_load(path.read_text())
    raw["name"] = raw.pop("name")
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    tally = Tally(lambda folder: load_recipe(folder / path.name), tmp_path)
    assert tally.whole.name == "tiny"
    for name, what in each_damage(tmp_path, [path.name], num_flips=60 * SCALE):
        tally.take(name, what, may_change=is_flip(what))
    tally.must_have_refused(0.8)
    odd = (b"a: 2026-02-31", b"&a [*a]", b"? {a: b}\n: c", b"9" * 5000, b"a: !!python/tuple []",
           b"!!binary x", b"{" * 5000, b"\x00", b"1: 2", b"data: {cuts: .nan}")  # fmt: skip
    for content in odd:
        path.write_bytes(content)
        assert outcome(load_recipe, path, path.name) is None, content


def test_the_key_of_the_pseudonyms(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    path.write_bytes(b"0123456789abcdef" * 4)
    privacy = Privacy(key_env="NO_SUCH_VARIABLE")
    tally, num_refused = Tally(lambda run: load_key(privacy, run, create=False), tmp_path), 0
    for name, what in each_damage(tmp_path, [path.name], num_flips=6):
        # Any long enough text is a key.
        found = tally.take(name, what, may_change=True)
        num_refused += found is None
        assert found is None or len(found) >= 16
    assert num_refused >= 5


def test_user_histories(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    held = [StateEvent(f"u{n % 9}", f"e{n}", f"item-{n}", n % 5, NOW + n) for n in range(300)]
    state = SqliteState(path, 1000)
    state.append(held)
    state.close()
    whole = path.read_bytes()

    def read(folder: Path) -> Any:
        state = SqliteState(folder / path.name, 1000)
        try:
            found = [state.history(f"u{user}", 1000) for user in range(9)]
            for event in (event for events in found for event in events):
                assert isinstance(event.item_id, str) and isinstance(event.timestamp, int)
            state.append([StateEvent("new", "e", "i", 1, NOW)])
            return found, state.count_users()
        finally:
            state.close()

    tally = Tally(read, tmp_path)
    path.write_bytes(whole)
    for name, what in each_damage(tmp_path, [path.name], num_flips=90 * SCALE):
        for beside in tmp_path.glob("state.sqlite-*"):
            beside.unlink()
        if what not in ("gone", "cut to 0 bytes", "cut to 1 bytes"):  # a new file, to SQLite
            tally.take(name, what, may_change=is_flip(what))
    tally.must_have_refused(0.8)
