"""A model pair as a LangChain completion model."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from pydantic import ConfigDict

from cosd_core import Chunk
from cosd_core import Generation as Answer
from cosd_core.frontend.framework_model import usage
from langchain_cosd.base import CoSDModel

_OF_THE_RUN = ("tags", "metadata", "run_name", "run_id")
"""Arguments of a call that are LangChain's, not options of the text."""


class CoSDLLM(CoSDModel, BaseLLM):
    """Two or more language models that complete a text together.

    ::

        llm = CoSDLLM(draft_model="org/model-a", assistant_model="org/model-b", alpha=0.5, max_tokens=64)
        llm.invoke("The capital of France", stop=["."])
        (prompt | llm | StrOutputParser()).invoke(...)

    Every setting is a constructor parameter, and an option of each call. A list of prompts is decoded as
    batches. Asynchronous calls never block the event loop; cancelling one, or closing a stream, stops the
    work. ``generation_info`` holds the finish reason, verifier, statistics, token usage and, with
    ``return_trace``, who wrote every token.

    Raises:
        InvalidOptionError: A parameter is unknown or of a wrong type or value.
    """

    model_config = ConfigDict(extra="forbid")

    def generate(
        self, prompts: list[str], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Complete the prompts; see :meth:`BaseLLM.generate`.

        The options of the call become settings of a copy, so that LangChain's cache, which looks at settings
        only, tells calls with different options apart.
        """
        run = {name: kwargs.pop(name) for name in _OF_THE_RUN if name in kwargs}
        model = self._with_options(kwargs)
        return super(CoSDLLM, model).generate(prompts, model._stop_for_key(stop), callbacks, **run)

    async def agenerate(
        self, prompts: list[str], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """:meth:`generate` for asyncio."""
        run = {name: kwargs.pop(name) for name in _OF_THE_RUN if name in kwargs}
        model = self._with_options(kwargs)
        return await super(CoSDLLM, model).agenerate(prompts, model._stop_for_key(stop), callbacks, **run)

    def _stop_for_key(self, stop: list[str] | None) -> list[str] | None:
        """LangChain's cache key takes a call's ``stop`` for all there is, None too: it is given ours then."""
        return list(self.stop) if stop is None and self.stop else stop

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - nothing to report on the way
        **kwargs: Any,
    ) -> LLMResult:
        model = self._with_stop(stop, kwargs)
        return model._result(model._answers(prompts))

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> LLMResult:
        model = self._with_stop(stop, kwargs)
        return model._result(await model._aanswers(prompts))

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        model = self._with_stop(stop, kwargs)
        with closing(model._stream_chunks(prompt)) as chunks:
            for chunk in chunks:
                piece = model._piece(chunk)
                if run_manager:
                    run_manager.on_llm_new_token(piece.text, chunk=piece)
                yield piece

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        model = self._with_stop(stop, kwargs)
        async with aclosing(model._astream_chunks(prompt)) as chunks:
            async for chunk in chunks:
                piece = model._piece(chunk)
                if run_manager:
                    await run_manager.on_llm_new_token(piece.text, chunk=piece)
                yield piece

    def _result(self, answers: list[Answer]) -> LLMResult:
        generations = [[Generation(text=each.text, generation_info=self._info(each))] for each in answers]
        return LLMResult(
            generations=generations, llm_output={"token_usage": usage(answers), "model_name": self.model_name}
        )

    def _piece(self, chunk: Chunk) -> GenerationChunk:
        # LangChain adds up what chunks say of themselves, strings too: it is said once, at the end.
        info = self._info(chunk.generation) if chunk.generation else None
        return GenerationChunk(text=chunk.text, generation_info=info)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        model = self._with_stop(stop, {name: kwargs[name] for name in kwargs if name != "model"})
        return model._tracing_params("llm", kwargs.get("model"))

    @property
    def _llm_type(self) -> str:
        return "cosd"
