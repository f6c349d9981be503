"""A model pair as a LangChain completion model."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any

from langchain_core.language_models import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from pydantic import ConfigDict
from typing_extensions import override

import cosd_core
from cosd_core.frontend.call import Call, token_usage
from langchain_cosd.base import AsyncRun, CoSDModel, Run, Stop, generation_info

_RUN_ARGUMENTS = ("tags", "metadata", "run_name", "run_id")
"""Arguments of a call that are for LangChain's callbacks, not options of the text."""


class CoSDLLM(CoSDModel, BaseLLM):
    """Two or more language models that complete a text together.

    ::

        llm = CoSDLLM(draft_model="org/model-a", assistant_model="org/model-b", alpha=0.5, max_tokens=64)
        llm.invoke("The capital of France", stop=["."])
        (prompt | llm | StrOutputParser()).invoke(...)

    Every setting is a constructor parameter; those that do not load models are options of each call, too. A
    list of prompts is decoded as batches. Asynchronous calls never block the event loop; cancelling one, or
    closing a stream, stops the work. ``generation_info`` holds the finish reason, verifier, statistics,
    token usage, with ``logprobs`` those of every token, and with ``return_trace`` the trace that
    :func:`cosd_core.explain.to_html` shows.

    Raises:
        InvalidOptionError: A parameter is unknown or of a wrong type or value.
    """

    model_config = ConfigDict(extra="forbid")

    # LangChain makes its cache key from the model's settings and ``stop`` alone. So generate and agenerate
    # make a copy of the model that has the options of the call as settings, and pass the settings' ``stop``.

    def generate(
        self, prompts: list[str], stop: Stop = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Complete the prompts; see :meth:`BaseLLM.generate`."""
        run = {name: kwargs.pop(name) for name in _RUN_ARGUMENTS if name in kwargs}
        model = self._with_stop(stop, kwargs)
        return super(CoSDLLM, model).generate(prompts, list(model.stop) or stop, callbacks, **run)

    async def agenerate(
        self, prompts: list[str], stop: Stop = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """:meth:`generate` for asyncio."""
        run = {name: kwargs.pop(name) for name in _RUN_ARGUMENTS if name in kwargs}
        model = self._with_stop(stop, kwargs)
        return await super(CoSDLLM, model).agenerate(prompts, list(model.stop) or stop, callbacks, **run)

    # BaseLLM's batch and abatch make one run of all prompts, which share batches from the first round on. But
    # they return one error for all prompts, and drop run ids.

    def batch(
        self, inputs: Any, config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[str]:
        """Complete the prompts, in batches; see :meth:`Runnable.batch`."""
        batch = CoSDModel.batch if return_exceptions or _has_run_ids(config) else BaseLLM.batch
        answers: list[str] = batch(self, inputs, config, return_exceptions=return_exceptions, **kwargs)
        return answers

    async def abatch(
        self, inputs: Any, config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[str]:
        """:meth:`batch` for asyncio."""
        abatch = CoSDModel.abatch if return_exceptions or _has_run_ids(config) else BaseLLM.abatch
        return await abatch(self, inputs, config, return_exceptions=return_exceptions, **kwargs)

    @override
    def _generate(
        self, prompts: list[str], stop: Stop = None, run_manager: Run = None, **kwargs: Any
    ) -> LLMResult:
        call = self._with_stop(stop, kwargs)._call()
        return _result(call, call.generate(prompts) if prompts else [])

    @override
    async def _agenerate(
        self, prompts: list[str], stop: Stop = None, run_manager: AsyncRun = None, **kwargs: Any
    ) -> LLMResult:
        call = self._with_stop(stop, kwargs)._call()
        return _result(call, await call.agenerate(prompts) if prompts else [])

    def _stream(
        self, prompt: str, stop: Stop = None, run_manager: Run = None, **kwargs: Any
    ) -> Iterator[GenerationChunk]:
        call = self._with_stop(stop, kwargs)._call()
        with closing(call.stream(prompt)) as chunks:
            for chunk in chunks:
                converted = _chunk(call, chunk)
                if run_manager:
                    run_manager.on_llm_new_token(converted.text, chunk=converted)
                yield converted

    async def _astream(
        self, prompt: str, stop: Stop = None, run_manager: AsyncRun = None, **kwargs: Any
    ) -> AsyncIterator[GenerationChunk]:
        call = self._with_stop(stop, kwargs)._call()
        async with aclosing(call.astream(prompt)) as chunks:
            async for chunk in chunks:
                converted = _chunk(call, chunk)
                if run_manager:
                    await run_manager.on_llm_new_token(converted.text, chunk=converted)
                yield converted

    @property
    def _llm_type(self) -> str:
        return "cosd"


def _has_run_ids(config: Any) -> bool:
    configs = config if isinstance(config, Sequence) else [config or {}]
    return any(each.get("run_id") is not None for each in configs)


def _result(call: Call, completions: Sequence[cosd_core.Generation]) -> LLMResult:
    return LLMResult(
        generations=[
            [
                Generation(
                    text=each.text, generation_info=generation_info(call, each) | call.logprobs(each.tokens)
                )
            ]
            for each in completions
        ],
        llm_output={"token_usage": token_usage(completions), "model_name": call.settings.model_name},
    )


def _chunk(call: Call, chunk: cosd_core.Chunk) -> GenerationChunk:
    # LangChain concatenates the info of all chunks: lists such as logprobs, but strings too, so that only the
    # last chunk has them.
    info = call.logprobs(chunk.tokens) | (generation_info(call, chunk.generation) if chunk.generation else {})
    return GenerationChunk(text=chunk.text, generation_info=info or None)
