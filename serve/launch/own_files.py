"""The logs of a service, its list of targets for Prometheus, and its Ray's address.

They lie in the run's folder, by port. While the service runs the first two are links into its Ray's
folder; afterwards the logs themselves lie there.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from recsys.config import Recipe
from recsys.storage.scratch import Scratch, move_logs

_DISCOVERY = "prom_metrics_service_discovery.json"


@dataclass(frozen=True)
class OwnFiles:
    """The files of the service of a run at a port.

    Attributes:
        folder: of the others.
        address: file with Ray's address, for who hands it another bundle.
    """

    folder: Path
    address: Path

    @staticmethod
    def of(recipe: Recipe) -> OwnFiles:
        """The files of a recipe's service."""
        return OwnFiles(recipe.service_folder, recipe.service_address_file)

    @property
    def logs(self) -> Path:
        """Ray's logs; those of the replicas are in `serve` below it."""
        return self.folder / "logs"

    @property
    def targets(self) -> Path:
        """Addresses for Prometheus, as Ray writes them anew every few seconds."""
        return self.folder / "prometheus.json"

    def link(self, session: Path, address: str) -> None:
        """Link to the files of a Ray that has just started, and note its address.

        Args:
            session: its folder.
            address: of its GCS.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.logs.is_dir() and not self.logs.is_symlink():
            before = self.folder / "logs-before"
            shutil.rmtree(before, ignore_errors=True)
            self.logs.rename(before)
        for link, target in ((self.logs, session / "logs"), (self.targets, session / _DISCOVERY)):
            aside = link.with_name(f".{link.name}.{os.getpid()}")
            aside.symlink_to(target)
            aside.replace(link)
        self.address.write_text(address)

    def keep(self, scratch: Scratch) -> None:
        """Move the logs here: the service has ended, and its Ray's folder goes."""
        self.targets.unlink(missing_ok=True)
        self.address.unlink(missing_ok=True)
        move_logs(scratch.folder, self.logs)
