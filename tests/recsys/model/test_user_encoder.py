from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_logs import BUY, VIEW, Event, queries

from recsys.features.windows import Windows, make_windows
from recsys.model.user_encoder import NUM_GAP_BUCKETS, US_PER_HOUR, UserEncoder, gap_buckets

DIM = 8
ITEMS = torch.nn.functional.normalize(
    torch.randn(10, DIM, generator=torch.Generator().manual_seed(0)), dim=-1
)
HOUR = US_PER_HOUR

ANNE: list[Event] = [
    (0, 1, VIEW), (HOUR, 2, BUY), (HOUR, 3, VIEW), (HOUR, 2, VIEW), (90 * HOUR, 4, BUY),
    (99 * HOUR, 5, BUY), (99 * HOUR, 6, BUY),
]  # fmt: skip
BOB: list[Event] = [(0, 7, BUY), (5 * HOUR, 8, BUY)]


def random_encoder(num_layers: int = 2) -> UserEncoder:
    """Every weight random: the start as a decayed mean would hide what later layers do."""
    torch.manual_seed(1)
    users = UserEncoder(DIM, num_layers, 2, 0.0).eval()
    with torch.no_grad():
        for parameter in users.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return users


USERS = random_encoder()


def run(windows: Windows, users: UserEncoder = USERS) -> torch.Tensor:
    with torch.no_grad():
        return users(ITEMS[windows.item_rows], windows)


def states(*users: list[Event]) -> torch.Tensor:
    return run(make_windows(queries(*users)))


def test_one_state_of_length_1_for_the_start_and_each_moment() -> None:
    found = states(ANNE, [], BOB)
    assert found.shape == (1 + 4 + 2, DIM)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(7))
    torch.testing.assert_close(found[0], torch.nn.functional.normalize(USERS.start, dim=-1))


@pytest.mark.parametrize("seed", range(5))
def test_the_order_inside_a_moment_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shuffled = sorted((ANNE[n] for n in rng.permutation(len(ANNE))), key=lambda event: event[0])
    torch.testing.assert_close(states(shuffled), states(ANNE))


def test_what_comes_later_does_not_change_earlier_states() -> None:
    whole = states(ANNE)
    for length, num_states in ((1, 1), (4, 2), (5, 3)):
        torch.testing.assert_close(states(ANNE[:length]), whole[: num_states + 1])
    other_end = [*ANNE[:5], (99 * HOUR, 9, VIEW), (400 * HOUR, 0, BUY)]
    torch.testing.assert_close(states(other_end)[:4], whole[:4])
    assert (states(other_end)[4] - whole[4]).abs().max() > 1e-3


def test_every_part_of_an_event_matters() -> None:
    last = states(BOB)[-1]
    for other in ((5 * HOUR, 9, BUY), (5 * HOUR, 8, VIEW), (500 * HOUR, 8, BUY)):
        assert (states([BOB[0], other])[-1] - last).abs().max() > 1e-3


def test_padding_and_neighbours_have_no_influence() -> None:
    together = states(BOB, ANNE, [])
    torch.testing.assert_close(together[1:3], states(BOB)[1:])
    torch.testing.assert_close(together[3:], states(ANNE)[1:])


def test_what_stands_in_the_padding_has_no_influence() -> None:
    windows = make_windows(queries(BOB, ANNE))
    padded = windows.moments < 0
    windows.item_rows[padded] = 9
    windows.event_codes[padded] = VIEW
    windows.gap_us[padded] = 77 * HOUR
    torch.testing.assert_close(run(windows), states(BOB, ANNE))


def test_padding_gives_no_nan_gradients() -> None:
    windows = make_windows(queries(BOB, ANNE, []))
    users = random_encoder()
    items = ITEMS[windows.item_rows].requires_grad_()
    found = users(items, windows)
    found[1:].sum().backward()
    assert items.grad is not None
    assert (items.grad[windows.moments < 0] == 0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in users.parameters())


def test_untrained_it_is_a_mean_of_the_items_met_the_later_the_heavier() -> None:
    torch.manual_seed(0)
    users = UserEncoder(DIM, 2, 2, 0.0).eval()
    states = run(make_windows(queries([(n * HOUR, n, BUY) for n in range(3)])), users)
    closeness = states[3] @ ITEMS[:3].T
    assert closeness[2] > closeness[1] and closeness[2] > closeness[0]
    assert (closeness[2] > states[3] @ ITEMS[3:].T).all()


def test_gaps_are_bucketed_by_their_logarithm() -> None:
    hours = torch.tensor([-1.0, 0, 0.2, 0.25, 0.75, 24, 24 * 365, 1e8], dtype=torch.float64)
    buckets = gap_buckets((hours * HOUR).long()).tolist()
    assert buckets[:5] == [0, 0, 0, 1, 2]
    assert buckets == sorted(buckets)
    assert buckets[-1] == NUM_GAP_BUCKETS - 1


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_last_states_are_those_of_all_states(num_layers: int) -> None:
    users = random_encoder(num_layers)
    crowded: list[Event] = [(0, 1, VIEW), (HOUR, 2, BUY), *((2 * HOUR, n, BUY) for n in range(5))]
    for histories in ([ANNE, [], BOB, crowded], [BOB], [[]], [crowded]):
        windows = make_windows(queries(*histories))
        with torch.no_grad():
            found = users.last_states(ITEMS[windows.item_rows], windows)
        torch.testing.assert_close(found, run(windows, users)[windows.last_state])
