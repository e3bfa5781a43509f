"""Users streamed to a worker: the order, each once, and a broken shard."""

from __future__ import annotations

import pytest
from tiny import Shop, tiny_shop

from recsys.data.histories import UserEvents
from recsys.errors import DataError, cause_of
from recsys.training.epoch_order import Share, dealt

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return tiny_shop(tmp_path_factory.mktemp("feed"))


def met(shop: Shop, epoch: int, share: Share) -> list[list[str]]:
    """Users of each batch."""
    from ray_jobs.common.feed import Feed

    batches = Feed(shop.prepared, shop.recipe.shared).batches(3, epoch, share, 7)
    return [list(batch.user_ids) for batch in batches]


def test_two_workers_meet_everybody_once_in_each_epochs_own_order(shop: Shop) -> None:
    everybody = sorted(shop.prepared.users().user_ids)
    shares = dealt([[(0, len(everybody))]], 2)
    first = [met(shop, 0, share) for share in shares]
    assert sorted(user for batches in first for batch in batches for user in batch) == everybody
    assert {len(batch) for batches in first for batch in batches[:-1]} == {7}
    assert first == [met(shop, 0, share) for share in shares]
    assert first != [met(shop, 1, share) for share in shares]


def test_what_is_left_of_a_share_is_its_rest(shop: Shop) -> None:
    whole = met(shop, 2, [(5, 40)])
    assert met(shop, 2, [(5 + 14, 40)]) == whole[2:]
    assert met(shop, 2, []) == []


def test_histories_come_whole(shop: Shop) -> None:
    from ray_jobs.common.feed import Feed

    users = shop.prepared.users()
    (batch,) = Feed(shop.prepared, shop.recipe.shared).batches(3, 0, [(0, len(users))], len(users))
    assert _events(batch) == _events(users)


def _events(users: UserEvents) -> dict[str, list[tuple[int, int, int]]]:
    return {
        str(user): list(
            zip(
                users.item_rows[low:high].tolist(),
                users.event_codes[low:high].tolist(),
                users.timestamps[low:high].tolist(),
                strict=True,
            )
        )
        for user, low, high in zip(
            users.user_ids, users.offsets[:-1], users.offsets[1:], strict=True
        )
    }


def test_a_broken_shard_is_named(shop: Shop) -> None:
    path = shop.prepared.shards[0]
    whole = path.read_bytes()
    places = range(len(whole) // 4, len(whole) // 2)
    damaged = bytearray(whole)
    for place in places:
        damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    try:
        with pytest.raises(Exception, match="Fix: ") as error:
            met(shop, 0, [(0, shop.prepared.summary["counts"]["users"])])
    finally:
        path.write_bytes(whole)
    ours = cause_of(error.value)
    assert isinstance(ours, DataError) and str(ours.where) == str(path)
