"""What LlamaIndex gains from shared batches, as a ratio: `python scripts/llama_index_bench.py`.

`tree_summarize` over twelve chunks by the bundled chat pair, which writes 64 tokens an answer: twelve calls,
whose answers are summarised until one is left. One call after another and with `use_async=True`, in turns; the
ratio is the median over the turns.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from llama_index.core import Settings
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import TreeSummarize

from cosd_core.demo.chat import load_chat_pair
from llama_index_cosd import CoSDLLM

TURNS = 7
TOKENS = 64
PASSAGES = Path(__file__).parent.parent / "examples/corpus/valley.txt"
PROMPT = PromptTemplate("Context:\n{context_str}\n\nQuestion: {query_str}")


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    draft, assistant = load_chat_pair()
    llm = CoSDLLM(
        draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=TOKENS, min_new_tokens=TOKENS
    )
    Settings.tokenizer = llm.get_tokenizer()
    passages = PASSAGES.read_text(encoding="utf-8").strip().split("\n\n")
    chunks = [f"{one}\n\n{other}" for one, other in zip(passages, [*passages[1:], passages[0]], strict=True)]
    # One of these chunks a call, not two; then three answers a call, until one is left.
    limit = PromptHelper(context_window=2048, num_output=TOKENS, chunk_size_limit=200)

    def summarize(use_async: bool) -> Callable[[], Any]:
        tree = TreeSummarize(llm=llm, summary_template=PROMPT, prompt_helper=limit, use_async=use_async)
        return lambda: tree.get_response("Who built The Kalo Bridge?", chunks)

    ways = {False: summarize(False), True: summarize(True)}
    ratios = []
    for turn in range(-1, TURNS):
        order = (False, True) if turn % 2 else (True, False)
        times = {which: _seconds(ways[which]) for which in order}
        if turn >= 0:
            ratios.append(times[False] / times[True])
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"{len(chunks)} chunks: use_async is {median:.2f} times as fast ({low:.2f} to {high:.2f})")


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
