"""What can be seen to be wrong before anything is started, the cheapest first."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from recsys.config import Recipe
from recsys.privacy import load_key
from recsys.ray_token import check_token
from recsys.state import STATE_FILE, open_items, open_state, state_of
from serve.access import KeyFile
from serve.ports import check_ports
from serve.router import placed


def check(recipe: Recipe, address: str, *, ports: bool = True) -> None:
    """Refuse what a start would fail with; nothing is written, no bundle is read.

    Args:
        recipe: the service's.
        address: of Ray; `local` starts one.
        ports: whether they have to be free by now.

    Raises:
        RaycommendError: there is no pseudonym key, the file of API keys cannot be read, a port is
            taken, an arm's bundle is missing, or Ray's token has no place.
    """
    load_key(recipe.privacy, recipe.root, create=False)
    if recipe.serve.access.keys is not None:
        KeyFile.read(Path(recipe.serve.access.keys).expanduser())
    placed(recipe.serve.arms)
    check_token()
    if address == "local" and ports:
        check_ports(recipe.serve)


def check_start(recipe: Recipe, address: str, *, ports: bool = True) -> None:
    """The same, and that the stores can be opened; they are made if they are not there.

    Raises:
        RaycommendError: as `check`, or a store cannot be opened.
    """
    check(recipe, address, ports=ports)
    if address == "local" and recipe.serve.state.backend != "memory":
        state, path = state_of(recipe), recipe.root / STATE_FILE
        open_state(state, path).close()
        open_items(state, path).close()


def warnings(recipe: Recipe) -> list[str]:
    """What is allowed and seldom meant."""
    if _is_private(recipe.serve.host) or recipe.serve.access.keys is not None:
        return []
    return [
        f"serve.host is {recipe.serve.host} and serve.access.keys is null: whoever reaches the "
        "port may ask, read any user's history, add items and erase users; name a file of keys "
        "(`recsys keys add`), or set serve.host to 127.0.0.1"
    ]


def _is_private(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
