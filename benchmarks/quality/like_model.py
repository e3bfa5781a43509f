"""Quality of the like probability, on a log whose events carry labels.

`benchmarks.quality` calls it. Rows are single exposures, liked or not, at their raw timestamps:
events of one second never see each other. A model's regime says what a row may see:

- *live*: item counts as of the test cut, and all the user's own events before the row, likes and
  dislikes, as a service would know them.
- *strict*: as published splits mean it. Nothing but the training part is learned or counted; after
  it a row sees of its user only earlier likes, those of its published history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from benchmarks.quality.protocols.benchmark import IS_TEST, Benchmark
from benchmarks.quality.protocols.parts import LABEL
from recsys.data.histories import UserEvents
from recsys.data.time_split import ask_shown
from recsys.evaluation.like_features import LIKE_FEATURES, LikeStats, logit
from recsys.evaluation.like_model import fit_like_model
from recsys.evaluation.metrics.calibration import ece_equal_mass, ece_equal_width
from recsys.evaluation.metrics.classification import auc_by_group, log_loss, pointwise_auc
from recsys.evaluation.metrics.intervals import Interval, bootstrap_mean, bootstrap_statistic
from recsys.evaluation.report import finite
from recsys.schema import EVENT_CODE, EVENT_TYPES, Col

LIVE, STRICT = "raycommend", "raycommend, strict"
ITEM_MEAN, BOTH_MEANS = "item mean", "item + user mean"
METRICS = ("auc", "uauc", "log_loss", "ece_15_mass", "ece_10_width")
TARGETS = (EVENT_CODE[EVENT_TYPES[-1]],)


def measure(
    benchmark: Benchmark,
    item_ids: Sequence[str],
    text_vectors: np.ndarray,
    *,
    num_bootstrap: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of the report's `response`; none without labels.

    Args:
        benchmark: its `exposures` are what is predicted.
        item_ids: of the catalogue, by row.
        text_vectors: [I, H] of length 1, of each item's text.
        num_bootstrap: resamples of the users.
        seed: of the resamples.
    """
    if benchmark.exposures is None:
        return []
    users, is_test = exposed_users(benchmark.exposures, item_ids)
    valid, test = (_us(benchmark.cuts[name]) for name in ("valid", "test"))
    questions = ask_shown(users, start=test, end=None)
    late = users.timestamps >= test
    questions = questions.where(is_test[late])
    labels = np.isin(users.event_codes[late][is_test[late]], TARGETS)
    assert len(questions) == is_test.sum()

    stats = LikeStats.count(users.before(test), text_vectors, TARGETS)
    features = stats.features_of(questions)
    model = fit_like_model(users, text_vectors, TARGETS, cut=_middle(users, test), until=test)
    probabilities = {LIVE: model.predict(features)}
    if benchmark.whole_histories:
        known = LikeStats.count(users.before(valid), text_vectors, TARGETS)
        strict_model = fit_like_model(
            users, text_vectors, TARGETS, cut=_middle(users, valid), until=valid, likes_only=True
        )
        seen = known.features_of(questions, likes_only_since=valid)
        probabilities[STRICT] = strict_model.predict(seen)
    of_item, of_user = (
        features[:, LIKE_FEATURES.index(name)] for name in ("item_rate", "user_rate")
    )
    average = logit(np.array(stats.mean))
    for name, logits in ((ITEM_MEAN, of_item), (BOTH_MEANS, of_item + of_user - average)):
        probabilities[name] = 1 / (1 + np.exp(-logits))
    rows = []
    for name, given in probabilities.items():
        found = judge(given, labels, questions.user_index, num_bootstrap=num_bootstrap, seed=seed)
        rows += [
            {
                "model": name, "slice": "all", "metric": metric, "value": interval.mean,
                "low": finite(interval.low), "high": finite(interval.high),
                "num_rows": interval.num_rows,
            }
            for metric, interval in found.items()
            if finite(interval.mean) is not None
        ]  # fmt: skip
    return rows


def judge(
    probabilities: np.ndarray,
    labels: np.ndarray,
    users: np.ndarray,
    *,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Interval]:
    """Every metric with its 95 % interval over users; of UAUC the rows are users with both labels.

    Resampling adds noise to the bins, so a small calibration error lies low in its interval, or
    below it.
    """
    options = {"num_bootstrap": num_bootstrap, "seed": seed}
    distinct, per_user = auc_by_group(probabilities, labels, users)

    def of_rows(metric: Callable[[np.ndarray, np.ndarray], float]) -> Interval:
        return bootstrap_statistic(
            lambda rows: metric(probabilities[rows], labels[rows]), users, **options
        )

    return dict(
        zip(
            METRICS,
            (
                of_rows(pointwise_auc),
                bootstrap_mean(per_user, distinct, **options),
                bootstrap_mean(log_loss(probabilities, labels), users, **options),
                of_rows(ece_equal_mass),
                of_rows(ece_equal_width),
            ),
            strict=True,
        )
    )


def exposed_users(
    exposures: pl.DataFrame, item_ids: Sequence[str]
) -> tuple[UserEvents, np.ndarray]:
    """Labelled rows as the library's events, and [E] which of them are to be predicted.

    A label 1 is the strongest event, 0 a view. Rows of items outside the catalogue are left out.
    """
    numbers = pl.DataFrame({Col.item: item_ids}).with_row_index(Col.item_row)
    rows = exposures.join(numbers, on=Col.item).sort(
        Col.user, Col.timestamp, Col.item_row, LABEL, IS_TEST
    )
    counts = rows.group_by(Col.user, maintain_order=True).len()
    codes = np.where(rows[LABEL].to_numpy() == 1, TARGETS[0], EVENT_CODE["view"])
    users = UserEvents(
        counts[Col.user].to_list(),
        rows[Col.item_row].to_numpy().astype(np.int32),
        codes.astype(np.int8),
        rows[Col.timestamp].dt.epoch("us").to_numpy().astype(np.int64),
        np.zeros(rows.height, dtype=np.int32),
        np.concatenate([[0], np.cumsum(counts["len"].to_numpy())]).astype(np.int64),
    )
    return users, rows[IS_TEST].to_numpy()


def _middle(users: UserEvents, until: int) -> int:
    """The moment that half of the exposures before `until` lie before."""
    return int(np.median(users.timestamps[users.timestamps < until]))


def _us(moment: Any) -> int:
    return round(moment.timestamp() * 1_000_000)
