"""One call of a framework's model, from prompts to generations or chunks."""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, closing
from dataclasses import dataclass
from typing import Any, cast

from cosd_core.chat.messages import Chat
from cosd_core.chat.openai_options import answer_schema, named_choice
from cosd_core.chat.turn import Turn
from cosd_core.decoder import CoSDDecoder
from cosd_core.frontend.call_settings import CallSettings
from cosd_core.frontend.decoder_cache import DecoderCache
from cosd_core.frontend.logprobs import openai_logprobs
from cosd_core.outputs import Chunk, Generation, TracedToken
from cosd_core.verifiers.base import described


@dataclass(frozen=True)
class Call:
    """One call, sync or async, with the settings of the model, overridden by the options of the call.

    The keyword arguments of its methods override single :class:`GenerationOptions` of the settings. Closing a
    generator stops the work. ``translated_errors`` raises cosd's errors under the framework's names. With
    ``share_batches``, plain calls of several threads share batches, as those of asyncio tasks do.
    """

    settings: CallSettings
    decoder_cache: DecoderCache
    translated_errors: Callable[[], AbstractContextManager[None]]
    share_batches: bool = False

    def decoder(self) -> CoSDDecoder:
        """The decoder of the settings; the first call loads the models."""
        with self.translated_errors():
            return self.decoder_cache.get(self.settings)

    def generate(self, prompts: Sequence[Any], **overrides: Any) -> list[Generation]:
        """One generation per prompt; the prompts are decoded as one batch."""
        with self.translated_errors():
            return cast(
                list[Generation], self.decoder().generate(list(prompts), **self._sync_options(overrides))
            )

    async def agenerate(self, prompts: Sequence[Any], **overrides: Any) -> list[Generation]:
        """:meth:`generate` for asyncio."""
        decoder = await self.decoder_cache.run_in_thread(self.decoder)
        with self.translated_errors():
            return cast(list[Generation], await decoder.agenerate(list(prompts), **self._options(overrides)))

    def stream(self, prompts: Any, **overrides: Any) -> Generator[Chunk, None, None]:
        """The text in chunks, as soon as it is final."""
        stream = self.decoder().stream(prompts, **self._sync_options(overrides))
        with self.translated_errors(), closing(stream) as chunks:
            yield from chunks

    async def astream(self, prompts: Any, **overrides: Any) -> AsyncGenerator[Chunk, None]:
        """:meth:`stream` for asyncio."""
        decoder = await self.decoder_cache.run_in_thread(self.decoder)
        with self.translated_errors():
            async with aclosing(decoder.astream(prompts, **self._options(overrides))) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _options(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.settings.generation_options(), "timeout": self.settings.timeout, **overrides}

    def _sync_options(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._options(overrides), "share_batches": self.share_batches}

    def turn(self, messages: Sequence[Mapping[str, Any]], form: Mapping[str, Any]) -> Turn:
        """The turn by which the call continues a chat; ``form`` is the second result of ``split_options``."""
        settings, tools = self.settings, form.get("tools") or ()
        continues = form.get("continue_final_message")
        with self.translated_errors():
            return Turn(
                Chat(
                    messages,
                    tools,
                    settings.chat_template,
                    settings.chat_template_kwargs,
                    continue_final_message=False if continues is None else continues,
                ),
                self.decoder().models,
                tool_choice=named_choice(form.get("tool_choice"), tools),
                parallel_tool_calls=form.get("parallel_tool_calls"),
                strict=form.get("strict"),
                answer_schema=answer_schema(form.get("response_format")),
                grammar=settings.grammar,
                truncation=settings.truncation,
            )

    def logprobs(self, tokens: Sequence[TracedToken]) -> dict[str, Any]:
        """The metadata ``logprobs`` of some tokens, in OpenAI's form; nothing unless it is asked for."""
        if not self.settings.logprobs or not tokens:
            return {}
        verifier, most = self.settings.method()["verifier"], self.settings.top_logprobs
        return {"logprobs": openai_logprobs(tokens, verifier, most=most)}

    def info(self, generation: Generation) -> dict[str, Any]:
        """The metadata of a generation, as plain JSON; the trace is :meth:`Generation.to_dict`."""
        trace = {"trace": generation.to_dict()} if self.settings.return_trace else {}
        return {
            "finish_reason": generation.finish_reason,
            "stop_sequence": generation.stop_sequence,
            "schema_error": generation.schema_error,
            "model_name": self.settings.model_name,
            "verifier": described(generation.verifier),
            "stats": generation.stats.to_dict(),
            **trace,
        }


def token_usage(generations: Sequence[Generation]) -> dict[str, int]:
    """The number of tokens in prompts and completions."""
    usage = {
        "prompt_tokens": sum(each.prompt_tokens for each in generations),
        "completion_tokens": sum(len(each.token_ids) for each in generations),
    }
    return {**usage, "total_tokens": sum(usage.values())}
