"""36 questions about a small valley, answered by LlamaIndex's query engine over two indexes, with citations.

One index counts words (BM25), the other compares vectors of weighted word counts (scikit-learn), so nothing
is downloaded. The bundled chat pair copies the sentence that answers the question; for the first questions,
the example shows which passages were cited and who wrote what. Needs ``cosd[llama-index]`` and
``llama-index-retrievers-bm25``.
"""

import json
from pathlib import Path
from typing import Any

from llama_index.core import ChatPromptTemplate, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.llms import ChatMessage
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from llama_index.retrievers.bm25 import BM25Retriever
from pydantic import Field
from rich.console import Console
from rich.text import Text
from sklearn.feature_extraction.text import TfidfVectorizer

from bundled_pairs import load_chat_pair
from llama_index_cosd import CoSDLLM

CORPUS = Path(__file__).parent / "corpus"
PROMPT = ChatPromptTemplate(
    [
        ChatMessage(role="system", content="Answer from the context."),
        ChatMessage(role="user", content="Context:\n{context_str}\n\nQuestion: {query_str}"),
    ]
)
SHOWN = 3


class WordCounts(BaseEmbedding):
    """Texts as vectors of weighted word counts."""

    vectorizer: Any

    def _get_text_embedding(self, text: str) -> list[float]:
        vector: list[float] = self.vectorizer.transform([text]).toarray()[0].tolist()
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class LastTrace(BaseEventHandler):
    """Keeps the trace of the last answer, which engines do not pass on."""

    tokens: list[dict[str, Any]] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **_: Any) -> None:
        """Look at an event of LlamaIndex."""
        if isinstance(event, LLMChatEndEvent) and event.response is not None:
            self.tokens = event.response.raw["trace"]["tokens"]


def main() -> None:
    console = Console(highlight=False, width=110)
    passages = (CORPUS / "valley.txt").read_text(encoding="utf-8").strip().split("\n\n")
    questions = json.loads((CORPUS / "questions.json").read_text(encoding="utf-8"))
    nodes = [TextNode(text=passage) for passage in passages]
    vectors = WordCounts(vectorizer=TfidfVectorizer(sublinear_tf=True).fit(passages))
    retrievers = {
        "BM25": BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=2),
        "vectors": VectorStoreIndex(nodes, embed_model=vectors).as_retriever(similarity_top_k=2),
    }
    draft, assistant = load_chat_pair()
    llm = CoSDLLM(draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=48, return_trace=True)
    trace = LastTrace()
    get_dispatcher().add_event_handler(trace)

    for name, retriever in retrievers.items():
        engine = RetrieverQueryEngine.from_args(retriever, llm=llm, text_qa_template=PROMPT)
        right = 0
        for at, (question, expected) in enumerate(questions.items()):
            response = engine.query(question)
            right += expected in str(response)
            if at < SHOWN:
                console.print(f"[bold]{question}")
                told = Text("  ")
                for token in trace.tokens:
                    told.append(token["text"], style="green" if token["source"] == "assistant" else "")
                console.print(told)
                writers = [token["source"] for token in trace.tokens]
                console.print(
                    f"  draft wrote {writers.count('draft')} tokens, assistant {writers.count('assistant')}"
                )
                for number, source in enumerate(response.source_nodes, 1):
                    console.print(f"  \\[{number}] {source.text[:60]}...")
        console.print(f"{name}: {right} of {len(questions)} answers are right.\n")


if __name__ == "__main__":
    main()
