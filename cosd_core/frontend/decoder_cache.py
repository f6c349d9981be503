"""The decoders of one set of models."""

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from cosd_core.decoder import CoSDDecoder
from cosd_core.frontend.settings import Settings
from cosd_core.models.base import BaseLanguageModel
from cosd_core.utils import Lock

_MAX_DECODERS = 8
"""The decoders share the weights, but each has a worker thread of its own."""

_THREADS = 4
"""So many calls are prepared at once: a slow chat template does not delay the others."""

T = TypeVar("T")


class DecoderCache:
    """Maps settings that name the same models to decoders over one copy of these models.

    A framework copies its object for every configured call; all copies hold the same cache. A copy that is
    made by pickling starts with an empty one.

    Attributes:
        sources: :meth:`Settings.sources` of the models; None in a cache that no settings were given to.
    """

    def __init__(self, sources: Mapping[str, Any] | None = None) -> None:
        self.sources = sources
        self._lock = Lock()
        self._decoders: list[tuple[Mapping[str, Any], CoSDDecoder]] = []
        self._process = -1

    @property
    def models(self) -> tuple[BaseLanguageModel, ...] | None:
        """The draft, then the assistants; None if they are not loaded yet."""
        return self._decoders[0][1].models if self._decoders else None

    def get(self, settings: Settings) -> CoSDDecoder:
        """The decoder of these settings, whose models are those of the cache; the first call loads them."""
        method = settings.method()
        with self._lock:
            for known, decoder in self._decoders:
                if known is method or known == method:
                    return decoder
            if (models := self.models) is not None:
                decoder = CoSDDecoder(models[0], models[1:], **method)
            else:
                decoder = settings.decoder()
            self._decoders = [(method, decoder), *self._decoders[: _MAX_DECODERS - 1]]
            return decoder

    def unload(self) -> None:
        """Release the models; the next :meth:`get` loads them again.

        Raises:
            ModelInUseError: As :meth:`CoSDDecoder.unload`.
        """
        if self._process == os.getpid():
            self._process = -1
            self._threads.shutdown()  # the prompt of a cancelled call may still be prepared there
        with self._lock:
            while self._decoders:
                self._decoders[0][1].unload()
                self._decoders = self._decoders[1:]

    async def run_in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run work that may load the models outside the event loop."""
        if self._process != os.getpid():  # threads do not survive a fork
            # Not asyncio's pool: concurrent first calls, which all wait for the models, would fill it.
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cosd-front")
            self._process = os.getpid()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the cache itself: weights are never copied."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle no models: the other process loads its own."""
        return DecoderCache, ()
