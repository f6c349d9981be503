"""List calls of the chat model: its chats are decoded as batches."""

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables.config import ContextThreadPoolExecutor

from langchain_cosd.base import CoSDModel, Stop


class ChatListCalls(CoSDModel, BaseChatModel):
    """A chat model whose :meth:`generate` and :meth:`agenerate` decode lists of chats as batches.

    LangChain's ``generate`` takes one chat after the other. Here every chat is a call of its own, so that
    cache, rate limiter, callbacks and errors stay chat by chat.
    """

    def generate(
        self, messages: list[list[BaseMessage]], stop: Stop = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Continue the chats; see :meth:`BaseChatModel.generate`."""
        if len(messages) < 2:
            return super().generate(messages, stop, callbacks, **kwargs)
        model = self._sharing_batches()
        generate_one = super(ChatListCalls, model).generate
        run_ids = [kwargs.pop("run_id", None), *[None] * (len(messages) - 1)]

        def generate(chat: list[BaseMessage], run_id: Any) -> LLMResult:
            return generate_one([chat], stop, callbacks, run_id=run_id, **kwargs)

        with ContextThreadPoolExecutor(max_workers=self._thread_limit(kwargs)) as threads:
            return self._joined(list(threads.map(generate, messages, run_ids)))

    async def agenerate(
        self, messages: list[list[BaseMessage]], stop: Stop = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """:meth:`generate` for asyncio; at most ``max_concurrent`` chats are under way."""
        size = self._settings_of(kwargs).max_concurrent
        results = [await super().agenerate(messages[:size], stop, callbacks, **kwargs)]
        kwargs.pop("run_id", None)
        for start in range(size, len(messages), size):
            results.append(await super().agenerate(messages[start : start + size], stop, callbacks, **kwargs))
        return results[0] if len(results) == 1 else self._joined(results)

    def _joined(self, results: Sequence[LLMResult]) -> LLMResult:
        return LLMResult(
            generations=[each for result in results for each in result.generations],
            llm_output=self._combine_llm_outputs([result.llm_output for result in results]),
            run=[each for result in results for each in result.run or ()] or None,
        )

    def _combine_llm_outputs(self, _llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        """The model's name and the sum of the usage; streamed and cached answers have no output."""
        usages = [output["token_usage"] for output in _llm_outputs if output and "token_usage" in output]
        names = dict.fromkeys(name for usage in usages for name in usage)
        usage = {name: sum(each[name] for each in usages if name in each) for name in names}
        return {"model_name": self.model_name, "token_usage": usage}
