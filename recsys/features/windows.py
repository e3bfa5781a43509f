"""Histories to tensors: padded windows for the user encoder, and their targets.

Legend: B windows, L events (padded), S states, P targets, N distinct items of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.arrays import Float32s
from recsys.config import EventName
from recsys.data.histories import Histories, UserEvents
from recsys.schema import EVENT_TYPES


@dataclass(frozen=True)
class Windows:
    """Input of the user encoder; item rows are the catalogue's.

    Attributes:
        item_rows: [B, L] int64, 0 where padded.
        event_codes: [B, L] int64.
        gap_us: [B, L] int64.
        moments: [B, L] int64, -1 where padded.
        state_of_event: [B, L] int64, 1..S, 0 where padded.
        num_states: S.
        last_state: [B] int64, the state after a window's last moment; 0 (start) if it is empty.
    """

    item_rows: Tensor
    event_codes: Tensor
    gap_us: Tensor
    moments: Tensor
    state_of_event: Tensor
    num_states: int
    last_state: Tensor


def make_windows(histories: Histories) -> Windows:
    """Pad a ragged batch of histories, already cut to length (`Histories.last`)."""
    num_windows = len(histories)
    width = max(1, int(histories.lengths.max(initial=1)))
    row = histories.query_of_event
    column = np.arange(len(row)) - np.repeat(histories.offsets[:-1], histories.lengths)
    times = histories.timestamps
    first_of_window = column == 0
    step = np.diff(times, prepend=times[:1])
    new_moment = first_of_window | (step != 0)
    state = np.cumsum(new_moment)  # 1..S over the whole batch
    first_state = np.zeros(num_windows, dtype=np.int64)
    first_state[row[first_of_window]] = state[first_of_window]
    moment = state - first_state[row]
    # Every event of a moment carries the gap since the moment before.
    gap_of_state = np.where(first_of_window, 0, step)[new_moment]
    last_state = np.zeros(num_windows, dtype=np.int64)
    last_state[row] = state  # the last write of a row wins: its latest event

    def pad(values: NDArray[np.generic], fill: int) -> Tensor:
        out = np.full((num_windows, width), fill, dtype=np.int64)
        out[row, column] = values
        return torch.from_numpy(out)

    return Windows(
        pad(histories.item_rows, 0),
        pad(histories.event_codes, 0),
        pad(gap_of_state[state - 1] if len(state) else state, 0),
        pad(moment, -1),
        pad(state, 0),
        int(state[-1]) if len(state) else 0,
        torch.from_numpy(last_state),
    )


@dataclass(frozen=True)
class TrainingBatch:
    """Windows and the target events after each of their moments.

    Attributes:
        windows: the inputs.
        target_states: [P] int64, the state that must predict the target.
        target_items: [P] int64, catalogue rows.
        target_weights: [P] float32.
    """

    windows: Windows
    target_states: Tensor
    target_items: Tensor
    target_weights: Tensor


def training_batch(
    users: UserEvents,
    *,
    max_history: int,
    windows_per_user: int,
    weights: Float32s,
    rng: np.random.Generator,
) -> TrainingBatch:
    """Sample windows of at most `max_history` events from the histories, with targets.

    The state after each moment predicts every target event of the next; the first moment of a
    whole history is predicted by the start state.

    Args:
        users: events of the training window only.
        max_history: L at most.
        windows_per_user: windows of a user whose history is that long; fewer of a shorter one.
        weights: loss weight by event code; 0 is no target.
        rng: samples the places.
    """
    lengths = np.diff(users.offsets)
    per_user = np.clip(-(-lengths // max_history), 1, windows_per_user)
    user = np.repeat(np.arange(len(users)), per_user)
    slack = lengths[user] - max_history
    # Distinct strata for the windows of one user, so that they overlap little.
    nth = np.arange(len(user)) - np.repeat(np.cumsum(per_user) - per_user, per_user)
    place = (nth + rng.random(len(user))) / per_user[user]
    start = np.floor(np.maximum(slack, 0) * place + 0.5 * (slack > 0)).astype(np.int64)
    start = np.minimum(start, np.maximum(slack, 0)) + users.offsets[user]
    stop = np.minimum(start + max_history, users.offsets[user + 1])
    histories = Histories.gather(
        users.item_rows, users.event_codes, users.timestamps, start, stop,
        np.zeros(len(user), dtype=np.int64),
    )  # fmt: skip
    windows = make_windows(histories)
    real = windows.moments >= 0
    state = windows.state_of_event[real]
    is_first = windows.moments[real] == 0
    whole = torch.from_numpy(start == users.offsets[user])
    window = torch.arange(len(user))[:, None].expand_as(real)[real]
    previous = torch.where(is_first, torch.zeros_like(state), state - 1)
    weight = torch.from_numpy(weights)[windows.event_codes[real]]
    # A window that begins inside a history cannot tell what came before its first moment.
    weight = torch.where(is_first & ~whole[window], torch.zeros_like(weight), weight)
    target = weight > 0
    return TrainingBatch(windows, previous[target], windows.item_rows[real][target], weight[target])


def event_weights(
    target_codes: list[int], codes: Mapping[str, int], given: Mapping[EventName, float]
) -> Float32s:
    """[event codes] loss weight of each event type: 1 for targets unless the recipe says else."""
    weights = np.zeros(len(EVENT_TYPES), dtype=np.float32)
    weights[target_codes] = 1.0
    for name, weight in given.items():
        weights[codes[name]] = weight
    return weights
