"""What is served now, kept up to date with the items that any replica adds or changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from recsys.errors import DataError
from recsys.state import ItemStore
from serve.models.added_items import Encode, ItemsSnapshot, extended, read_changes
from serve.models.arms import Arms, ServedBundle
from serve.schemas.problems import Unavailable

logger = logging.getLogger("ray.serve")

#: Seconds between two looks at the store of added items; after a failure, longer.
POLL_S, RETRY_S = 0.5, 5.0


class LiveArms:
    """The arms that answer, as one reference that is replaced.

    Args:
        store: of the added items.
        encode: see `Encode`.
    """

    def __init__(self, store: ItemStore, encode: Encode) -> None:
        self._store, self._encode = store, encode
        self._extending = asyncio.Lock()
        self._arms: Arms | None = None

    @property
    def or_none(self) -> Arms | None:
        """What is served now; None until a first bundle is loaded."""
        return self._arms

    @property
    def now(self) -> Arms:
        """What is served now; a request takes it once, so that a swap cannot part its stages.

        Raises:
            Unavailable: no bundle is loaded yet.
        """
        if self._arms is None:
            raise Unavailable("no model is loaded yet")
        return self._arms

    async def replace(self, arms: Arms) -> None:
        """Serve other arms, with the added items as they are now."""
        # Twice: many texts may have to be read anew, and meanwhile further items may come.
        found = await self._with_added(arms)
        async with self._extending:
            self._arms = await self._with_added(found)

    async def refresh(self) -> None:
        """Take up what has changed in the store of added items.

        Raises:
            DataError: it cannot be read.
            Unavailable: a text has to be encoded anew, and cannot be.
        """
        async with self._extending:
            arms = self.now
            version = await asyncio.to_thread(self._store.version)
            if all(served.added.version == version for served in arms.bundles):
                return
            versions, new = [each.bundle.version for each in arms.bundles], {}
            for served in arms.bundles:
                # A store that was emptied, or came back from a copy, begins anew.
                is_newer = version > served.added.version
                before = served.added if is_newer else ItemsSnapshot()
                new[id(served)] = await self._grown(served, before, versions)
            self._arms = arms.with_served(new)

    async def follow(self) -> None:
        """Take up what other replicas change, for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except (DataError, Unavailable) as error:
                logger.error("added items are not read for %g s: %s", RETRY_S, error)
                await asyncio.sleep(RETRY_S)
            except Exception:
                logger.exception("added items cannot be taken up")
                await asyncio.sleep(RETRY_S)

    async def _with_added(self, arms: Arms) -> Arms:
        """The same with the added items as they are now; without, if they cannot be had."""
        bundles = [*arms.bundles, *([] if self._arms is None else self._arms.bundles)]
        versions, new = [each.bundle.version for each in bundles], {}
        for served in arms.bundles:
            new[id(served)] = served
            try:
                new[id(served)] = await self._grown(served, served.added, versions)
            except (DataError, Unavailable) as error:
                version = served.bundle.version
                logger.error("%s is served without added items for now: %s", version, error)
        return arms.with_served(new)

    async def _grown(
        self, served: ServedBundle, before: ItemsSnapshot, versions: Sequence[str]
    ) -> ServedBundle:
        """A bundle with the added items as they are now.

        Args:
            served: the bundle.
            before: what of the store is known.
            versions: bundles whose vectors are still needed.
        """
        added = await read_changes(
            self._store, self._encode, served.place, served.bundle, before, versions
        )
        if added.version == served.added.version:
            return served
        model = await asyncio.to_thread(extended, served.bundle, added)
        return replace(served, model=model, added=added)
