"""One service for all tests of this folder; it starts once, and ends with the last of them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from running_service import Running, started

HERE = Path(__file__).parent
#: All files, in the order in which they run: from those that only ask to the one that ends it.
ORDER = (
    "test_answers", "test_arms", "test_monitoring", "test_listening", "test_slow_clients",
    "test_updates", "test_scaling", "test_proxy", "test_signals",
)  # fmt: skip

#: The service, while there is one.
_running = ExitStack()


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory, language_model: Path, bundle: Path
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    with _running:  # ends it where the session breaks off, too
        yield _running.enter_context(started(folder, language_model, bundle))


def _is_here(item: pytest.Item | None) -> bool:
    return item is not None and item.path.parent == HERE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests of this folder by `ORDER`; the others stay where they are."""
    places = [place for place, item in enumerate(items) if _is_here(item)]
    ours = sorted((items[place] for place in places), key=lambda i: ORDER.index(i.path.stem))
    for place, item in zip(places, ours, strict=True):
        items[place] = item


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """End the service after the last test of this folder: what comes next runs beside none."""
    try:
        yield
    finally:
        if not _is_here(nextitem):
            _running.close()
