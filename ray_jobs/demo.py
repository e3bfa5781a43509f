"""The demo: the whole way on a real log, then questions to the running service.

recsys demo                      # or: make demo
python -m ray_jobs.demo --config recipes/demo.yaml
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_jobs import evaluate, pipeline
from ray_jobs.cli import written_to
from recsys.artifacts.run import Run
from recsys.config import Recipe, load_recipe
from recsys.errors import RaycommendError, cause_of

#: Two households of the log and a visitor who is in no log.
KNOWN_USERS, NEW_USER = ("2070", "718"), "a-new-visitor"
NEW_ITEM = {"title": "organic oat milk 64 oz", "brand": "Private", "tags": "GROCERY"}
START_LIMIT_S = 180

#: Past a proxy that the environment may name: the service is on this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="recsys demo", description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="recipes/demo.yaml", metavar="FILE", help="the recipe")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides")
    options = parser.parse_args()
    started, folders = time.monotonic(), list[Path]()
    try:
        recipe = load_recipe(options.config, options.overrides)
        folders = written_to(recipe)
        run = Run.open(recipe)
        seconds, _ = pipeline.stages(run, strict=False)
        began = time.monotonic()
        with serving(options.config, options.overrides, recipe) as url:
            seconds["start the service"] = time.monotonic() - began
            began = time.monotonic()
            ask(url)
            seconds["ask it"] = time.monotonic() - began
            began = time.monotonic()
        seconds["shut down"] = time.monotonic() - began
    except KeyboardInterrupt:
        print("demo: interrupted; run the same command to go on", file=sys.stderr)
        return 130
    except BaseException as error:
        ours = cause_of(error, *folders)
        if ours is None:
            raise
        print(f"demo: {ours}", file=sys.stderr)
        return ours.exit_code
    say_where(run)
    print("\nseconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))
    print(f"demo: done in {time.monotonic() - started:.0f} s")
    return 0


@contextmanager
def serving(config: str, overrides: list[str], recipe: Recipe) -> Iterator[str]:
    """The service as a process of its own, ended with the block."""
    command = [sys.executable, "-m", "serve", "--config", config]
    for override in overrides:
        command += ["--set", override]
    url = f"http://{recipe.serve.host}:{recipe.serve.port}"
    log = recipe.root / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RaycommendError(
                    f"the service did not start: {log.read_text().strip()[-400:]}",
                    where=log,
                    fix="see the log",
                )
            time.sleep(0.5)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def ask(url: str) -> None:
    """Questions over HTTP, answers as lists."""
    model = _get(f"{url}/model")
    print(f"\nthe service answers at {url} with {model['version']}")
    for user in (*KNOWN_USERS, NEW_USER):
        answer = _post(f"{url}/recommend", {"user_id": user, "k": 5})
        _show(f"for {user} ({answer['basis']})", answer["items"])
    user = KNOWN_USERS[0]
    usual = [
        item["item_id"] for item in _post(f"{url}/recommend", {"user_id": user, "k": 3})["items"]
    ]
    answer = _post(f"{url}/rank", {"user_id": user, "candidates": [*usual, NEW_ITEM], "k": 4})
    _show(
        f"an item never seen, {NEW_ITEM['title']!r}, ranked for {user} among the usual",
        answer["items"],
    )
    bought = {"user_id": NEW_USER, "item_id": usual[0], "event_type": "purchase"}
    _post(f"{url}/events", bought)
    answer = _post(f"{url}/recommend", {"user_id": NEW_USER, "k": 5})
    _show(f"for {NEW_USER} right after a first purchase ({answer['basis']})", answer["items"])


def _show(heading: str, items: list[dict[str, Any]]) -> None:
    print(f"\n{heading}:")
    for place, item in enumerate(items, start=1):
        print(
            f"  {place}. {item['title']:<44} {item['item_id'] or 'new':>10}  {item['score']:7.2f}"
        )


def say_where(run: Run) -> None:
    """The metrics, where everything lies, what to do next."""
    serve = run.recipe.serve
    print()
    for line in evaluate.report(run):
        print(line)
    print(
        f"\npage       {run.page_file}, for a browser"
        f"\nreport     {run.report_file}"
        f"\nbundle     {run.bundle_folder}"
        f"\nchampion   {run.registry.champion()} in {run.registry.root}"
        f"\n\nnext: make serve                 the service, at http://{serve.host}:{serve.port}"
        f"\n      .../docs                   its API, in a browser"
        f"\n      http://127.0.0.1:8265      Ray's dashboard, while it runs"
        f"\n      cp recipes/canonical.yaml my.yaml; set name, data.source, data.cuts: your log"
    )


def _answers(url: str) -> bool:
    try:
        return bool(_get(f"{url}/model"))
    except (OSError, ValueError):
        return False


def _get(url: str) -> dict[str, Any]:
    with _DIRECT.open(url, timeout=10) as answer:
        return dict(json.load(answer))


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with _DIRECT.open(request, timeout=30) as answer:
        return dict(json.load(answer))


if __name__ == "__main__":
    sys.exit(main())
