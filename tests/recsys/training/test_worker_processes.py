"""Two workers in processes of their own, with DDP over gloo."""

from __future__ import annotations

import datetime as dt
import json
import socket
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from process_groups import leave_process_group
from safetensors.torch import load_file, save_file
from tiny import (
    Shop,
    day,
    prepare_here,
    store_here,
    tiny_items,
    tiny_recipe,
    user_id,
    write_log,
)
from torch.nn.parallel import DistributedDataParallel
from workers import RecordingStore, chunks, make_worker

from recsys.schema import Col
from recsys.training.worker import Worker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A log where most users only look, so that workers get batches without a single target."""
    folder = tmp_path_factory.mktemp("uneven")
    rng = np.random.default_rng(1)
    rows = []
    for number in range(80):
        for visit in range(0, 88, 4):
            kind = "purchase" if number % 10 == 0 else "view"
            moment = day(visit) + dt.timedelta(hours=number % 5)
            item = int(rng.integers(40))
            rows.append((user_id(number), f"item-{item:04d}", kind, moment, None))
    names = [Col.user, Col.item, Col.event_type, Col.timestamp, Col.session]
    schema = dict.fromkeys(names, pl.String) | {Col.timestamp: pl.Datetime("us", "UTC")}
    events = pl.DataFrame(rows, schema=schema, orient="row")
    write_log(folder / "log", events, tiny_items())
    recipe = tiny_recipe(folder)
    prepared = prepare_here(recipe)
    return Shop(recipe, prepared, store_here(recipe))


def test_two_processes_end_together_on_uneven_data(uneven: Shop, tmp_path: Path) -> None:
    """DDP would wait for ever if one of them left a step out."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    mp.spawn(_distributed, args=(uneven, meet, str(tmp_path)), nprocs=2)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    encoded = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    # What one of them has encoded in a step, the other need not.
    assert len(encoded[0]) == len(encoded[1]) > 0
    for mine, other in zip(*encoded, strict=True):
        assert mine and not set(mine) & set(other)
    # The cache among them.
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, msg=name)


def test_old_vectors_are_refreshed_for_both(shop: Shop, tmp_path: Path) -> None:
    """Their users differ, and so do the texts that each would refresh alone."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    mp.spawn(_aging, args=(shop, meet, str(tmp_path)), nprocs=2)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert int(first["old"].sum()) > 0
    for name in ("vectors", "ages"):
        assert torch.equal(first[name], second[name]), name


def _aging(rank: int, shop: Shop, meet: str, out: str) -> None:
    torch.set_num_threads(1)
    timeout = dt.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timeout)
    mine = make_worker(shop, rank, 2, fresh_texts_per_step=2, max_vector_age=1, num_negatives=4)
    mine.wrapped = DistributedDataParallel(mine.model)
    store = mine.store = RecordingStore.of(shop.store)
    users = shop.prepared.users(shop.prepared.shards[rank::2])
    mine.train_epoch(list(chunks(users, 4))[:4], 20)
    texts = np.arange(shop.prepared.catalogue.num_texts)
    told = {
        "vectors": mine.cache.vectors,
        "ages": torch.from_numpy(mine.cache.age(texts, mine.step)),
        # Two texts a step are encoded with gradient; what is beyond was too old.
        "old": torch.tensor(sum(map(len, store.asked)) - 2 * mine.step),
    }
    save_file(told, f"{out}/{rank}.safetensors")
    leave_process_group()


def test_what_two_processes_share_has_the_gradient_of_each_alone(
    shop: Shop, tmp_path: Path
) -> None:
    """With every text encoded afresh, DDP's gradient is the mean of two workers' own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    mp.spawn(_one_step, args=(shop, meet, str(tmp_path)), nprocs=2)
    alone = []
    for rank in range(2):
        mine = make_worker(shop, rank, 2, fresh_texts_per_step=None, clip_norm=1e9)
        batch = mine.batch(shop.prepared.users(shop.prepared.shards[rank::2]))
        assert batch is not None
        mine.train_step(batch, 10)
        alone.append(_gradients(mine))
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    assert any(name.startswith("language.") for name in alone[0])
    for name, gradient in alone[0].items():
        expected = (gradient + alone[1][name]) / 2
        for each in found:
            torch.testing.assert_close(each[name], expected, rtol=1e-3, atol=1e-6, msg=name)


def _gradients(mine: Worker) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in mine.model.named_parameters() if p.grad is not None}


def _one_step(rank: int, shop: Shop, meet: str, out: str) -> None:
    torch.set_num_threads(1)
    timeout = dt.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timeout)
    mine = make_worker(shop, rank, 2, fresh_texts_per_step=None, clip_norm=1e9)
    mine.wrapped = DistributedDataParallel(mine.model)
    batch = mine.batch(shop.prepared.users(shop.prepared.shards[rank::2]))
    assert batch is not None
    mine.train_step(batch, 10)
    save_file(_gradients(mine), f"{out}/{rank}.safetensors")
    leave_process_group()


