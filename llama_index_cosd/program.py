"""Structured answers: a grammar masks every model's logits to the schema before the models are fused."""

from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.llms import LLM
from llama_index.core.program.utils import FlexibleModel, process_streaming_objects
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import BasePydanticProgram
from pydantic import BaseModel, ValidationError

from cosd_core import GenerationError, IncompleteAnswerError, SchemaMismatchError
from cosd_core.errors import quoted

M = TypeVar("M", bound=BaseModel)
Options = dict[str, Any] | None


class CoSDProgram(BasePydanticProgram[M]):
    """A prompt whose answer is a value of a pydantic class; :class:`CoSDLLM` predicts structures by it.

    The class may have validators besides its schema; an answer that they reject is an error.

    Raises:
        IncompleteAnswerError: At a call: ``max_new_tokens`` or a stop string cut the answer.
        SchemaMismatchError: At a call: the answer breaks a rule of the schema that no grammar enforces.
        GenerationError: At a call: the class rejects the answer, or decoding failed.
    """

    def __init__(self, output_cls: type[M], llm: LLM, prompt: BasePromptTemplate) -> None:
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
            **prompt_args: The values of the prompt's variables.
        """
        return self._parse(self._llm.chat(self._messages(prompt_args), **self._options(llm_kwargs)))

    async def acall(self, *_: Any, llm_kwargs: Options = None, **prompt_args: Any) -> M:
        """One answer, for asyncio."""
        return self._parse(await self._llm.achat(self._messages(prompt_args), **self._options(llm_kwargs)))

    def stream_call(
        self, *_: Any, llm_kwargs: Options = None, **prompt_args: Any
    ) -> Generator[M | FlexibleModel, None, None]:
        """The partial answer after every chunk, and at the end the complete one."""
        previous: list[Any] = []
        for response in self._llm.stream_chat(self._messages(prompt_args), **self._options(llm_kwargs)):
            yield from self._answers(response, previous)

    async def astream_call(
        self, *_: Any, llm_kwargs: Options = None, **prompt_args: Any
    ) -> AsyncGenerator[M | FlexibleModel, None]:
        """:meth:`stream_call` for asyncio."""
        stream = await self._llm.astream_chat(self._messages(prompt_args), **self._options(llm_kwargs))

        async def answers() -> AsyncGenerator[M | FlexibleModel, None]:
            previous: list[Any] = []
            async for response in stream:
                for answer in self._answers(response, previous):
                    yield answer

        return answers()

    def _messages(self, prompt_args: dict[str, Any]) -> list[ChatMessage]:
        return self._llm._extend_messages(self._prompt.format_messages(llm=self._llm, **prompt_args))

    def _options(self, llm_kwargs: Options) -> dict[str, Any]:
        schema = {"name": self._output_cls.__name__, "schema": self._output_cls.model_json_schema()}
        return {**(llm_kwargs or {}), "response_format": {"type": "json_schema", "json_schema": schema}}

    def _answers(self, response: ChatResponse, previous: list[Any]) -> list[Any]:
        """The new answer after a response of a stream, if any; ``previous`` holds the last partial one."""
        if response.raw is not None:
            return [self._parse(response)]
        if not response.delta:
            return []
        text = CompletionResponse(text=response.message.content or "")
        previous[:] = [
            process_streaming_objects(text, self._output_cls, previous or None, flexible_mode=True)
        ]
        return previous

    def _parse(self, response: ChatResponse) -> M:
        text, raw = response.message.content or "", response.raw or {}
        if raw["finish_reason"] == "length" or raw["stop_sequence"] is not None:
            what = f"max_new_tokens after {raw['usage']['completion_tokens']} tokens"
            if raw["stop_sequence"] is not None:
                what = f"the stop string {quoted(raw['stop_sequence'])}"
            raise IncompleteAnswerError(f"the {self._output_cls.__name__} was cut by {what}: {quoted(text)}")
        if (error := raw["schema_error"]) is not None:
            raise SchemaMismatchError(
                f"the answer {quoted(text)} does not match the schema of {self._output_cls.__name__}: {error}"
            )
        try:
            return self._output_cls.model_validate_json(text)
        except ValidationError as error:  # LlamaIndex turns a ValueError into an empty answer
            raise GenerationError(
                f"{self._output_cls.__name__} refuses the answer {quoted(text)}: {quoted(error, 240)}"
            ) from error
