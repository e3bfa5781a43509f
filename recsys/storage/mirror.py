"""A folder of this machine with the files of a location, for work that needs a file system.

`.mirror.json` in the folder tells of each file what it was on either side when both were the same.
So a file that changed on one side alone is copied to the other. A name that begins with a dot is
left out.

What is pushed goes file by file, and what was deleted goes last. The reader of a folder must bear
with files that are new beside ones that will be gone, as it must where a writer is killed.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from recsys.storage.location import Location
from recsys.storage.outputs import write_json
from recsys.storage.published import in_parallel

_RECORD = ".mirror.json"

#: Name -> what the file was there (see `Location.tags`), and its bytes and time here.
_Record = dict[str, tuple[str, int, int]]


@dataclass(frozen=True)
class Mirror:
    """Files on both sides.

    Attributes:
        location: of the files.
        folder: of this machine; made when it is needed. One process writes to it at a time.
    """

    location: Location
    folder: Path

    def pull(self) -> None:
        """Have here what is there; what was written here and not pushed yet stays.

        Raises:
            StorageError: the store fails.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        record = self._read()
        while True:
            there = self.location.tags()
            for name in record.keys() - there.keys():  # removed there
                if self._here(name) == record.pop(name)[1:]:
                    (self.folder / name).unlink()
            wanted = [
                name
                for name, tag in there.items()
                if name not in record or record[name][0] != tag or self._here(name) is None
            ]
            gone: list[str] = []

            def copy(name: str, gone: list[str] = gone) -> None:
                if not self._copy(name):
                    gone.append(name)

            in_parallel(copy, wanted)
            record |= {name: (there[name], *self._known(name)) for name in {*wanted} - {*gone}}
            self._write(record)
            if not gone:
                return

    def push(self) -> None:
        """Have there what is here: new and changed files first, then without the deleted ones.

        Raises:
            StorageError: the store fails; pushed again, it goes on.
        """
        record = self._read()
        here = {name: self._known(name) for name in self._names()}
        changed = [
            name for name, at in here.items() if name not in record or record[name][1:] != at
        ]
        in_parallel(lambda name: self.location.upload(self.folder / name, name), changed)
        deleted = record.keys() - here.keys()
        self.location.remove(sorted(deleted))
        there = self.location.tags() if changed else {}
        self._write(
            {name: record[name] for name in record.keys() - deleted}
            | {name: (there[name], *here[name]) for name in changed if name in there}
        )

    def upload(self, path: Path) -> None:
        """Have one file there now, ahead of a push."""
        self.location.upload(path, path.relative_to(self.folder).as_posix())

    def _copy(self, name: str) -> bool:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            if not self.location.download(name, aside):
                return False
            aside.replace(path)
            return True
        finally:
            aside.unlink(missing_ok=True)

    def _names(self) -> list[str]:
        names = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(n.as_posix() for n in names if not any(p.startswith(".") for p in n.parts))

    def _here(self, name: str) -> tuple[int, int] | None:
        try:
            return self._known(name)
        except FileNotFoundError:
            return None

    def _known(self, name: str) -> tuple[int, int]:
        stat = (self.folder / name).stat()
        return stat.st_size, stat.st_mtime_ns

    def _read(self) -> _Record:
        try:
            told = json.loads((self.folder / _RECORD).read_text())
            return {name: (str(tag), int(size), int(ns)) for name, (tag, size, ns) in told.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError):  # all is compared anew
            return {}

    def _write(self, record: _Record) -> None:
        write_json(self.folder / _RECORD, record)