def _distributed(rank: int, shop: Shop, meet: str, out: str) -> None:
    torch.set_num_threads(1)
    timeout = dt.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timeout)
    mine = make_worker(shop, rank, 2)
    mine.wrapped = DistributedDataParallel(mine.model)
    store = mine.store = RecordingStore.of(shop.store)

    def agree(more: bool, loss: float) -> bool:
        votes = torch.tensor(float(more))
        dist.all_reduce(votes)
        return float(votes) == 2

    users = shop.prepared.users(shop.prepared.shards[rank::2])
    for _ in range(2):
        mine.train_epoch(chunks(users, 3), 20, agree)
    weights = {name: p.detach() for name, p in mine.model.named_parameters() if p.requires_grad}
    weights |= {"the cache": mine.cache.vectors, "the step": torch.tensor(mine.step)}
    save_file(weights, f"{out}/{rank}.safetensors")
    Path(out, f"{rank}.json").write_text(json.dumps([texts.tolist() for texts in store.asked]))
    leave_process_group()


#: Each worker's users in a step, and steps of an epoch. In some, one text alone is too old: none
#: falls to the second worker.
EACH, STEPS, EPOCHS = 5, 5, 2


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-3)])
def test_one_worker_that_plays_both_parts_trains_what_two_do(
    precision: str, tolerance: float, shop: Shop, tmp_path: Path
) -> None:
    """Cached and fresh texts, dropout, negatives: only the order of the sums differs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    mp.spawn(_both_parts, args=(shop, meet, str(tmp_path), precision), nprocs=2)
    torch.set_num_threads(1)
    alone = _part_player(shop, precision, parts=(0, 1))
    assert alone.model.language.in_bfloat16 == (precision == "bfloat16")
    losses = _epoch(alone, shop)
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    assert alone.step == EPOCHS * STEPS
    together = sum(float(each.pop("loss")) for each in found)
    assert losses == pytest.approx(together, rel=tolerance)
    for name, value in _weights_and_cache(alone).items():
        assert value.dtype == torch.float32
        assert torch.equal(found[0][name], found[1][name]), name
        torch.testing.assert_close(found[0][name], value, rtol=0, atol=tolerance, msg=name)


def _part_player(
    shop: Shop, precision: str, rank: int = 0, world: int = 1, parts: tuple[int, ...] = ()
) -> Worker:
    settings = {"fresh_texts_per_step": 4, "max_vector_age": 2, "num_negatives": 8}
    settings |= {"precision": precision}
    # With momentum alone: AdamW makes a step of full size of a gradient that is nearly nothing.
    settings |= {"optimizer": "sgd", "learning_rate": 0.05}
    mine = make_worker(shop, rank, world, **settings)
    mine.parts, mine.num_parts = parts or (rank,), 2
    return mine


def _epoch(mine: Worker, shop: Shop) -> float:
    users = [shop.prepared.users(shop.prepared.shards[part::2]) for part in mine.parts]
    streams = [list(chunks(each, EACH))[:STEPS] for each in users]
    return [mine.train_parts(streams, EPOCHS * STEPS) for _ in range(EPOCHS)][-1]


def _weights_and_cache(mine: Worker) -> dict[str, torch.Tensor]:
    weights = {name: p.detach() for name, p in mine.model.named_parameters() if p.requires_grad}
    return weights | {"the cache": mine.cache.vectors}


def _both_parts(rank: int, shop: Shop, meet: str, out: str, precision: str) -> None:
    torch.set_num_threads(1)
    timeout = dt.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timeout)
    mine = _part_player(shop, precision, rank, 2)
    mine.wrapped = DistributedDataParallel(mine.model)
    loss = _epoch(mine, shop)
    save_file(_weights_and_cache(mine) | {"loss": torch.tensor(loss)}, f"{out}/{rank}.safetensors")
    leave_process_group()


def test_accumulated_batches_make_the_step_of_a_large_one(shop: Shop, tmp_path: Path) -> None:
    """On two workers; without dropout, which no two batches share, and every text encoded."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    mp.spawn(_accumulating, args=(shop, meet, str(tmp_path)), nprocs=2)
    for rank in range(2):
        large, small = (load_file(tmp_path / f"{rank}-{times}.safetensors") for times in (1, 3))
        assert int(large.pop("steps")) == int(small.pop("steps")) == 2
        assert float(large.pop("moved")) > 1e-3
        small.pop("moved")
        for name, value in large.items():
            torch.testing.assert_close(small[name], value, rtol=0, atol=1e-6, msg=name)


def _accumulating(rank: int, shop: Shop, meet: str, out: str) -> None:
    torch.set_num_threads(1)
    timeout = dt.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timeout)
    # Of a longer history, windows are drawn for each batch.
    same = {"dropout": 0.0, "id_dropout": 0.0, "max_history": 1000}
    model = shop.recipe.model.model_copy(update=same)
    still = shop._replace(recipe=shop.recipe.model_copy(update={"model": model}))
    users = shop.prepared.users(shop.prepared.shards[rank::2])
    for times in (1, 3):
        settings = {"optimizer": "sgd", "learning_rate": 0.05, "num_negatives": 8}
        mine = make_worker(still, rank, 2, accumulate=times, fresh_texts_per_step=None, **settings)
        mine.wrapped = DistributedDataParallel(mine.model)
        before = {name: value.clone() for name, value in _weights_and_cache(mine).items()}
        # Six batches of three users, or two of nine.
        mine.train_epoch(list(chunks(users, 9 // times))[: 2 * times], 20)
        after = _weights_and_cache(mine)
        moved = max(float((after[name] - value).abs().max()) for name, value in before.items())
        told = {"steps": torch.tensor(mine.step), "moved": torch.tensor(moved)}
        save_file(after | told, f"{out}/{rank}-{times}.safetensors")
    leave_process_group()
