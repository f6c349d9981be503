"""Agents: what LlamaIndex's workflows make of the class, streaming or not.

The bundled pair decides by itself where an answer is claimed. Elsewhere what the models say is given, by a
function of what they are shown.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.agent.react import ReActChatFormatter
from llama_index.core.agent.workflow import (
    AgentStream,
    AgentWorkflow,
    CodeActAgent,
    FunctionAgent,
    ReActAgent,
    ToolCallResult,
)
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool, QueryEngineTool

from cosd_core import ContextOverflowError, CoSDError, LogitsProcessorError
from llama_index_cosd import CoSDLLM
from tests.llama_index.conftest import Breaks, Spied, saying, scripted, within
from tests.models import counted_passes

# Workflows look at themselves with inspect, which finds pydantic's old names and one of their own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `__fields(_set)?__` attribute is deprecated"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_(computed_)?fields' attribute on the instance"),
]

POPULATION = {"Lasko": 4812, "Tamiro": 977}
QUESTION = "Add the population of Lasko and the population of Tamiro."
streamed_or_not = pytest.mark.parametrize("streaming", [True, False])


def get_population(town: str) -> int:
    """Look up the population of a town."""
    return POPULATION[town]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TOOLS = [FunctionTool.from_defaults(get_population), FunctionTool.from_defaults(add)]


def mark_of(llm: Any) -> str:
    return "<|im_start|>assistant\n" if llm.metadata.is_chat_model else "### Assistant\n"


def telling(llm: Any, answer: str | Callable[[str], str], **settings: Any) -> CoSDLLM:
    return scripted(llm, answer, mark_of(llm), **settings)


def calling(*calls: tuple[str, dict[str, Any]]) -> str:
    written = [json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls]
    return "\n".join(f"<tool_call>\n{each}\n</tool_call>" for each in written)


async def run(agent: Any, message: str, **options: Any) -> tuple[Any, list[Any]]:
    """The answer of an agent and what it told on the way."""
    handler = agent.run(message, **options)
    events = [each async for each in handler.stream_events()]
    return await within(handler), events


def results(events: list[Any]) -> list[tuple[str, Any]]:
    return [
        (each.tool_name, each.tool_output.raw_output) for each in events if isinstance(each, ToolCallResult)
    ]


def functions(llm: Any, tools: Any = TOOLS, **options: Any) -> FunctionAgent:
    if not llm.metadata.is_function_calling_model:  # its draft has no template
        llm = llm.model_copy(update={"is_function_calling_model": True})
    return FunctionAgent(tools=tools, llm=llm, **options)


# The bundled pair


@streamed_or_not
async def test_the_bundled_pair_calls_reads_and_answers(bundled: Any, streaming: bool) -> None:
    assert bundled.is_function_calling_model is None, "the draft's template decides"
    answer, events = await run(FunctionAgent(tools=TOOLS, llm=bundled, streaming=streaming), QUESTION)
    assert str(answer) == "The answer is 5789."
    assert results(events) == [("get_population", 4812), ("get_population", 977), ("add", 5789)]
    deltas = "".join(each.delta for each in events if isinstance(each, AgentStream))
    assert deltas == ("The answer is 5789." if streaming else "")


async def test_a_workflow_picks_the_kind_of_agent_by_the_template_or_the_flag(bundled: Any) -> None:
    workflow = AgentWorkflow.from_tools_or_functions([get_population, add], llm=bundled)
    assert isinstance(workflow.agents["Agent"], FunctionAgent)
    answer, events = await run(workflow, QUESTION)
    assert str(answer) == "The answer is 5789."
    assert len(results(events)) == 3
    plain = bundled.model_copy(update={"is_function_calling_model": False})
    other = AgentWorkflow.from_tools_or_functions([add], llm=plain)
    assert isinstance(other.agents["Agent"], ReActAgent)


# FunctionAgent


def once(llm: Any, first: str, then: str, **settings: Any) -> CoSDLLM:
    """Says one thing first, another once a tool's result is shown."""
    return telling(llm, lambda prompt: then if "RESULT" in prompt else first, **settings)


def look(place: str) -> str:
    """Look somewhere."""
    return f"RESULT {place}"


LOOK = FunctionTool.from_defaults(look)


