"""Checks before a start, cheapest first."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

from recsys.config import Recipe
from recsys.data.pseudonyms import load_key
from recsys.errors import DataError
from recsys.state import CLOCK_FILE, STATE_FILE, open_items, open_state, state_of
from recsys.storage.ray_token import check_token
from serve.access.key_file import KeyFile
from serve.launch.own_files import OwnFiles
from serve.models.arms import resolve_arms
from serve.ray.ports import check_ports

#: Seconds that a cluster's address may take to be reached.
REACH_S = 5.0


def check(recipe: Recipe, address: str, *, ports: bool = True) -> None:
    """Raise the errors that a start would end with; nothing is written, no bundle is read.

    Args:
        recipe: the service's.
        address: of Ray; `local` starts one.
        ports: whether they have to be free by now.

    Raises:
        RaycommendError: there is no pseudonym key, the file of API keys cannot be read, a port is
            taken, an arm's bundle is missing, Ray's token has no place, or nobody listens at the
            address.
    """
    load_key(recipe.privacy, recipe.root, create=False)
    if recipe.serve.access.keys is not None:
        KeyFile.read(Path(recipe.serve.access.keys).expanduser())
    resolve_arms(recipe)
    check_token()
    check_address(address)
    if address == "local" and ports:
        check_ports(recipe.serve)


def check_start(recipe: Recipe, address: str, *, ports: bool = True) -> None:
    """The same; also check that the run's folder takes files and the stores can be opened.

    Raises:
        RaycommendError: as `check`, or a store cannot be opened.
    """
    check(recipe, address, ports=ports)
    if address == "local":
        _check_run(OwnFiles.of(recipe).folder)
    if address == "local" and recipe.serve.state.backend != "memory":
        state, path = state_of(recipe), recipe.root / STATE_FILE
        open_state(state, path).close()
        open_items(state, path).close()


def check_address(address: str) -> None:
    """Refuse an address where nobody listens; Ray would try for a minute, with many log lines."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
    except (OSError, OverflowError) as error:
        raise DataError(
            f"no Ray cluster listens there: {error}", field="ray.address", value=address,
            fix="see that the cluster runs and that this machine reaches it; the running service "
            "printed its address",
        ) from None  # fmt: skip


def _check_run(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the run's folder takes no file: {error.strerror}", where=folder, field="run_dir",
            fix="give this user the right to write there, or set another run_dir",
        ) from None  # fmt: skip


def warnings(recipe: Recipe) -> list[str]:
    """Warnings about settings that are allowed and seldom meant."""
    found = []
    if file := os.environ.get(CLOCK_FILE):
        found.append(f"{CLOCK_FILE} is set: the service's time is that of {file}")
    if _is_private(recipe.serve.host) or recipe.serve.access.keys is not None:
        return found
    return [
        *found,
        f"serve.host is {recipe.serve.host} and serve.access.keys is null: whoever reaches the "
        "port may ask, read any user's history, add items and erase users; name a file of keys "
        "(`recsys keys add`), or set serve.host to 127.0.0.1",
    ]


def _is_private(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
