"""Scratch folders of started processes, and cleaning up after killed ones.

A folder lies directly in /tmp, for the paths of Ray's sockets may hold only 107 characters. Its
owner holds a lock, which the kernel lets go of however the owner ends: so a folder whose lock is
free belongs to nobody. The processes started for it carry its name in their environment.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

#: Environment variable with the folder's name: marks every process that was started for it.
MARK = "RAYCOMMEND_SCRATCH"
#: Begin of the folders' names, and where they lie.
PREFIX, PARENT = "rc-", Path("/tmp")
#: Folders that were kept for their logs go after this time.
KEPT_S = 86_400.0
#: Ray's logs of a killed service, in its run's folder.
KILLED_LOGS = "logs-of-a-killed-service"
_OWNER, _KEPT = ".owner", ".kept"

Kind = Literal["job", "service"]
Process = tuple[int, int]


@dataclass(frozen=True)
class Scratch:
    """A folder of this process.

    Attributes:
        folder: in /tmp; private to the user.
    """

    folder: Path
    _lock: int

    @staticmethod
    def make(kind: Kind, run: Path | None = None) -> Scratch:
        """A new one; processes that are started from now on carry its mark.

        Args:
            kind: of the owner.
            run: the run's folder; its logs go there if the owner is killed.
        """
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PARENT))
        # On the folder itself: what tidies /tmp by age leaves alone what is locked.
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        note = {"kind": kind, "run": run and str(run)}
        (folder / _OWNER).write_text(json.dumps(note))
        os.environ[MARK] = folder.name
        return Scratch(folder, lock)

    def processes(self) -> set[Process]:
        """The processes that were started for this folder, without this one; see `alive`."""
        return marked(self.folder.name)

    def clear(self, patience_s: float = 10.0, *, keep: bool = False) -> None:
        """Wait for its processes to end, end those that do not, remove the folder.

        Args:
            patience_s: seconds to wait.
            keep: leave the folder for its logs, for a day.
        """
        end(self.folder.name, patience_s)
        if keep:
            (self.folder / _KEPT).touch()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        if os.environ.get(MARK) == self.folder.name:
            del os.environ[MARK]


@dataclass(frozen=True)
class LeftOver:
    """Leftovers of a killed process.

    Attributes:
        folder: in /tmp.
        kind: of its owner.
        run: the run's folder.
        num_processes: that still live.
    """

    folder: Path
    kind: str
    run: str | None
    num_processes: int


def outlived(run: Path) -> bool:
    """Whether processes of a killed service of a run still live, and may answer."""
    for folder in PARENT.glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError), _unowned(folder) as owner:
            is_its = owner is not None and (owner["kind"], owner["run"]) == ("service", str(run))
            if is_its and marked(folder.name):
                return True
    return False


def sweep(kind: Kind, run: Path | None = None) -> list[LeftOver]:
    """Remove what dead owners left, with their processes; gives what was removed.

    Another user's folder is left alone, and so is a service that outlived its owner: it may still
    answer. Only a service of the same run, which takes its place, ends it. Ray's logs of a killed
    service are moved into its run's folder.

    Args:
        kind: of the caller.
        run: the caller's run.
    """
    removed = []
    for folder in sorted(PARENT.glob(f"{PREFIX}*")):
        with suppress(OSError, ValueError), _unowned(folder) as owner:
            if owner is None or time.time() < _kept_until(folder):
                continue
            num_processes = len(marked(folder.name))
            takes_place = kind == "service" and owner["run"] == str(run)
            if num_processes and owner["kind"] == "service" and not takes_place:
                continue
            end(folder.name, patience_s=0.0)
            if owner["run"] is not None and Path(owner["run"]).is_dir():
                move_logs(folder, Path(owner["run"], KILLED_LOGS))
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(LeftOver(folder, owner["kind"], owner["run"], num_processes))
    return removed


def move_logs(folder: Path, target: Path) -> None:
    """Have Ray's logs of a scratch folder lie elsewhere, in the place of what lies there."""
    for logs in folder.glob("ray/session_2*/logs"):
        if target.is_symlink():
            target.unlink()
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(logs, target)
        target.chmod(0o755)  # in Ray's folder, which is private, all may write


def end(name: str, patience_s: float) -> None:
    """Wait for the processes with a mark to end, then end them."""
    deadline = time.monotonic() + patience_s
    ours = marked(name)
    while (left := ours & alive().keys()) and time.monotonic() < deadline:
        time.sleep(0.1)
        ours |= marked(name)
    for pid, _ in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def marked(name: str) -> set[Process]:
    """The processes that carry a mark, and those below them, without this one; see `alive`.

    Some of Ray's write their name over their environment: their parents tell whose they are, or if
    those are gone, the files in the folder that they hold open.
    """
    folder = str(PARENT / name)
    mark = f"{MARK}={name}".encode()
    found, children = set(), defaultdict(list)
    for (pid, began), parent in alive().items():
        children[parent].append((pid, began))
        with suppress(OSError):  # ended meanwhile, or another user's
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if pid != os.getpid() and (
                mark in environment.split(b"\0")
                or (b"=" not in environment.split(b"\0", 1)[0] and _holds_open(pid, folder))
            ):
                found.add((pid, began))
    below = list(found)
    while below:
        below = [child for pid, _ in below for child in children[pid] if child not in found]
        found.update(below)
    return found


def _holds_open(pid: int, folder: str) -> bool:
    """Whether a process has a file in a folder open."""
    return any(
        os.readlink(each).startswith(f"{folder}/") for each in Path(f"/proc/{pid}/fd").iterdir()
    )


def alive() -> dict[Process, int]:
    """All processes, by id and start, since ids are used again -> their parents; see proc(5)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The name before the fields, in brackets, may hold anything.
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(path.name), int(fields[19])] = int(fields[1])
    return found


@contextmanager
def _unowned(folder: Path) -> Iterator[dict[str, Any] | None]:
    """What a folder's owner noted, while nobody else can take it; None where one lives.

    Raises:
        OSError, ValueError: it is no folder of ours.
    """
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(folder)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        owner = json.loads((folder / _OWNER).read_text())
        if not isinstance(owner, dict) or not {"kind", "run"} <= owner.keys():
            raise ValueError(folder)
        yield owner
    finally:
        os.close(lock)


def _kept_until(folder: Path) -> float:
    kept = folder / _KEPT
    return kept.stat().st_mtime + KEPT_S if kept.exists() else 0.0
