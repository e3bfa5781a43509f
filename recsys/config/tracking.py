"""`tracking`: where trainings are told of, beside the run's own files."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import field_validator

from recsys.config.base import Section


class Tracking(Section):
    """A tracker of trainings: searches, trials, curves, recipes, the winner's bundle."""

    kind: Literal["none", "mlflow"] = "none"
    """`mlflow` needs `raycommend[mlflow]`."""
    uri: str | None = None
    """Of MLflow: a server (`http://...`) or a store (`sqlite:///...`). Default: the environment
    variable `MLFLOW_TRACKING_URI`, else the SQLite file `mlflow.db` beside the run's folder."""

    @field_validator("uri")
    @classmethod
    def _without_a_password(cls, uri: str | None) -> str | None:
        if uri is not None and urlsplit(uri).password:
            raise ValueError(
                "a password has no place in a recipe: set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or the whole URI in MLFLOW_TRACKING_URI"
            )
        return uri
