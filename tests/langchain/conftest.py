"""What the tests of the LangChain classes share: pairs, models over them, and calls of both kinds."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cosd_core import CoSDDecoder, LanguageModel
from langchain_cosd import CoSDLLM
from tests.models import ascii_model

Caller = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="package")
def pair() -> tuple[LanguageModel, LanguageModel]:
    return ascii_model(seed=0, eos_token_id=None), ascii_model(seed=1, eos_token_id=None)


@pytest.fixture
def llm(pair: tuple[LanguageModel, LanguageModel]) -> CoSDLLM:
    return CoSDLLM(draft_model=pair[0], assistant_model=pair[1], max_tokens=24)


@pytest.fixture
def decoder(pair: tuple[LanguageModel, LanguageModel]) -> CoSDDecoder:
    return CoSDDecoder(*pair)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Caller:
    """``await call(llm, "invoke", ...)`` calls ``invoke`` or ``ainvoke``; streams come back as lists."""

    async def run(llm: Any, method: str, *arguments: Any, **options: Any) -> Any:
        if request.param == "sync":
            result = getattr(llm, method)(*arguments, **options)
            return list(result) if method == "stream" else result
        result = getattr(llm, f"a{method}")(*arguments, **options)
        return [each async for each in result] if method == "stream" else await result

    return run


@asynccontextmanager
async def loop_stays_free() -> AsyncIterator[None]:
    """The event loop answers within 50 ms while what stands inside is awaited."""
    latencies: list[float] = []

    async def heartbeat() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            latencies.append(time.perf_counter() - started - 0.005)

    beat = asyncio.create_task(heartbeat())
    try:
        yield
    finally:
        beat.cancel()
    assert len(latencies) > 10
    # The ninth decile: one late beat on a busy machine is not a blocked loop.
    assert sorted(latencies)[len(latencies) * 9 // 10] < 0.05