@streamed_or_not
async def test_a_function_agent_calls_and_answers(llm: Any, streaming: bool) -> None:
    told = once(llm, "Let me see." + calling(("look", {"place": "Oslo"})), "It rains.")
    answer, events = await run(functions(told, [LOOK], streaming=streaming), "What of Oslo?")
    assert str(answer) == "It rains."
    assert results(events) == [("look", "RESULT Oslo")]
    if streaming:
        assert (
            "".join(each.delta for each in events if isinstance(each, AgentStream)) == "Let me see.It rains."
        )
    assert answer.raw["usage"]["completion_tokens"] == len("It rains.") + 1


@streamed_or_not
async def test_a_function_agent_makes_several_calls_at_once(llm: Any, streaming: bool) -> None:
    told = once(llm, calling(("look", {"place": "Oslo"}), ("look", {"place": "Rome"})), "Rain, sun.")
    answer, events = await run(
        functions(told, [LOOK], streaming=streaming, allow_parallel_tool_calls=True), "?"
    )
    assert str(answer) == "Rain, sun."
    assert sorted(results(events)) == [("look", "RESULT Oslo"), ("look", "RESULT Rome")]


@streamed_or_not
async def test_a_function_agent_takes_no_broken_call_for_whole(llm: Any, streaming: bool) -> None:
    whole = calling(("look", {"place": "Oslo"}))
    size = len(llm.get_tokenizer().encode(whole[: whole.index("}}")], add_special_tokens=False))
    cut = telling(llm, whole, max_new_tokens=size)
    answer, events = await run(functions(cut, [LOOK], streaming=streaming), "?")
    assert results(events) == []
    assert '"place": "Oslo"' in str(answer), "what was written is not lost"


@streamed_or_not
async def test_an_initial_choice_makes_the_agent_call(llm: Any, streaming: bool) -> None:
    def now() -> str:
        """Tell the time."""
        return "noon"

    tool = FunctionTool.from_defaults(now, return_direct=True)
    agent = functions(llm.model_copy(update={"max_new_tokens": 200}), [tool], streaming=streaming,
                      initial_tool_choice="now", allow_parallel_tool_calls=False)  # fmt: skip
    answer, events = await run(agent, "What time is it?")
    assert results(events) == [("now", "noon")]
    assert str(answer) == "noon"


async def test_a_function_agent_remembers_its_calls(llm: Any) -> None:
    told = once(llm, calling(("look", {"place": "Oslo"})), "It rains.")
    memory = ChatMemoryBuffer.from_defaults(token_limit=3000)
    await run(functions(told, [LOOK]), "What of Oslo?", memory=memory)
    assert [each.role.value for each in memory.get_all()] == ["user", "assistant", "tool", "assistant"]
    spied = Spied(llm)
    await run(functions(spied.llm, [LOOK]), "And Rome?", memory=memory)
    shown = spied.only
    order = ["What of Oslo?", '"place": "Oslo"', "RESULT Oslo", "It rains.", "And Rome?"]
    assert [shown.rindex(each) for each in order] == sorted(shown.rindex(each) for each in order)


async def test_agents_hand_over(llm: Any) -> None:
    def first(prompt: str) -> str:
        return calling(("handoff", {"to_agent": "second", "reason": "it knows"}))

    one = functions(telling(llm, first), [], name="first", description="Asks.", can_handoff_to=["second"])
    two = functions(telling(llm, "It rains."), [], name="second", description="Knows.")
    workflow = AgentWorkflow(agents=[one, two], root_agent="first")
    answer, events = await run(workflow, "What of Oslo?")
    assert str(answer) == "It rains."
    assert [name for name, _ in results(events)] == ["handoff"]
    assert answer.current_agent_name == "second"


async def test_agents_at_once_do_not_mix(llm: Any) -> None:
    def agent(place: str) -> FunctionAgent:
        return functions(once(llm, calling(("look", {"place": place})), f"It rains in {place}."), [LOOK])

    places = ["Oslo", "Rome", "Bonn", "Lima"]
    answers = await within(asyncio.gather(*(run(agent(place), "?") for place in places)))
    assert [str(answer) for answer, _ in answers] == [f"It rains in {place}." for place in places]


async def test_a_query_engine_is_a_tool(llm: Any, documents: Any) -> None:
    engine = SummaryIndex.from_documents(documents).as_query_engine(llm=saying(llm, "RESULT 88 meters"))
    tool = QueryEngineTool.from_defaults(engine, name="towers", description="About towers.")
    told = once(llm, calling(("towers", {"input": "How high?"})), "88 meters.")
    answer, events = await run(functions(told, [tool]), "How high is it?")
    assert str(answer) == "88 meters."
    assert [name for name, _ in results(events)] == ["towers"]


