"""Examples trained a second by each way, taken by turns on a machine whose speed changes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.costs import costing
from benchmarks.training.ways import ONCE, Once, Way, say
from recsys.data.histories import UserEvents
from recsys.errors import DataError
from recsys.features.windows import TrainingBatch
from recsys.schema import Col
from recsys.text.text_store import pad_tokens

ROUNDS = 3
#: Texts that the frozen layers are timed on.
TIMED_TEXTS = 256


@dataclass
class Rate:
    """What one way did in its rounds.

    Attributes:
        examples, seconds, cpu_s: [rounds].
        num_steps: of all rounds.
        num_tokens: see `Way`, of all rounds.
        peak_mb: memory beyond what was there before, the highest of all rounds.
    """

    examples: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    num_steps: int = 0
    num_tokens: int = 0
    peak_mb: float = 0.0

    def per(self, seconds: list[float]) -> np.ndarray:
        """[rounds] examples a second."""
        return np.array(self.examples) / np.maximum(seconds, 1e-9)


def measure(ways: dict[str, Way], batches: list[TrainingBatch], round_s: float) -> dict[str, Rate]:
    """By turns, each way trains for a round, and for a step at least."""
    running = {name: for_ever(way, batches) for name, way in ways.items()}
    rates = {name: Rate() for name in ways}
    for number in range(ROUNDS + 1):
        for name, steps in running.items():
            rate, tokens, examples, taken = rates[name], ways[name].num_tokens, 0, 0
            with costing() as cost:
                started, cpu = time.monotonic(), time.process_time()
                while not taken or (number and time.monotonic() - started < round_s):
                    examples += next(steps)
                    taken += 1
                seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu
            # Memory of the first time too: what is let go of later need not be taken anew.
            rate.peak_mb = max(rate.peak_mb, cost().peak_mb)
            if not number:  # the first step of each warms up
                continue
            rate.examples.append(examples)
            rate.seconds.append(seconds)
            rate.cpu_s.append(cpu_s)
            rate.num_steps += taken
            rate.num_tokens += ways[name].num_tokens - tokens
            say(
                f"round {number} of {ROUNDS}: {name}: {examples} examples in {seconds:.1f} s "
                f"({cpu_s:.1f} s CPU, {taken} steps)"
            )
    return rates


def for_ever(way: Way, batches: list[TrainingBatch], num_steps: int = 10_000) -> Iterator[int]:
    """Train on the batches again and again; see `Way.steps`."""
    for batch in itertools.cycle(batches):
        yield from way.steps(batch, num_steps)


def rate_figures(rate: Rate, ours: Rate) -> dict[str, Any]:
    """Medians, and the spread over the rounds; ratios are ours over this one's, round by round."""
    num_examples = sum(rate.examples)
    return {
        "examples_per_s": _spread(rate.per(rate.seconds)),
        "examples_per_cpu_s": _spread(rate.per(rate.cpu_s)),
        "ours_is_faster": _spread(ours.per(ours.seconds) / rate.per(rate.seconds)),
        "ours_is_faster_cpu": _spread(ours.per(ours.cpu_s) / rate.per(rate.cpu_s)),
        "layer_tokens_per_example": rate.num_tokens / num_examples,
        "num_examples": num_examples,
        "num_steps": rate.num_steps,
        "peak_mb": rate.peak_mb,
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    return {
        "median": float(np.median(values)),
        "low": float(values.min()),
        "high": float(values.max()),
    }


def frozen_cost(worker: Once) -> float:
    """CPU seconds that the frozen layers take for a text, once for a catalogue."""
    tokens = worker.prepared.catalogue.texts[Col.tokens]
    rows = worker.rng(10).permutation(len(tokens))[:TIMED_TEXTS]
    texts = sorted((tokens[int(row)].to_numpy() for row in rows), key=len)
    size, started = worker.recipe.embed.batch_size, time.process_time()
    for low in range(0, len(texts), size):
        worker.model.language.lower(*pad_tokens(texts[low : low + size]))
    return (time.process_time() - started) / len(rows)


def with_store(
    rates: dict[str, Rate], store_s: float, num_examples: int, epochs: int
) -> dict[str, Any]:
    """Ratios of CPU time with the text store's making counted among ours."""
    per_s = {name: float(np.median(rate.per(rate.cpu_s))) for name, rate in rates.items()}
    trained = epochs * num_examples
    whole_s = trained / per_s[ONCE] + store_s
    return {
        "cpu_s": store_s,
        "epochs": epochs,
        "num_examples": trained,
        "ours_is_faster_cpu": {
            name: trained / per_s[name] / whole_s for name in rates if name != ONCE
        },
    }


def batches_of(worker: Once, users: UserEvents) -> list[TrainingBatch]:
    """What an epoch over some users trains on."""
    size = worker.recipe.train.batch_size
    parts = (
        take_users(users, np.arange(low, min(low + size, len(users))))
        for low in range(0, len(users), size)
    )
    batches = [batch for batch in map(worker.batch, parts) if batch is not None]
    if not batches:
        raise DataError("nothing to learn from", field="--users", fix="use more")
    return batches


def sample(users: UserEvents, most: int, seed: int) -> UserEvents:
    """At most so many users, drawn once for all."""
    rng = np.random.default_rng([seed, 11])
    return take_users(users, rng.permutation(len(users))[:most])


def take_users(users: UserEvents, picked: np.ndarray) -> UserEvents:
    """Some users, in the order given."""
    lengths = np.diff(users.offsets)[picked]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    events = np.arange(offsets[-1]) + np.repeat(users.offsets[:-1][picked] - offsets[:-1], lengths)
    return UserEvents(
        [users.user_ids[user] for user in picked],
        users.item_rows[events],
        users.event_codes[events],
        users.timestamps[events],
        users.baskets[events],
        offsets,
    )
