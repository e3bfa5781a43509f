"""Adapters: one file a log format, each turning raw files into canonical events and items."""

from recsys.adapters.base import Adapter, Part, Scan
from recsys.adapters.canonical import CanonicalAdapter
from recsys.adapters.completejourney import CompleteJourneyAdapter
from recsys.config import Data

__all__ = ["Adapter", "Part", "Scan", "open_adapter"]


def open_adapter(data: Data) -> Adapter:
    """The adapter that the recipe names."""
    if data.adapter == "completejourney":
        return CompleteJourneyAdapter(data)
    return CanonicalAdapter(data)
