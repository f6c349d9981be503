"""One call of the LLM: its prompt, the grammar of its answer, and the responses."""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, TypeVar

from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms.llm import default_completion_to_prompt

from cosd_core import Chunk, Generation, Grammar, InvalidOptionError, InvalidPromptError
from cosd_core.chat.events import Event, TextDelta
from cosd_core.chat.messages import schema_instruction
from cosd_core.chat.openai_options import answer_schema, split_options
from cosd_core.errors import quoted
from cosd_core.frontend.call import Call
from cosd_core.utils.guarded import guarded
from llama_index_cosd.base import CoSDModel
from llama_index_cosd.messages import to_core
from llama_index_cosd.responses import ResponseBuilder

Options = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class PreparedCall:
    """A call with its prompt: text, or the prompt of a chat turn.

    The ``overrides`` are generation options that override the settings of the call; ``read`` converts a
    chunk, or the whole generation, to the events of the answer.
    """

    call: Call
    prompt: Any
    overrides: Options
    read: Callable[[Chunk | Generation], Sequence[Event]]

    def run(self) -> ResponseBuilder:
        """The whole answer."""
        (generation,) = self.call.generate([self.prompt], **self.overrides)
        return ResponseBuilder(self.call, self.read).add(generation)

    async def arun(self) -> ResponseBuilder:
        """:meth:`run` for asyncio."""
        (generation,) = await self.call.agenerate([self.prompt], **self.overrides)
        return ResponseBuilder(self.call, self.read).add(generation)

    def stream(self, view: Callable[[ResponseBuilder], T]) -> Generator[T, None, None]:
        """A view of the answer after every chunk; closing the generator stops the work."""
        builder = ResponseBuilder(self.call, self.read)
        with closing(self.call.stream(self.prompt, **self.overrides)) as chunks:
            for chunk in chunks:
                yield view(builder.add(chunk))

    async def astream(self, view: Callable[[ResponseBuilder], T]) -> AsyncGenerator[T, None]:
        """:meth:`stream` for asyncio."""
        builder = ResponseBuilder(self.call, self.read)
        async with aclosing(self.call.astream(self.prompt, **self.overrides)) as chunks:
            async for chunk in chunks:
                yield view(builder.add(chunk))


def prepare_completion(llm: CoSDModel, prompt: str, formatted: bool, options: Options) -> PreparedCall:
    """Complete a prompt: as it is if it is formatted, else as a user's message or with the prompt fields."""
    if not isinstance(prompt, str):
        raise InvalidOptionError(f"prompt={quoted(prompt)} should be text")
    others, form = split_options(options)
    if of_chats := [name for name in form if name != "response_format"]:
        raise InvalidOptionError(f"{of_chats[0]} is an option of chats: a completion is all text")
    llm = llm._with_options(others)
    has_own_format = llm.completion_to_prompt is not default_completion_to_prompt
    if not formatted and not has_own_format and llm.metadata.is_chat_model:
        return _of_messages(llm, [ChatMessage(role=MessageRole.USER, content=prompt)], form)
    if not formatted:
        assert llm.completion_to_prompt is not None
        prompt = llm._extend_prompt(_written(llm.completion_to_prompt, prompt))
    return _of_text(llm, prompt, form)


def prepare_chat(llm: CoSDModel, messages: Sequence[ChatMessage], options: Options) -> PreparedCall:
    """Continue a chat."""
    others, form = split_options(options)
    return _of_messages(llm._with_options(others), messages, form)


def _of_messages(llm: CoSDModel, messages: Sequence[ChatMessage], form: Options) -> PreparedCall:
    converted = to_core(messages)
    system = llm.system_prompt
    if system and not any(
        each["role"] == "system" and f"{each['content']}\n".startswith(f"{system}\n") for each in converted
    ):
        messages = [ChatMessage(role=MessageRole.SYSTEM, content=system), *messages]
        converted = to_core(messages)
    if llm.messages_to_prompt is not generic_messages_to_prompt:
        return _of_text(llm, _formatted(llm, messages, form), form)
    call = llm._call()
    turn = call.turn(converted, form)
    return PreparedCall(call, turn.prompt, {"grammar": turn.grammar}, turn.read)


def _of_text(llm: CoSDModel, prompt: str, form: Options) -> PreparedCall:
    overrides: dict[str, Any] = {}
    if (schema := answer_schema(form.get("response_format"))) is not None:
        overrides["grammar"] = Grammar.json_schema(schema)
    return PreparedCall(llm._call(), prompt, overrides, lambda piece: [TextDelta(piece.text)])


def _formatted(llm: CoSDModel, messages: Sequence[ChatMessage], form: Options) -> str:
    """The messages as text by the user's ``messages_to_prompt``."""
    if any(each.get("continue_final_message") for each in (form, llm.chat_template_kwargs)):
        raise InvalidOptionError(
            "continue_final_message is done by chat templates, so it excludes a messages_to_prompt"
        )
    if form.get("tools"):
        raise InvalidOptionError("tools are shown by chat templates, so they exclude a messages_to_prompt")
    if (schema := answer_schema(form.get("response_format"))) and (instruction := schema_instruction(schema)):
        messages = [ChatMessage(role=MessageRole.SYSTEM, content=instruction), *messages]
    assert llm.messages_to_prompt is not None
    return _written(llm.messages_to_prompt, messages)


def _written(write: Callable[[Any], str], content: Any) -> str:
    """A prompt that a user's function writes."""
    with guarded(InvalidPromptError, write):
        prompt = write(content)
    if not isinstance(prompt, str):
        raise InvalidPromptError(f"{quoted(write)} returned {quoted(prompt)}: it should return text")
    return prompt
