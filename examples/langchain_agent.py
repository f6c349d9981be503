"""An agent of LangChain's with two tools, run by the bundled chat pair: it decides, calls, reads, answers.

Needs ``cosd[langchain]`` and ``langchain``.
"""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage

from bundled_pairs import load_chat_pair
from langchain_cosd import ChatCoSD

POPULATION = {"Lasko": 4812, "Tamiro": 977, "Nureda": 15230}


def get_population(town: str) -> int:
    """Look up the population of a town."""
    return POPULATION[town]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def main() -> None:
    draft, assistant = load_chat_pair()
    chat = ChatCoSD(draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=96)
    agent = create_agent(chat, [get_population, add])
    question = "Add the population of Lasko and the population of Tamiro."
    print(question)
    for message in agent.invoke({"messages": [("user", question)]})["messages"][1:]:
        if isinstance(message, AIMessage):
            for call in message.tool_calls:
                print(f"  calls {call['name']}({call['args']})")
            if message.text:
                print(f"  says: {message.text}")
        if isinstance(message, ToolMessage):
            print(f"    gets {message.text}")


if __name__ == "__main__":
    main()
