from __future__ import annotations

import pytest
import torch
from torch import nn

from recsys.config import Train
from recsys.training.optim import build_optimizer, should_stop, warmup_cosine


class Two(nn.Module):
    """A slow and a fast part, and something frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.fast = nn.Linear(2, 3), nn.Linear(3, 1)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


class TestGroups:
    @pytest.mark.parametrize("name", ["adamw", "sgd"])
    def test_matrices_decay_and_the_pretrained_part_is_slow(self, name: str) -> None:
        model = Two()
        train = Train.model_validate(
            {
                "optimizer": name,
                "learning_rate": 0.1,
                "language_model_lr_factor": 0.5,
                "weight_decay": 0.2,
            }
        )
        groups = build_optimizer(model, train, model.slow.parameters()).param_groups
        settings = {
            id(parameter): (group["lr"], group["weight_decay"])
            for group in groups
            for parameter in group["params"]
        }
        expected = {
            model.slow.weight: (0.05, 0.2),
            model.slow.bias: (0.05, 0.0),
            model.fast.weight: (0.1, 0.2),
            model.fast.bias: (0.1, 0.0),
            model.scale: (0.1, 0.0),
        }
        assert settings == {id(parameter): wanted for parameter, wanted in expected.items()}

    def test_the_recipe_names_the_optimiser(self) -> None:
        assert isinstance(build_optimizer(Two(), Train(), []), torch.optim.AdamW)
        assert isinstance(build_optimizer(Two(), Train(optimizer="sgd"), []), torch.optim.SGD)


class TestSchedule:
    def test_it_rises_in_a_line_and_falls_in_a_cosine_to_a_tenth(self) -> None:
        factors = [warmup_cosine(step, 100, 0.1) for step in range(100)]
        assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
        assert max(factors) == 1.0
        falling = factors[10:]
        assert falling == sorted(falling, reverse=True)
        assert warmup_cosine(55, 100, 0.1) == pytest.approx(0.55)
        assert warmup_cosine(100, 100, 0.1) == pytest.approx(0.1)

    @pytest.mark.parametrize(("num_steps", "fraction"), [(1, 0.1), (1, 1.0), (3, 0.0), (5, 1.0)])
    def test_short_runs_and_extremes_stay_between_0_and_1(
        self, num_steps: int, fraction: float
    ) -> None:
        factors = [warmup_cosine(step, num_steps, fraction) for step in range(num_steps + 3)]
        assert all(0 < factor <= 1 for factor in factors)

    def test_beyond_the_end_it_stays(self) -> None:
        assert warmup_cosine(500, 100, 0.1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("history", "patience", "stop"),
    [
        ([], 1, False),
        ([0.1], 1, False),
        ([0.1, 0.2], 1, False),
        ([0.2, 0.1], 1, True),
        ([0.2, 0.2], 1, True),  # equal is not better
        ([0.2, 0.1], 2, False),
        ([0.2, 0.1, 0.1], 2, True),
        ([0.2, 0.1, 0.3], 2, False),
        ([0.3, 0.1, 0.2, 0.25], 2, True),  # rising, but below the best
        ([0.1, 0.3, 0.2, 0.31], 2, False),
    ],
)
def test_training_stops_when_the_last_values_bring_no_new_best(
    history: list[float], patience: int, stop: bool
) -> None:
    assert should_stop(history, patience) is stop
