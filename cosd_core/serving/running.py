"""The requests under way: how many there may be, and how a shutdown ends them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cosd_core.errors import OverloadedError
from cosd_core.serving.errors import shutting_down
from cosd_core.serving.work import Work


class Running:
    """The works under way.

    Attributes:
        is_ending: Whether the server is shutting down.
    """

    def __init__(self, most: int) -> None:
        """Admit at most so many requests at once."""
        self._most = most
        self._works: set[Work[Any]] = set()
        self.is_ending = False

    def __len__(self) -> int:
        return len(self._works)

    def check(self) -> None:
        """Refuse another request if there is no place for it.

        Raises:
            RequestError: The server is shutting down.
            OverloadedError: There are too many requests.
        """
        if self.is_ending:
            raise shutting_down()
        if len(self._works) >= self._most:
            raise OverloadedError(f"{self._most} requests are under way (max_concurrent + max_waiting)")

    @contextmanager
    def counted(self, work: Work[Any]) -> Iterator[None]:
        """Count a work while it is read."""
        self._works.add(work)
        try:
            yield
        finally:
            self._works.discard(work)

    async def end(self, grace: float) -> None:
        """Admit no further request, wait so many seconds for those under way, then stop them."""
        self.is_ending = True
        ends = asyncio.get_running_loop().time() + grace
        while self._works and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(min(0.05, grace))
        for work in list(self._works):
            work.stop(shutting_down())
