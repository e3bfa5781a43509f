import uuid

import pytest
from redis_server import make_server, shared_server  # noqa: F401 - fixtures
from store_events import CAP

from recsys.config import State
from recsys.state import open_state


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make_store(request, tmp_path):
    """Make a fresh store; all are closed at the end."""
    made = []
    is_redis = request.param == "redis"
    url = request.getfixturevalue("shared_server").url if is_redis else None

    def make(cap=CAP, max_age_days=None):
        path = tmp_path / f"state-{len(made)}.sqlite"
        state = State(
            backend=request.param, max_events_per_user=cap, url=url, prefix=uuid.uuid4().hex,
            max_age_days=max_age_days,
        )  # fmt: skip
        made.append(open_state(state, path))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store):
    return make_store()
