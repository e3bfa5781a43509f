"""Text vectors shared by two processes over gloo."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from process_groups import leave_process_group

from recsys.model.exchange import gather_vectors, is_distributed, split_texts

pytestmark = pytest.mark.slow

WORLD = 2
#: Texts that each worker wants.
WANTED = {
    "overlapping": ([7, 1], [3, 7, 5]),
    "an odd number": ([3, 1], [5]),
    "one for both": ([4], [4]),
}
#: Texts that each worker wants without gradient.
STALE = {
    "overlapping": ([2, 3], [9, 2, 4]),
    "an odd number": ([], [8]),
    "one for both": ([], []),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each worker has at the end of each case."""
    folder = tmp_path_factory.mktemp("exchange")
    mp.spawn(_exchange, args=(str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def _exchange(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD,
        timeout=dt.timedelta(seconds=60),
    )  # fmt: skip
    assert is_distributed(WORLD)
    cases = {}
    for name, wanted in WANTED.items():
        parts, old = split_texts(np.array(wanted[rank]), np.array(STALE[name][rank], dtype=int))
        # A text's vector is its row, so that the order can be read off.
        mine = torch.from_numpy(parts[rank]).float()[:, None].expand(-1, 3).clone()
        together = gather_vectors(mine.requires_grad_(), [len(part) for part in parts])
        place = torch.arange(1.0, len(together) + 1)[:, None]
        ((rank + 1) * place * together).sum().backward()
        assert mine.grad is not None
        cases[name] = {
            "shares": torch.from_numpy(np.concatenate(parts)),
            "mine": torch.from_numpy(parts[rank]),
            "vectors": together.detach(),
            "gradient": mine.grad,
            "stale": torch.from_numpy(np.concatenate(old)),
            "my stale": torch.from_numpy(old[rank]),
        }
    torch.save(cases, Path(folder, f"{rank}.pt"))
    leave_process_group()


def test_a_worker_alone_shares_nothing() -> None:
    assert not is_distributed(1)
    assert not is_distributed(2)  # nobody has been met


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("overlapping", ([1, 5], [3, 7])),
        ("an odd number", ([1, 5], [3])),
        # Each has a gradient: the text is encoded twice.
        ("one for both", ([4], [4])),
    ],
)
def test_texts_are_dealt_out_in_turn_and_all_know_how(
    found: list[dict[str, dict[str, torch.Tensor]]], name: str, expected: tuple[list[int], ...]
) -> None:
    for rank, each in enumerate(found):
        assert each[name]["mine"].tolist() == expected[rank]
        assert each[name]["shares"].tolist() == [row for part in expected for row in part]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 3 is encoded with gradient.
        ("overlapping", ([2, 9], [4])),
        ("an odd number", ([8], [8])),
        ("one for both", ([], [])),
    ],
)
def test_old_texts_are_dealt_out_too_but_for_those_that_are_wanted(
    found: list[dict[str, dict[str, torch.Tensor]]], name: str, expected: tuple[list[int], ...]
) -> None:
    for rank, each in enumerate(found):
        assert each[name]["my stale"].tolist() == expected[rank]
        assert each[name]["stale"].tolist() == [row for part in expected for row in part]


@pytest.mark.parametrize("name", WANTED)
def test_every_worker_has_all_vectors_in_the_workers_order(
    found: list[dict[str, dict[str, torch.Tensor]]], name: str
) -> None:
    for each in found:
        rows = each[name]["shares"].float()
        assert torch.equal(each[name]["vectors"], rows[:, None].expand(-1, 3))


@pytest.mark.parametrize("name", WANTED)
def test_a_worker_gets_the_gradient_of_all_losses_for_what_it_made(
    found: list[dict[str, dict[str, torch.Tensor]]], name: str
) -> None:
    """The losses weigh a vector by its place, worker 0's once and worker 1's twice."""
    gradients = torch.cat([each[name]["gradient"] for each in found])
    place = torch.arange(1.0, len(gradients) + 1)[:, None]
    assert torch.equal(gradients, (1 + 2) * place.expand(-1, 3))
