"""A router of LlamaIndex's over two query engines: the pair chooses one as it chooses tools, then answers.

Needs ``cosd[llama-index]`` and ``llama-index-retrievers-bm25``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core import ChatPromptTemplate
from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.llms import ChatMessage
from llama_index.core.query_engine import RetrieverQueryEngine, RouterQueryEngine
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata
from llama_index.retrievers.bm25 import BM25Retriever

from bundled_pairs import load_chat_pair
from llama_index_cosd import CoSDLLM

CORPUS = Path(__file__).parent / "corpus" / "valley.txt"
PROMPT = ChatPromptTemplate(
    [
        ChatMessage(role="system", content="Answer from the context."),
        ChatMessage(role="user", content="Context:\n{context_str}\n\nQuestion: {query_str}"),
    ]
)
QUESTIONS = [
    "How many people live in Tamiro?",
    "What is the height of The Sora Tower?",
    "How many people live in Nureda?",
]


class ToolSelector(BaseSelector):
    """Chooses by a tool call, which is held to the names of the engines by a grammar."""

    def __init__(self, llm: CoSDLLM) -> None:
        self._llm = llm

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        def look_up(place: str) -> str:
            return place

        tools = [
            FunctionTool.from_defaults(look_up, name=choice.name, description=choice.description)
            for choice in choices
        ]
        response = self._llm.chat_with_tools(tools, user_msg=query.query_str, tool_required=True)
        (call,) = self._llm.get_tool_calls_from_response(response)
        chosen = [choice.name for choice in choices].index(call.tool_name)
        return SelectorResult(selections=[SingleSelection(index=chosen, reason=f"{call.tool_kwargs}")])

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        return self._select(choices, query)

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: dict[str, Any]) -> None:
        """There are none."""


def engine(llm: CoSDLLM, name: str, passages: list[str]) -> QueryEngineTool:
    nodes = [TextNode(text=passage) for passage in passages]
    retriever = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=1)
    answering = RetrieverQueryEngine.from_args(retriever, llm=llm, text_qa_template=PROMPT)
    return QueryEngineTool.from_defaults(answering, name=name, description=f"Return {name} of a place.")


def main() -> None:
    passages = CORPUS.read_text(encoding="utf-8").strip().split("\n\n")
    draft, assistant = load_chat_pair()
    llm = CoSDLLM(draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=48)
    tools = [
        engine(llm, "people", [each for each in passages if "population" in each]),
        engine(llm, "height", [each for each in passages if "metres" in each]),
    ]
    router = RouterQueryEngine(selector=ToolSelector(llm), query_engine_tools=tools, llm=llm)
    for question in QUESTIONS:
        response = router.query(question)
        chosen = tools[response.metadata["selector_result"].ind].metadata.name
        print(f"{question}\n  asks {chosen!r}: {response}")


if __name__ == "__main__":
    main()
