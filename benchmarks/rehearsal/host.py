"""What a host of the rehearsal does from inside: it takes folders of its own, and then waits.

    python -m benchmarks.rehearsal.host NAME

It is the first process of its namespaces. All of the machine's files are there to be read, as
software that is installed on a host is, and none can be written: whatever two hosts tell each
other goes over the network.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

#: The repository.
ROOT = Path(__file__).parents[2]
#: What a host writes to, empty when it starts: in memory, gone with it.
OWN = ("/tmp", "/var/tmp", "/dev/shm", "/srv")
#: In the last of them: the home of its users, and where their work lies.
HOME, WORK = Path("/srv/home"), Path("/srv/raycommend")
#: What a host prints once it is ready.
READY = "ready"


def main(name: str, names: str) -> None:
    """Take the host's own folders, print `READY`, and wait to be killed.

    Args:
        name: of the host.
        names: the lines of its `/etc/hosts`.
    """
    kept = {path: os.open(path, os.O_PATH) for path in _hidden()}
    for folder in OWN:
        _mount("-t", "tmpfs", "-o", "mode=1777", name, folder)
    for path, number in kept.items():
        path.mkdir(parents=True)
        _mount("--bind", f"/proc/self/fd/{number}", str(path), keep=number)
        _mount("-o", "remount,bind,ro", str(path))
    HOME.mkdir()
    WORK.mkdir()
    socket.sethostname(name)
    hosts = Path("/srv/hosts")
    hosts.write_text(names)
    _mount("--bind", str(hosts), "/etc/hosts")
    _mount("-o", "remount,bind,ro", "/")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans come here when they end
    print(READY, flush=True)
    while True:
        signal.pause()


def _hidden() -> set[Path]:
    """What a host reads of the folders that its own ones hide: the code, and Python."""
    needed = {ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    return {path for path in needed if any(path.is_relative_to(folder) for folder in OWN)}


def _mount(*words: str, keep: int | None = None) -> None:
    subprocess.run(["mount", *words], check=True, pass_fds=[] if keep is None else [keep])


if __name__ == "__main__":
    main(*sys.argv[1:])
