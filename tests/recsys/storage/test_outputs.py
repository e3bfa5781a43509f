from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_disk import fill, mounted

from recsys.errors import NoSpaceError
from recsys.storage.outputs import whole_folder, write_json


def names(folder: Path) -> list[str]:
    """Everything there, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    with whole_folder(tmp_path / "out") as part:
        (part / "old").write_text("old")
    return tmp_path / "out"


def test_the_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "run" / "out") as part:
        (part / "a").write_text("a")
        assert not (tmp_path / "run" / "out").exists()
    assert names(tmp_path) == ["run", "run/out", "run/out/a"]


def test_a_new_output_takes_the_place_of_the_old(target: Path) -> None:
    with whole_folder(target) as part:
        assert list(part.iterdir()) == []
        (part / "new").write_text("new")
        assert names(target) == ["old"]
    assert names(target.parent) == ["out", "out/new"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_output_and_nothing_else(
    target: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), whole_folder(target) as part:
        (part / "half").write_text("ha")
        raise error
    assert names(target.parent) == ["out", "out/old"]
    assert (target / "old").read_text() == "old"


def test_what_a_killed_run_left_behind_is_cleared(target: Path) -> None:
    for name in (".out.part", ".out.old"):
        (target.parent / name).mkdir()
        (target.parent / name / "left").write_text("over")
    with whole_folder(target) as part:
        assert list(part.iterdir()) == []
    assert names(target.parent) == ["out"]


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1, "a": [None, "ü"]})
    assert names(tmp_path) == ["deep", "deep/a.json"]
    assert json.loads(path.read_text()) == {"a": [None, "ü"], "b": 1}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [None, "ü"], "b": 1}


def test_what_fails_on_a_full_disk_is_told_as_that(tmp_path: Path) -> None:
    """Polars says "transport error" of the last bytes of a file, which is gone when it is read."""
    with mounted(tmp_path / "disk", megabytes=1) as disk:
        with pytest.raises(NoSpaceError), whole_folder(disk / "out") as aside:
            fill(aside)
            raise ValueError("Invalid thrift: transport error")
        assert not names(disk)
        with pytest.raises(ValueError, match="thrift"), whole_folder(disk / "out"):
            raise ValueError("Invalid thrift: transport error")
