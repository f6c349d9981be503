"""What settings have loaded: the models, once, and the decoders over them."""

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar, cast

from cosd_core.decoder import CoSDDecoder
from cosd_core.utils import Lock

_MOST_DECODERS = 8
"""They share the weights; each has a worker thread of its own."""

T = TypeVar("T")


class DecoderCache:
    """The decoders over one pair of models, made on first use and shared by all copies of the settings.

    Frameworks copy their objects for every configured call; what is loaded must outlive such copies.

    Attributes:
        sources: What is to be loaded, as :meth:`Settings.sources` says it; None where nobody said yet.
    """

    def __init__(self, sources: Mapping[str, Any] | None = None) -> None:
        self.sources = sources
        self._lock = Lock()
        self._decoders: list[tuple[Mapping[str, Any], CoSDDecoder]] = []
        self._found: dict[str, Any] = {}
        self._process = -1

    @property
    def is_loaded(self) -> bool:
        """Whether the models are there."""
        return bool(self._decoders)

    def remembered(self, what: str, find: Callable[[], T]) -> T:
        """What has been found out about the models, found out once."""
        if what not in self._found:
            self._found[what] = find()
        return cast(T, self._found[what])

    async def run_in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do what may load the models, or takes long, away from the event loop."""
        if self._process != os.getpid():  # a fork brings no threads along
            # Of our own: many first calls at once, all waiting for the models, would fill asyncio's pool.
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cosd-front")
            self._process = os.getpid()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def decoder(self, method: Mapping[str, Any]) -> CoSDDecoder:
        """The decoder that works by this method; the first one loads the models.

        Args:
            method: What :meth:`Settings.method` says.

        Raises:
            CoSDError: As :meth:`CoSDDecoder.from_pretrained`.
        """
        assert self.sources is not None, "settings say first what is to be loaded"
        with self._lock:
            for known, decoder in self._decoders:
                if known == method:
                    return decoder
            if self._decoders:
                first = self._decoders[0][1]
                decoder = CoSDDecoder(first.draft, first.assistants, **method)
            else:
                decoder = CoSDDecoder.from_pretrained(**self.sources, **method)
            self._decoders = [(method, decoder), *self._decoders[: _MOST_DECODERS - 1]]
            return decoder

    def __eq__(self, other: object) -> bool:
        """Settings are equal or not by what they say, whatever is loaded."""
        return isinstance(other, DecoderCache)

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Weights are never copied."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads for itself."""
        return DecoderCache, ()
