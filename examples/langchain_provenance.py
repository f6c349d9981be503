"""A streamed answer, then the same answer with the assistant's tokens underlined.

``explain.to_html(message)`` makes an HTML page of it.

Needs ``cosd[langchain]``.
"""

import asyncio

from rich.console import Console

from bundled_pairs import load_chat_pair
from cosd_core import explain
from langchain_cosd import ChatCoSD

QUESTIONS = [
    "Say Lasko",
    "Context:\nThe Kalo Bridge was built in 1893 by Anra Velist.\n\nQuestion: Who built The Kalo Bridge?",
]


async def main() -> None:
    console = Console(highlight=False)
    draft, assistant = load_chat_pair()
    chat = ChatCoSD(draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=48, return_trace=True)
    for question in QUESTIONS:
        console.print(f"[bold]{question}")
        whole = None
        async for chunk in chat.astream(question):
            console.print(chunk.text, end="")
            whole = chunk if whole is None else whole + chunk
        assert whole is not None
        console.print("\n ", explain.to_text(whole))
        sources = [token["source"] for token in whole.response_metadata["trace"]["tokens"]]
        console.print(f"  draft wrote {sources.count('draft')}, assistant {sources.count('assistant')}\n")


if __name__ == "__main__":
    asyncio.run(main())
