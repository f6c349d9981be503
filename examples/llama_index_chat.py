"""A chat engine of LlamaIndex's that streams: it finds passages for every question, and remembers the talk.

Needs ``cosd[llama-index]`` and ``llama-index-retrievers-bm25``.
"""

from pathlib import Path

from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.schema import TextNode
from llama_index.retrievers.bm25 import BM25Retriever

from bundled_pairs import load_chat_pair
from llama_index_cosd import CoSDLLM

CORPUS = Path(__file__).parent / "corpus" / "valley.txt"
QUESTIONS = ["Who built The Kalo Bridge?", "How high is The Kalo Bridge?", "When was The Kalo Bridge built?"]


def main() -> None:
    passages = CORPUS.read_text(encoding="utf-8").strip().split("\n\n")
    nodes = [TextNode(text=passage) for passage in passages]
    draft, assistant = load_chat_pair()
    engine = ContextChatEngine.from_defaults(
        retriever=BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=2),
        llm=CoSDLLM(draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=48),
    )
    for question in QUESTIONS:
        print(question, end="\n  ")
        for token in engine.stream_chat(question).response_gen:
            print(token, end="", flush=True)
        print()
    print(f"{len(engine.chat_history)} messages are remembered.")


if __name__ == "__main__":
    main()
