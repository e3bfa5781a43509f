import uuid

import pytest

from recsys.state.redis.users import RedisState


@pytest.fixture
def prefix():
    return uuid.uuid4().hex


@pytest.fixture
def make_store(shared_server, prefix):
    """Open a store on the shared server; all are closed at the end."""
    made = []

    def make(cap=10, url=shared_server.url, prefix=prefix):
        made.append(RedisState(url, prefix, cap))
        return made[-1]

    yield make
    for store in made:
        store.close()
