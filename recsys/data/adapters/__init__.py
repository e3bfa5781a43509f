"""Adapters: one file a log format, each turning raw files into canonical events and items."""

from recsys.config import Data
from recsys.data.adapters.base import Adapter, Part, Scan
from recsys.data.adapters.canonical import CanonicalAdapter
from recsys.data.adapters.completejourney import CompleteJourneyAdapter

__all__ = ["Adapter", "Part", "Scan", "open_adapter"]


def open_adapter(data: Data) -> Adapter:
    """The adapter that the recipe names."""
    if data.adapter == "completejourney":
        return CompleteJourneyAdapter(data)
    return CanonicalAdapter(data)
