"""Actors of the cluster that this process has joined, and of no other on the machine."""

from __future__ import annotations

from typing import Any


def actors(**equal: str) -> list[Any]:
    """Those whose fields equal these, the ended ones among them."""
    import ray
    from ray.util.state import list_actors

    address = ray.get_runtime_context().gcs_address
    filters = [(name, "=", value) for name, value in equal.items()]
    return list_actors(address, filters=filters, limit=1000)
