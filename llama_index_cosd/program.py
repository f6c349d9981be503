"""Structured answers: every model is masked to the schema before they are fused."""

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.program.utils import FlexibleModel, process_streaming_objects
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import BasePydanticProgram
from pydantic import BaseModel, ValidationError

from cosd_core import GenerationError, IncompleteAnswerError
from cosd_core.errors import quoted

if TYPE_CHECKING:
    from llama_index_cosd.base import CoSDLLM

M = TypeVar("M", bound=BaseModel)
Options = dict[str, Any] | None


class CoSDProgram(BasePydanticProgram[M]):
    """A prompt whose answer is a value of a pydantic class; :class:`CoSDLLM` predicts structures by it.

    The class may hold validators that say more than its schema; an answer that they refuse is an error.

    Raises:
        IncompleteAnswerError: At a call: ``max_new_tokens`` or a stop string cut the answer.
        GenerationError: At a call: the class refuses the answer, or decoding failed.
    """

    def __init__(self, output_cls: type[M], llm: "CoSDLLM", prompt: BasePromptTemplate) -> None:
        self._output_cls = output_cls
        self._llm = llm
        self._prompt = prompt

    @property
    def output_cls(self) -> type[M]:
        """The class of the answers."""
        return self._output_cls

    def __call__(self, *_: Any, llm_kwargs: Options = None, **prompt_args: Any) -> M:
        """One answer.

        Args:
            llm_kwargs: Options of the call.
            **prompt_args: What the prompt's variables stand for.
        """
        return self._read(self._llm.chat(self._messages(prompt_args), **self._options(llm_kwargs)))

    async def acall(self, *_: Any, llm_kwargs: Options = None, **prompt_args: Any) -> M:
        """The same for asyncio."""
        return self._read(await self._llm.achat(self._messages(prompt_args), **self._options(llm_kwargs)))

    def stream_call(
        self, *_: Any, llm_kwargs: Options = None, **prompt_args: Any
    ) -> Generator[M | FlexibleModel, None, None]:
        """The answer as far as it is written, again and again; the last one is whole."""
        seen: list[Any] = []
        for response in self._llm.stream_chat(self._messages(prompt_args), **self._options(llm_kwargs)):
            if response.raw is not None:
                yield self._read(response)
            elif response.delta:
                seen = [self._partly(response, seen)]
                yield seen[0]

    async def astream_call(
        self, *_: Any, llm_kwargs: Options = None, **prompt_args: Any
    ) -> AsyncGenerator[M | FlexibleModel, None]:
        """The same for asyncio."""
        stream = await self._llm.astream_chat(self._messages(prompt_args), **self._options(llm_kwargs))

        async def answers() -> AsyncGenerator[M | FlexibleModel, None]:
            seen: list[Any] = []
            async for response in stream:
                if response.raw is not None:
                    yield self._read(response)
                elif response.delta:
                    seen = [self._partly(response, seen)]
                    yield seen[0]

        return answers()

    def _messages(self, prompt_args: dict[str, Any]) -> list[ChatMessage]:
        return self._llm._extend_messages(self._prompt.format_messages(llm=self._llm, **prompt_args))

    def _options(self, llm_kwargs: Options) -> dict[str, Any]:
        schema = self._output_cls.model_json_schema()
        wanted = {"type": "json_schema", "json_schema": {"name": self._output_cls.__name__, "schema": schema}}
        return {**(llm_kwargs or {}), "response_format": wanted}

    def _partly(self, response: ChatResponse, seen: list[Any]) -> Any:
        text = CompletionResponse(text=response.message.content or "")
        return process_streaming_objects(text, self._output_cls, seen or None, flexible_mode=True)

    def _read(self, response: ChatResponse) -> M:
        text, raw = response.message.content or "", response.raw or {}
        if raw["finish_reason"] == "length" or raw["stop_sequence"] is not None:
            what = f"max_new_tokens after {raw['usage']['completion_tokens']} tokens"
            if raw["stop_sequence"] is not None:
                what = f"the stop string {quoted(raw['stop_sequence'])}"
            raise IncompleteAnswerError(f"the {self._output_cls.__name__} was cut by {what}: {quoted(text)}")
        try:
            return self._output_cls.model_validate_json(text)
        except ValidationError as error:  # a ValueError, which LlamaIndex takes for an empty answer
            raise GenerationError(
                f"{self._output_cls.__name__} refuses the answer {quoted(text)}: {quoted(error, 240)}"
            ) from error
