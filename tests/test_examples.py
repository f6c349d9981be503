"""Every example runs, offline, and says what it promises."""

import asyncio
import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from llama_index.core import Settings

from tests.grids import but_for

EXAMPLES = Path(__file__).parent.parent / "examples"
PROMISES = {
    "two_models.py": ["together:    iron is 26, 26+7=33", "became '3'", "37+8=45", "France is Paris"],
    "two_tokenizers.py": [
        "one vocabulary: False",
        "arithmetic alone:  Behri has 5, 5+4=9",
        "facts alone:       Paris has 6, 6+4=10",
        "together:          Paris has 5, 5+4=9",
        "the assistant wrote ' Paris', in the draft's tokens ' P|ar|is'",
        "the draft wrote ' has 5, 5+4=9'",
        "the arithmetic model reads 13 tokens: ' P|ar|is| has| |5|",
        "the facts model reads 19 tokens: ' |P|a|r|i|s| |h|a|s| |5|",
    ],
    "langchain_chain.py": [
        "Paris has 5, 5+4=9",
        "12 of 12 questions",
        "uranium is 92, 92+2=94",
        "The assistant wrote",
    ],
    "langchain_rag.py": ["built in 1893 by Anra Velist", "opens at 10:30", "6 of 8 answers are right"],
    "langchain_agent.py": ["calls add({'a': 4812, 'b': 977})", "says: The answer is 5789."],
    "langgraph_agent.py": [
        "approved: get_population({'town': 'Lasko'})",
        "approved: add({'a': 4812, 'b': 977})\nThe answer is 5789.\n8 messages are stored.",
    ],
    "langchain_extraction.py": [
        "Person(name='Venra Holm', age=44, city='Lasko')",
        "Person(name='Remo Tasil', age=29, city='Nureda')",
        '\'{"name": "Venra H\' -> None',
    ],
    "langchain_provenance.py": ["was built in 1893 by Anra Velist.", "assistant"],
    "llama_index_agents.py": [
        "FunctionAgent: Add",
        "ReActAgent: Add",
        "calls add({'a': 4812, 'b': 977}), gets 5789\n  says: The answer is 5789.\nReActAgent",
        "gets 5789\n  says: The answer is 5789.\n",
    ],
    "llama_index_chat.py": ["built in 1893 by Anra Velist", "is 41 metres high", "6 messages"],
    "llama_index_rag.py": [
        "opens at 10:30",
        "[1] The Rudin Museum",
        "BM25: ",
        "vectors: ",
    ],
    "llama_index_router.py": [
        "asks 'people': Tamiro has a population of 977.",
        "asks 'height': The height of The Sora Tower is 88 metres",
    ],
}


RIGHT = {"llama_index_rag.py": (r"(\d+) of 36 answers are right", [31, 31])}
"""At least so many: a few answers hang on the last digits of a probability, and so on the processor."""


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PROMISES)


@pytest.mark.parametrize("name", but_for(PROMISES.keys() - RIGHT.keys(), PROMISES))
def test_the_example_says_what_it_promises(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs in this process, since importing torch and a framework takes longer than most examples."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", [name])
    monkeypatch.setattr(Settings, "_llm", None)
    loop = asyncio.new_event_loop()  # LlamaIndex's synchronous calls would open one and leave it open
    asyncio.set_event_loop(loop)
    try:
        with warnings.catch_warnings(action="ignore"):
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        loop.close()
        asyncio.set_event_loop(None)
    printed = capsys.readouterr().out
    for words in PROMISES[name]:
        assert words in printed
    pattern, least = RIGHT.get(name, ("", []))
    counts = [int(count) for count in re.findall(pattern, printed)] if pattern else []
    assert len(counts) == len(least)
    assert all(count >= bound for count, bound in zip(counts, least, strict=True))
