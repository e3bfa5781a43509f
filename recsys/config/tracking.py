"""`tracking`: where trainings are told of, beside the run's own files."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import model_validator

from recsys.config.base import Section


class Tracking(Section):
    """A tracker of trainings: searches, trials, curves, recipes, the winner's bundle."""

    kind: Literal["none", "mlflow"] = "none"
    """`mlflow` needs `raycommend[mlflow]`."""
    uri: str | None = None
    """Of MLflow: a server (`http://...`) or a store (`sqlite:///...`). Default: the environment
    variable `MLFLOW_TRACKING_URI`, else the SQLite file `mlflow.db` beside the run's folder."""

    @model_validator(mode="after")
    def _without_a_password(self) -> Tracking:
        if self.uri is not None and urlsplit(self.uri).password:
            raise ValueError(
                "tracking.uri holds a password, which has no place in a recipe: set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return self
