"""A graph of LangGraph's: the bundled chat pair calls tools, a person approves each call, the state is kept.

The answer streams out of the graph token by token. Needs ``cosd[langchain]`` and ``langgraph``.
"""

import asyncio

from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from bundled_pairs import load_chat_pair
from langchain_cosd import ChatCoSD

POPULATION = {"Lasko": 4812, "Tamiro": 977, "Nureda": 15230}


def get_population(town: str) -> int:
    """Look up the population of a town."""
    return POPULATION[town]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


Graph = CompiledStateGraph[MessagesState, None, MessagesState, MessagesState]


def build() -> Graph:
    """The model and its tools in turn, until the model answers; the graph stops before the tools run."""
    draft, assistant = load_chat_pair()
    chat = ChatCoSD(draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=96)
    tools = [get_population, add]
    model = chat.bind_tools(tools)

    async def call_model(state: MessagesState) -> dict[str, object]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call_model)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=InMemorySaver(), interrupt_before=["tools"])


async def show(graph: Graph, messages: MessagesState | None, config: RunnableConfig) -> None:
    """Run the graph until it stops, and print the answer's text as it comes."""
    async for chunk, _ in graph.astream(messages, config, stream_mode="messages"):
        if isinstance(chunk, AIMessageChunk):
            print(chunk.text, end="", flush=True)


async def main() -> None:
    graph = build()
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    question = "Add the population of Lasko and the population of Tamiro."
    print(question)
    await show(graph, {"messages": [HumanMessage(question)]}, config)
    while (state := graph.get_state(config)).next:
        for call in state.values["messages"][-1].tool_calls:
            print(f"  approved: {call['name']}({call['args']})")
        await show(graph, None, config)  # go on from the stored state
    print(f"\n{len(graph.get_state(config).values['messages'])} messages are stored.")


if __name__ == "__main__":
    asyncio.run(main())
