from __future__ import annotations

import numpy as np
import pytest
from like_logs import LIKE, random_log, texts, users_of

from recsys.evaluation.like_model import LikeModel, fit_like_model


def test_the_fit_finds_what_was_planted() -> None:
    rng = np.random.default_rng(7)
    features = rng.normal([1.0, -2.0, 5.0], [1.0, 3.0, 0.0], size=(20_000, 3))
    logits = 0.7 * features[:, 0] - 0.2 * features[:, 1] + 0.3
    labels = rng.random(20_000) < 1 / (1 + np.exp(-logits))
    model = LikeModel.fit(features, labels, penalty=0.0)
    slopes = model.weights / model.deviation
    np.testing.assert_allclose(slopes[:2], [0.7, -0.2], atol=0.03)
    assert slopes[2] == 0
    np.testing.assert_allclose(model.logits(features), logits, atol=0.2)
    # At the optimum of an unpenalised bias the mean probability is the share of likes.
    assert model.predict(features).mean() == pytest.approx(labels.mean(), abs=1e-4)
    with pytest.raises(ValueError, match="no exposure"):
        LikeModel.fit(features[:0], labels[:0])


@pytest.mark.parametrize("likes_only", [False, True])
def test_a_fit_reads_nothing_from_its_end_on(likes_only: bool) -> None:
    log = random_log(8, 400)
    later = [(user, time, item, label if time < 15 else 1) for user, time, item, label in log]
    heads = [
        fit_like_model(users_of(each), texts(), [LIKE], cut=7, until=15, likes_only=likes_only)
        for each in (log, later)
    ]
    np.testing.assert_array_equal(heads[0].weights, heads[1].weights)
