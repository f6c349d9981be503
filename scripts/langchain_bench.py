"""What LangChain costs on top of the core, as a ratio: `python scripts/langchain_bench.py`.

The bundled pair writes 64 tokens, asked for through the core and through each LangChain class in turns. The
ratio is the median over the turns of the time through LangChain to the time through the core; a second
run of the core in each turn shows how exact that is.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from cosd_core import Chat, CoSDDecoder
from cosd_core.demo import load_pair
from langchain_cosd import ChatCoSD, CoSDLLM

TOKENS = 64
TURNS = 41
PROMPT = "Q: letters in the capital of France plus 4? A:"
OPTIONS: dict[str, Any] = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    draft, assistant = load_pair()
    decoder = CoSDDecoder(draft, assistant)
    llm = CoSDLLM(draft_model=draft, assistant_model=assistant, **OPTIONS)
    chat = ChatCoSD(draft_model=draft, assistant_model=assistant, **OPTIONS)
    asked = Chat([{"role": "user", "content": PROMPT}])
    loop = asyncio.new_event_loop()
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "the core again": (lambda: decoder.generate(PROMPT, **OPTIONS),) * 2,
        "CoSDLLM.invoke": (lambda: decoder.generate(PROMPT, **OPTIONS), lambda: llm.invoke(PROMPT)),
        "CoSDLLM.ainvoke": (
            lambda: loop.run_until_complete(decoder.agenerate(PROMPT, **OPTIONS)),
            lambda: loop.run_until_complete(llm.ainvoke(PROMPT)),
        ),
        "CoSDLLM.stream": (
            lambda: list(decoder.stream(PROMPT, **OPTIONS)),
            lambda: list(llm.stream(PROMPT)),
        ),
        "ChatCoSD.invoke": (lambda: decoder.generate(asked, **OPTIONS), lambda: chat.invoke(PROMPT)),
        "ChatCoSD.ainvoke": (
            lambda: loop.run_until_complete(decoder.agenerate(asked, **OPTIONS)),
            lambda: loop.run_until_complete(chat.ainvoke(PROMPT)),
        ),
        "ChatCoSD.stream": (
            lambda: list(decoder.stream(asked, **OPTIONS)),
            lambda: list(chat.stream(PROMPT)),
        ),
    }
    for name, (core, langchain) in pairs.items():
        ratios = []
        for turn in range(TURNS):
            first, second = (core, langchain) if turn % 2 else (langchain, core)
            times = {which: _seconds(which) for which in (first, second)} if core is not langchain else None
            ratios.append(times[langchain] / times[core] if times else _seconds(core) / _seconds(core))
        low, middle, high = statistics.quantiles(ratios[1:], n=4)
        print(f"{name:18} {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)
    loop.close()


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
