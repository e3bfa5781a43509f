"""The running service takes the champion: by `recsys serve --update`, in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.errors import DataError
from recsys.nightly import NothingToDo
from recsys.storage.scratch import MARK

#: API key with the right `monitor`, where the service asks for keys.
KEY_VARIABLE = "RAYCOMMEND_SERVICE_KEY"
#: What a job's own Ray has in the environment, and the command must not see.
_OF_THE_JOB = ("RAY_ADDRESS", "RAY_TMPDIR", "RAY_JOB_CONFIG_JSON_ENV_VAR", MARK)
#: The command itself gives up after 300 s of waiting.
_COMMAND_S = 600.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key would go to whatever host a redirect names."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def hand_over(run: Run, recipe_file: Path) -> list[str]:
    """Have the running service answer with the champion, and see that it does.

    Args:
        run: of the night.
        recipe_file: with its recipe.

    Raises:
        NothingToDo: there is no champion, or no service.
        DataError: the service refuses it and keeps its last good one, or is not seen to answer with
            it in time.
    """
    settings, champion = run.recipe.nightly, run.registry.champion()
    if champion is None:
        raise NothingToDo("there is no champion")
    address = settings.service_address or _own_service(run.recipe)
    if address is None and settings.service_url is None:
        raise NothingToDo(
            "no service of this run runs on this machine, and nightly.service_address names none"
        )
    if address is not None:
        _update(recipe_file, address)
    if settings.service_url is not None:
        _see(settings.service_url, champion, settings.service_wait_s)
    return [f"the service answers with {champion}"]


def _own_service(recipe: Recipe) -> str | None:
    """Ray's address of the run's service on this machine; None: none runs."""
    try:
        address = recipe.service_address_file.read_text()
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError):  # a service that was killed leaves the file
        return None
    return address


def _update(recipe_file: Path, address: str) -> None:
    command = [sys.executable, "-m", "serve", "--config", str(recipe_file), "--update"]
    environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_JOB}
    try:
        done = subprocess.run(
            [*command, "--set", f"ray.address={address}"], capture_output=True, text=True,
            env={**environment, "RAY_AUTH_MODE": "token"}, timeout=_COMMAND_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _refused(address, f"no answer in {_COMMAND_S:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise _refused(address, last.removeprefix("serve: "))


def _refused(address: str, why: str) -> DataError:
    return DataError(
        f"the service does not take the champion: {why}", field="nightly.service_address",
        value=address,
        fix="correct that; then the same command goes on here. The service keeps the last bundle "
        "that worked",
    )  # fmt: skip


def _see(url: str, champion: str, patience_s: float) -> None:
    """Wait until the service tells the champion, as the bundle of one of its arms."""
    deadline, told = time.monotonic() + patience_s, "nothing"
    while True:
        try:
            model = _model(url)
            versions = [str(arm["version"]) for arm in model["arms"]]
            if champion in versions:
                return
            told = ", ".join(versions)
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
            told = f"nothing ({error})"
        if time.monotonic() > deadline:
            raise DataError(
                f"{champion} is champion, and after {patience_s:.0f} s the service tells {told}",
                field="nightly.service_url", value=url,
                fix="hand it the champion as docs/serving/operations.md says, then run the same "
                f"command; an API key with the right `monitor` stands in {KEY_VARIABLE}",
            )  # fmt: skip
        time.sleep(min(1.0, patience_s))


def _model(url: str) -> dict[str, Any]:
    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{url.rstrip('/')}/model", headers=headers)
    with _opener.open(request, timeout=5) as answer:
        return dict(json.load(answer))
