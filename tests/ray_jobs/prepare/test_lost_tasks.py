"""Processes that die in the midst of their tasks: Ray runs these again, and nothing shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from dying_tasks import Counted, Dying, sent_along
from prepare_runs import hashes
from tiny import KEY, KEY_ENV, tiny_log, tiny_recipe

from ray_jobs.common.tasks import tasks_on
from recsys.config import Recipe
from recsys.preparation.preparing import Rows, RunTasks, Task, prepare


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.usefixtures("cluster")
def test_tasks_whose_processes_are_killed_are_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of each kind, late in them; the output is that of a run in which none died."""
    monkeypatch.setenv(KEY_ENV, KEY)
    tiny_log(tmp_path / "log")
    counted = Counted()
    undisturbed = prepare(_recipe(tmp_path, "one"), nullcontext(counted))
    late = {name: int(0.8 * calls) for name, calls in counted.num_calls.items()}
    late = {name: at for name, at in late.items() if name.endswith(("-0", "-1"))}
    assert len({name.split("-")[0] for name in late}) >= 4
    marks = tmp_path / "marks"
    marks.mkdir()

    @contextmanager
    def dying(recipe: Recipe) -> Iterator[RunTasks]:
        with tasks_on(recipe) as run:

            def each(rows: Rows, task: Task) -> Rows:
                return run(rows, Dying(task, late, marks))

            yield each

    recipe = _recipe(tmp_path, "two")
    with sent_along():
        disturbed = prepare(recipe, dying(recipe))
    assert {mark.name for mark in marks.iterdir()} == late.keys()
    for part in ("histories", "relations", "catalogue"):
        assert hashes(disturbed / part) == hashes(undisturbed / part)
    assert [path for path in recipe.root.rglob("*") if path.name.endswith(".part")] == []


def _recipe(folder: Path, name: str) -> Recipe:
    return tiny_recipe(folder, run_dir=str(folder / name))
