"""What is planned for: a log by its counts, and the machines."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from recsys.errors import RecipeError

#: No log is larger: it would be a typing error.
_MOST = 1e15


@dataclass(frozen=True)
class Workload:
    """A log, by its counts.

    Attributes:
        events: rows.
        items: of the catalogue.
        users: with at least one event.
        texts: distinct ones among the items'.
    """

    events: int
    items: int
    users: int
    texts: int

    @staticmethod
    def of(events: str, items: str, users: str, texts: str | None) -> Workload:
        """From a command line, where 1e9 is a number too; `texts` are as many as items by default.

        Raises:
            RecipeError: one is no whole number above 0, or they do not fit together.
        """
        log = Workload(
            count("--events", events), count("--items", items), count("--users", users),
            count("--texts", items if texts is None else texts),
        )  # fmt: skip
        for name, value, most, of in (
            ("--users", log.users, log.events, "events"),
            ("--texts", log.texts, log.items, "items"),
        ):
            if value > most:
                raise RecipeError(
                    f"more than there are {of} ({most:,})", field=name, value=f"{value:,}",
                    fix=f"give at most as many {name[2:]} as {of}",
                )  # fmt: skip
        return log


@dataclass(frozen=True)
class Machines:
    """Equal machines.

    Attributes:
        nodes: how many.
        cores, gpus, memory_gb: of one.
    """

    nodes: int
    cores: int
    gpus: int
    memory_gb: float

    @staticmethod
    def of(nodes: str, cores: str | None, gpus: str, memory_gb: str | None) -> Machines:
        """From a command line; cores and memory are this machine's by default.

        Raises:
            RecipeError: one is no number that a machine could have.
        """
        this = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        return Machines(
            count("--nodes", nodes),
            os.cpu_count() or 1 if cores is None else count("--cores", cores),
            count("--gpus", gpus, least=0),
            this if memory_gb is None else number("--memory-gb", memory_gb),
        )

    @property
    def all_cores(self) -> int:
        """Of all nodes."""
        return self.nodes * self.cores

    @property
    def all_gpus(self) -> int:
        """Of all nodes."""
        return self.nodes * self.gpus


def number(name: str, text: str) -> float:
    """A number above 0.

    Raises:
        RecipeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _MOST:
        raise RecipeError(
            f"not a number above 0 and up to {_MOST:g}", field=name, value=text,
            fix="write digits, 250000 or 2.5e5",
        )  # fmt: skip
    return value


def count(name: str, text: str, *, least: int = 1) -> int:
    """A whole number, at least `least`.

    Raises:
        RecipeError: it is none.
    """
    if least == 0 and text.strip() == "0":
        return 0
    value = number(name, text)
    if value != int(value):
        raise RecipeError(
            "not a whole number", field=name, value=text, fix="leave out what follows the point"
        )
    return int(value)
