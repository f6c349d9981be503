"""What LlamaIndex gains from shared batches, as ratios: `python scripts/llama_index_bench.py`.

`tree_summarize` over twelve chunks by the bundled chat pair, which writes 64 tokens an answer: twelve calls,
whose answers are summarised until one is left. One call after another and with `use_async=True`, in turns;
and so the twelve calls alone. The ratios are medians over the turns.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cosd_core.demo.chat import load_chat_pair
from llama_index.core import Settings
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import TreeSummarize

from llama_index_cosd import CoSDLLM

TURNS = 9
TOKENS = 64
PASSAGES = Path(__file__).parent.parent / "examples/corpus/valley.txt"
PROMPT = PromptTemplate("Context:\n{context_str}\n\nQuestion: {query_str}")
QUESTION = "Who built The Kalo Bridge?"


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    draft, assistant = load_chat_pair()
    llm = CoSDLLM(
        draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=TOKENS, min_new_tokens=TOKENS
    )
    Settings.tokenizer = llm.get_tokenizer()
    limit = PromptHelper(context_window=2048, num_output=TOKENS, chunk_size_limit=200)
    words = PASSAGES.read_text(encoding="utf-8").split()
    text = " ".join((words * 3)[:670])  # LlamaIndex cuts it anew
    chunks = limit.repack(PROMPT, [text])
    assert len(chunks) == 12, len(chunks)
    prompts = [PROMPT.format(context_str=chunk, query_str=QUESTION) for chunk in chunks]

    def summarize(use_async: bool) -> Callable[[], Any]:
        tree = TreeSummarize(llm=llm, summary_template=PROMPT, prompt_helper=limit, use_async=use_async)
        return lambda: tree.get_response(QUESTION, chunks)

    async def at_once() -> None:
        await asyncio.gather(*(llm.acomplete(prompt) for prompt in prompts))

    ways: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "the whole summary": (summarize(False), summarize(True)),
        "its twelve first calls": (
            lambda: [llm.complete(prompt) for prompt in prompts],
            lambda: asyncio.run(at_once()),
        ),
    }
    for name, (one_by_one, together) in ways.items():
        ratios = []
        for turn in range(-1, TURNS):
            order = (one_by_one, together) if turn % 2 else (together, one_by_one)
            times = {way: _seconds(way) for way in order}
            if turn >= 0:
                ratios.append(times[one_by_one] / times[together])
        low, median, high = statistics.quantiles(ratios, n=4)
        print(f"{name}: {median:.2f} times as fast at once ({low:.2f} to {high:.2f})", flush=True)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