# ReActAgent


ACTION = 'Thought: I must look.\nAction: look\nAction Input: {"place": "Oslo"}'
SHORT = ReActChatFormatter(system_header="Tools: {tool_desc}\nNames: {tool_names}")


@streamed_or_not
@pytest.mark.parametrize("flag", [False, True])
async def test_a_react_agent_acts_and_answers(llm: Any, streaming: bool, flag: bool) -> None:
    told = once(llm, ACTION, "Thought: I know.\nAnswer: It rains.", is_function_calling_model=flag)
    agent = ReActAgent(tools=[LOOK], llm=told, streaming=streaming, formatter=SHORT)
    answer, events = await run(agent, "What of Oslo?")
    assert str(answer) == "It rains."
    assert results(events) == [("look", "RESULT Oslo")]


async def test_a_react_agent_with_its_own_words(llm: Any) -> None:
    told = once(llm, ACTION, "Thought: I know.\nAnswer: It rains.")
    answer, _ = await run(ReActAgent(tools=[LOOK], llm=told), "What of Oslo?")
    assert str(answer) == "It rains."


async def test_an_invented_observation_is_cut_by_a_stop_string(llm: Any) -> None:
    told = once(llm, ACTION + "\nObservation: RESULT none", "Thought: x\nAnswer: It rains.\nObservation: y")
    stopping = told.model_copy(update={"stop": ("\nObservation:",)})
    answer, events = await run(ReActAgent(tools=[LOOK], llm=stopping, formatter=SHORT), "What of Oslo?")
    assert str(answer) == "It rains."
    assert results(events) == [("look", "RESULT Oslo")]


async def test_a_react_agent_asks_again_after_what_it_cannot_read(llm: Any) -> None:
    """It sends two user's messages in a row then."""
    nonsense = "Action: \nAction Input:"
    told = telling(llm, lambda prompt: "Thought: I know.\nAnswer: Yes." if "Error" in prompt else nonsense)
    answer, _ = await run(ReActAgent(tools=[LOOK], llm=told, formatter=SHORT), "What of Oslo?")
    assert str(answer) == "Yes."


# CodeActAgent


@streamed_or_not
async def test_a_code_agent_writes_code_and_answers(llm: Any, streaming: bool) -> None:
    ran: list[str] = []

    def execute(code: str) -> str:
        ran.append(code)
        return "RESULT 3"

    told = once(llm, "<execute>\nprint(1 + 2)\n</execute>", "It is 3.")
    agent = CodeActAgent(
        code_execute_fn=execute, llm=told, streaming=streaming, code_act_system_prompt="{tool_descriptions}"
    )
    answer, _ = await run(agent, "What is 1 + 2?")
    assert str(answer) == "It is 3."
    assert [each.strip() for each in ran] == ["print(1 + 2)"]


# Errors and cancelling


@streamed_or_not
@pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent])
async def test_errors_come_through_agents(llm: Any, kind: Any, streaming: bool) -> None:
    for settings, message, error in (
        ({"logits_processor": (Breaks(after=8),)}, "x", LogitsProcessorError),
        ({}, "x" * 9000, ContextOverflowError),
        ({"temperature": -1.0}, "x", CoSDError),
    ):
        broken = llm.model_copy(update={"is_function_calling_model": True, **settings})
        agent = kind(tools=[LOOK], llm=broken, streaming=streaming)
        handler = agent.run(message)
        with pytest.raises(error):
            await within(handler)


@streamed_or_not
async def test_a_cancelled_agent_stops_the_work(llm: Any, streaming: bool) -> None:
    long = llm.model_copy(update={"max_new_tokens": 1500})
    with counted_passes(llm.draft_model) as passes:
        handler = functions(long, [LOOK], streaming=streaming).run("x")
        while not passes:
            await asyncio.sleep(0.005)
        await handler.cancel_run()
        await asyncio.sleep(0.15)
        done = len(passes)
        await asyncio.sleep(0.1)
        assert len(passes) == done < 1000


async def test_an_agent_keeps_the_model_it_was_given(llm: Any) -> None:
    assert ReActAgent(tools=[LOOK], llm=llm).llm is llm
    assert functions(llm).llm._decoder().draft is llm.draft_model
