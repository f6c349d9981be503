"""Ratios of batching and of the frameworks: `python -m benchmarks.frameworks [name ...]`.

* batching: twelve requests to the bundled pair awaited one after another, over the same requests at once,
  10 ms apart, and as one list of prompts. Then, in processor time of all threads, list calls of sixteen
  chats and of sixteen prompts to the LangChain classes over the bundled chat pair, against one by one.
* langchain: 64 tokens through each LangChain class over the same through the core. The core over itself
  shows the error of the method.
* llama-index: `tree_summarize` over twelve chunks by the bundled chat pair, 64 tokens per answer, one call
  after another over `use_async=True`; and its twelve first calls alone.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Call, print_ratios
from cosd_core import Chat, CoSDDecoder
from cosd_core.demo import load_pair
from cosd_core.models.prefix_cache import without_prefix_caches
from examples.bundled_pairs import load_chat_pair

TOKENS = 64
OPTIONS: dict[str, Any] = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
PROMPTS = [f"Q: letters in the capital of France plus {number}? A:" for number in range(12)]
PASSAGES = Path(__file__).parent.parent / "examples/corpus/valley.txt"


def batching() -> None:
    """Requests that share batches."""
    decoder = CoSDDecoder(*load_pair())

    async def one_by_one() -> None:
        for prompt in PROMPTS:
            await decoder.agenerate(prompt, **OPTIONS)

    async def apart(wait: float) -> None:
        tasks = []
        for prompt in PROMPTS:
            tasks.append(asyncio.create_task(decoder.agenerate(prompt, **OPTIONS)))
            await asyncio.sleep(wait)
        await asyncio.gather(*tasks)

    async def one_batch() -> None:
        await decoder.agenerate(PROMPTS, **OPTIONS)

    alone, at_once = _run(one_by_one), _run(lambda: apart(0))
    ways = {"at once": at_once, "10 ms apart": _run(lambda: apart(0.01)), "one batch": _run(one_batch)}
    print_ratios({name: (alone, way) for name, way in ways.items()}, turns=15)
    _langchain_lists()


def _langchain_lists() -> None:
    """List calls of the LangChain classes over invocations one by one, in processor time."""
    from langchain_core.messages import HumanMessage

    from langchain_cosd import ChatCoSD, CoSDLLM

    draft, assistant = load_chat_pair()
    settings: dict[str, Any] = {"draft_model": draft, "assistant_model": assistant, "alpha": 0.9, **OPTIONS}
    chat, llm = ChatCoSD(**settings), CoSDLLM(**settings)
    questions = [f"How many people live in town {number}?" for number in range(16)]

    def one_by_one(model: ChatCoSD | CoSDLLM) -> Call:
        return lambda: [model.invoke(question) for question in questions]

    ways: dict[str, tuple[Call, Call]] = {
        "ChatCoSD.batch": (one_by_one(chat), lambda: chat.batch(questions)),
        "ChatCoSD.generate": (
            one_by_one(chat), lambda: chat.generate([[HumanMessage(question)] for question in questions])
        ),
        "CoSDLLM.batch": (one_by_one(llm), lambda: llm.batch(questions)),
    }  # fmt: skip
    print_ratios(ways, turns=9, clock=time.process_time)


def langchain() -> None:
    """The cost of LangChain on top of the core."""
    from langchain_cosd import ChatCoSD, CoSDLLM

    draft, assistant = load_pair()
    decoder, prompt = CoSDDecoder(draft, assistant), PROMPTS[4]
    ways: dict[str, tuple[Call, Call]] = {
        "the core again": (lambda: decoder.generate(prompt, **OPTIONS),) * 2,
    }
    inputs: list[tuple[Any, Any]] = [
        (CoSDLLM, prompt), (ChatCoSD, Chat([{"role": "user", "content": prompt}])),
    ]  # fmt: skip
    for kind, text in inputs:
        model = kind(draft_model=draft, assistant_model=assistant, **OPTIONS)
        ways |= _three_ways(kind.__name__, model, prompt, decoder, text)
    print_ratios(ways, turns=41)


def _three_ways(
    name: str, model: Any, prompt: str, decoder: CoSDDecoder, text: Any
) -> dict[str, tuple[Call, Call]]:
    return {
        f"{name}.invoke": (lambda: model.invoke(prompt), lambda: decoder.generate(text, **OPTIONS)),
        f"{name}.ainvoke": (
            _run(lambda: model.ainvoke(prompt)), _run(lambda: decoder.agenerate(text, **OPTIONS))
        ),
        f"{name}.stream": (
            lambda: list(model.stream(prompt)), lambda: list(decoder.stream(text, **OPTIONS))
        ),
    }  # fmt: skip


def llama_index() -> None:
    """The gain of LlamaIndex from shared batches."""
    from llama_index.core import Settings
    from llama_index.core.indices.prompt_helper import PromptHelper
    from llama_index.core.prompts import PromptTemplate
    from llama_index.core.response_synthesizers import TreeSummarize

    from llama_index_cosd import CoSDLLM

    draft, assistant = load_chat_pair()
    llm = CoSDLLM(draft_model=draft, assistant_model=assistant, alpha=0.9, **OPTIONS)
    Settings.tokenizer = llm.get_tokenizer()
    template = PromptTemplate("Context:\n{context_str}\n\nQuestion: {query_str}")
    question = "Who built The Kalo Bridge?"
    limit = PromptHelper(context_window=2048, num_output=TOKENS, chunk_size_limit=200)
    words = PASSAGES.read_text(encoding="utf-8").split()
    chunks = limit.repack(template, [" ".join((words * 3)[:670])])
    assert len(chunks) == 12, len(chunks)
    prompts = [template.format(context_str=chunk, query_str=question) for chunk in chunks]

    def summarize(use_async: bool) -> Call:
        tree = TreeSummarize(llm=llm, summary_template=template, prompt_helper=limit, use_async=use_async)
        return lambda: tree.get_response(question, chunks)

    async def at_once() -> None:
        await asyncio.gather(*(llm.acomplete(prompt) for prompt in prompts))

    ways: dict[str, tuple[Call, Call]] = {
        "the whole summary": (summarize(False), summarize(True)),
        "its twelve first calls": (lambda: [llm.complete(prompt) for prompt in prompts], _run(at_once)),
    }
    print_ratios(ways, turns=9)


def _run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Call:
    return lambda: asyncio.run(work())


BENCHMARKS = {"batching": batching, "langchain": langchain, "llama-index": llama_index}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help="default: all")
    torch.set_num_threads(1)
    for each in parser.parse_args().names or BENCHMARKS:
        print(f"\n{each}")
        with without_prefix_caches():  # the prompts of all turns are the same
            BENCHMARKS[each]()
