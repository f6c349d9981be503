"""Two agents of LlamaIndex's with the same two tools: one calls functions, one reasons in words (ReAct).

The bundled chat pair decides, calls, reads and answers. Needs ``cosd[llama-index]``.
"""

import asyncio

from llama_index.core.agent.react import ReActChatFormatter
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent, ToolCallResult

from bundled_pairs import load_chat_pair
from bundled_pairs.chat.acting import HEADER
from llama_index_cosd import CoSDLLM

POPULATION = {"Lasko": 4812, "Tamiro": 977, "Nureda": 15230}
QUESTION = "Add the population of Lasko and the population of Tamiro."


def get_population(town: str) -> int:
    """Look up the population of a town."""
    return POPULATION[town]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def run(agent: FunctionAgent | ReActAgent) -> None:
    print(f"{type(agent).__name__}: {QUESTION}")
    running = agent.run(QUESTION)
    async for event in running.stream_events():
        if isinstance(event, ToolCallResult):
            print(f"  calls {event.tool_name}({event.tool_kwargs}), gets {event.tool_output.content}")
    print(f"  says: {await running}")


async def main() -> None:
    draft, assistant = load_chat_pair("actor")
    # The draft's chat template takes tools, so this is a function-calling model.
    calling = CoSDLLM(draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=96)
    await run(FunctionAgent(tools=[get_population, add], llm=calling))

    # A ReAct agent reads calls in the text. It must stop before it makes up what a tool would say.
    reasoning = CoSDLLM(
        draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=96, stop=["\nObservation:"]
    )
    header = ReActChatFormatter.from_defaults(system_header=HEADER)
    await run(ReActAgent(tools=[get_population, add], llm=reasoning, formatter=header))


if __name__ == "__main__":
    asyncio.run(main())
