"""One call: what the models are shown, what they may write, and how it is run."""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms.llm import default_completion_to_prompt

from cosd_core import Chunk, Generation, Grammar, InvalidOptionError
from cosd_core.chat.events import Event, TextDelta
from cosd_core.chat.messages import schema_instruction
from cosd_core.chat.openai_options import answer_schema, split_options
from cosd_core.errors import quoted
from cosd_core.frontend.framework_model import usage
from llama_index_cosd.messages import Answer, to_core

if TYPE_CHECKING:
    from llama_index_cosd.base import CoSDLLM

Options = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A call that is ready to run.

    Attributes:
        llm: The model with the options of the call.
        prompt: What the models are shown.
        options: How its text is written, besides the model's settings.
        read: What a piece of the text tells.
    """

    llm: "CoSDLLM"
    prompt: Any
    options: Options
    read: Callable[[Chunk | Generation], Sequence[Event]]

    @classmethod
    def to_complete(cls, llm: "CoSDLLM", prompt: str, formatted: bool, options: Options) -> "Call":
        """Complete a prompt: as it is if it is formatted, else as a user's message or with the prompt fields.

        Raises:
            CoSDError: The prompt or an option is wrong.
        """
        if not isinstance(prompt, str):
            raise InvalidOptionError(f"prompt={quoted(prompt)} should be text")
        others, asked = split_options(options)
        if no_text := [name for name in asked if name != "response_format"]:
            raise InvalidOptionError(f"{no_text[0]} is an option of chats: a completion is all text")
        llm = llm._with_options(others)
        writes_itself = llm.completion_to_prompt is not default_completion_to_prompt
        if not formatted and not writes_itself and llm.metadata.is_chat_model:
            return cls._of_messages(llm, [ChatMessage(role=MessageRole.USER, content=prompt)], asked)
        if not formatted:
            assert llm.completion_to_prompt is not None
            prompt = llm._extend_prompt(llm.completion_to_prompt(prompt))
        return cls._of_text(llm, prompt, asked)

    @classmethod
    def to_chat(cls, llm: "CoSDLLM", messages: Sequence[ChatMessage], options: Options) -> "Call":
        """Answer a chat.

        Raises:
            CoSDError: A message or an option is wrong.
        """
        others, asked = split_options(options)
        return cls._of_messages(llm._with_options(others), messages, asked)

    @classmethod
    def _of_messages(cls, llm: "CoSDLLM", messages: Sequence[ChatMessage], asked: Options) -> "Call":
        told = to_core(messages)
        first = llm.system_prompt
        if first and not any(
            each["role"] == "system" and f"{each['content']}\n".startswith(f"{first}\n") for each in told
        ):
            messages = [ChatMessage(role=MessageRole.SYSTEM, content=first), *messages]
            told = to_core(messages)
        if llm.messages_to_prompt is not generic_messages_to_prompt:
            return cls._of_text(llm, _written(llm, messages, asked), asked)
        turn = llm._turn(told, asked.get("tools") or (), asked)
        return cls(llm, turn.prompt, {"grammar": turn.grammar}, turn.read)

    @classmethod
    def _of_text(cls, llm: "CoSDLLM", prompt: str, asked: Options) -> "Call":
        options: dict[str, Any] = {}
        if (schema := answer_schema(asked.get("response_format"))) is not None:
            options["grammar"] = Grammar.json_schema(schema)
        begin = llm.get_tokenizer().bos_token
        if begin and prompt.startswith(str(begin)):  # whoever wrote the prompt began it
            options["add_special_tokens"] = False
        return cls(llm, prompt, options, lambda piece: [TextDelta(piece.text)])

    def run(self) -> Answer:
        """The whole answer."""
        (generation,) = self.llm._answers([self.prompt], **self.options)
        return self._grown(self._begun(), generation)

    async def arun(self) -> Answer:
        """The same for asyncio."""
        (generation,) = await self.llm._aanswers([self.prompt], **self.options)
        return self._grown(self._begun(), generation)

    def stream(self, view: Callable[[Answer], T]) -> Generator[T, None, None]:
        """Views of the answer as it grows, at least one; closing the generator stops the work."""
        answer = self._begun()
        with closing(self.llm._stream_chunks(self.prompt, **self.options)) as chunks:
            for chunk in chunks:
                yield view(self._grown(answer, chunk))

    async def astream(self, view: Callable[[Answer], T]) -> AsyncGenerator[T, None]:
        """The same for asyncio."""
        answer = self._begun()
        async with aclosing(self.llm._astream_chunks(self.prompt, **self.options)) as chunks:
            async for chunk in chunks:
                yield view(self._grown(answer, chunk))

    def _begun(self) -> Answer:
        return Answer(self.read, logprobs=self.llm.logprobs)

    def _grown(self, answer: Answer, piece: Chunk | Generation) -> Answer:
        answer.add(piece)
        if generation := piece if isinstance(piece, Generation) else piece.generation:
            answer.end(self.llm._info(generation), usage([generation]))
        return answer


def _written(llm: "CoSDLLM", messages: Sequence[ChatMessage], asked: Options) -> str:
    """The messages as the user's own function writes them."""
    if asked.get("tools"):
        raise InvalidOptionError("tools are shown by chat templates, so they exclude a messages_to_prompt")
    if (schema := answer_schema(asked.get("response_format"))) and (asks := schema_instruction(schema)):
        messages = [ChatMessage(role=MessageRole.SYSTEM, content=asks), *messages]
    assert llm.messages_to_prompt is not None
    return llm.messages_to_prompt(messages)
