"""A language model sharded over two processes, over gloo, trains what a whole one does."""

from __future__ import annotations

import datetime as dt
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from process_groups import leave_process_group
from safetensors.torch import load_file, save_file
from tiny import Shop, tiny_shop
from torch.nn.parallel import DistributedDataParallel
from workers import chunks, make_worker

from recsys.artifacts import checkpoint
from recsys.artifacts.checkpoint import trained_state
from recsys.artifacts.progress import Progress
from recsys.model.sharding import whole
from recsys.training.worker import Worker

pytestmark = pytest.mark.slow

#: `model.tuning`, `train.precision` -> how far weights may differ. With `last_n` frozen layers are
#: sharded too.
CASES = {("last_n", "float32"): 1e-6, ("full", "float32"): 1e-6, ("full", "bfloat16"): 1e-3}
HOW = ("none", "full")
CLIP_NORM = 0.05
#: With momentum alone: AdamW makes a step of full size of a gradient that is nearly nothing.
SETTINGS: dict[str, Any] = {
    "fresh_texts_per_step": 4, "max_vector_age": 2, "num_negatives": 8, "accumulate": 2,
    "optimizer": "sgd", "learning_rate": 0.05, "language_model_lr_factor": 1.0,
    "clip_norm": CLIP_NORM,
}  # fmt: skip
#: Each worker's users in a batch, and steps of each of two epochs.
EACH, STEPS = 3, 4


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shop]:
    """By `model.tuning`."""
    return {
        tuning: tiny_shop(tmp_path_factory.mktemp(tuning), model={"tuning": tuning})
        for tuning in ("last_n", "full")
    }


@pytest.fixture(scope="module")
def trained(shops: dict[str, Shop], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have made of each case, sharded and not."""
    folder = tmp_path_factory.mktemp("trained")
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    mp.spawn(_train, args=(shops, meet, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize(("tuning", "precision"), CASES)
def test_a_sharded_language_model_trains_what_a_whole_one_does(
    trained: Path, tuning: str, precision: str
) -> None:
    """Cached and old texts, clipping, accumulation, and a resume after the first epoch."""
    folder, tolerance = trained / f"{tuning}-{precision}", CASES[tuning, precision]
    for rank in range(2):
        plain, sharded = (load_file(folder / f"{rank}-{how}.safetensors") for how in HOW)
        assert float(sharded.pop("share")) < 0.6 < float(plain.pop("share")) == 1
        assert float(plain["norm"]) == pytest.approx(CLIP_NORM, rel=1e-4), "gradients were clipped"
        _assert_equal(sharded, plain, tolerance)


@pytest.mark.parametrize(("tuning", "precision"), CASES)
def test_a_checkpoint_of_a_sharded_model_is_that_of_a_whole_one(
    trained: Path, shops: dict[str, Shop], tuning: str, precision: str
) -> None:
    plain, sharded = (trained / f"{tuning}-{precision}" / how for how in HOW)
    for name in (checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.CACHE):
        kept, expected = (load_file(folder / name) for folder in (sharded, plain))
        _assert_equal(kept, expected, CASES[tuning, precision])
    alone = make_worker(shops[tuning], **SETTINGS)
    before = {name: value.clone() for name, value in trained_state(alone.model).items()}
    checkpoint.load_model(sharded, alone.model, alone.head)
    checkpoint.load_optimizer(sharded, alone.optimizer)
    after = trained_state(alone.model)
    moved = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert any(name.startswith("language.trained_layers") for name in moved)


def _assert_equal(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float
) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance, msg=name)


def _train(rank: int, shops: dict[str, Shop], meet: str, out: str) -> None:
    torch.set_num_threads(1)
    timeout = dt.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timeout)
    for tuning, precision in CASES:
        for how in HOW:
            folder = Path(out, f"{tuning}-{precision}", how)
            folder.mkdir(parents=True, exist_ok=True)
            told = _two_epochs(shops[tuning], rank, folder, sharding=how, precision=precision)
            save_file(told, folder.parent / f"{rank}-{how}.safetensors")
    leave_process_group()


def _two_epochs(shop: Shop, rank: int, folder: Path, **train: str) -> dict[str, torch.Tensor]:
    """What a worker has after an epoch, a checkpoint, a resume from it, and another epoch."""
    first, second = (make_worker(shop, rank, 2, **SETTINGS, **train) for _ in range(2))
    _epoch(first, shop)
    if rank == 0:
        progress = Progress(1, first.step)
        checkpoint.save(folder, first.model, first.head, first.optimizer, progress, first.cache)
    else:
        checkpoint.take_part(first.model, first.optimizer)
    dist.barrier()
    second.step = checkpoint.load_model(folder, second.model, second.head).step
    checkpoint.load_optimizer(folder, second.optimizer)
    checkpoint.load_cache(folder, second.cache, second.step)
    _epoch(second, shop)
    assert second.step == 2 * STEPS
    gradients = [whole(p.grad) for p in second.model.parameters() if p.grad is not None]
    layers = list(second.model.language.trained_layers.parameters())
    here = sum(getattr(p, "_local_tensor", p).numel() for p in layers)
    return trained_state(second.model) | {
        "norm": torch.nn.utils.get_total_norm(gradients),
        "share": torch.tensor(here / sum(p.numel() for p in layers)),
        "item vectors": second.scorer("valid").vectors,
    }


def _epoch(mine: Worker, shop: Shop) -> None:
    mine.wrapped = DistributedDataParallel(mine.model)
    users = shop.prepared.users(shop.prepared.shards[mine.rank :: 2])
    batches = SETTINGS["accumulate"] * STEPS
    mine.train_epoch(list(chunks(users, EACH))[:batches], 2 * STEPS)
