"""A thread that stands still is told of once, with where it stands; calls of the model keep it."""

from __future__ import annotations

import time

import torch
from torch import nn

from ray_jobs.common.standstill import watched


class Part(nn.Module):
    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value


class Whole(Part):
    def __init__(self) -> None:
        super().__init__()
        self.part = Part()


def blocked_in_a_read(seconds: float) -> None:
    time.sleep(seconds)


def test_a_thread_that_stands_still_is_told_of_once() -> None:
    told: list[tuple[str, float]] = []
    with watched(Whole(), 0.2, lambda *each: told.append(each)):
        blocked_in_a_read(1.0)
    ((stack, stood_s),) = told
    assert "in blocked_in_a_read" in stack
    assert 0.2 < stood_s < 1.0


def test_calls_of_the_model_and_of_its_parts_are_signs_of_life() -> None:
    told: list[tuple[str, float]] = []
    model = Whole()
    with watched(model, 1.5, lambda *each: told.append(each)):
        for number in range(12):
            time.sleep(0.25)
            (model if number % 2 else model.part)(torch.zeros(1))
    assert told == []
    assert not model._forward_pre_hooks and not model.part._forward_pre_hooks
