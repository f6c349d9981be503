"""A worker answers parts: it is a process with a copy of the models."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers.utils import logging as transformers_logging

from cosd_core.chat.messages import Chat
from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import CoSDError, InvalidPromptError
from cosd_core.evaluation.tasks import read_prompt
from cosd_core.frontend.prompts import as_prompt
from cosd_core.frontend.settings import Settings


@dataclass(frozen=True)
class Job:
    """The settings that all rows share; plain values, which travel to the workers.

    Attributes:
        settings: Fields of :class:`Settings`.
        chat: Whether texts are user's messages in chats; None: if the draft has a chat template.
        system: The system message of these chats.
        provenance: Whether answers say who wrote every token.
    """

    settings: Mapping[str, Any]
    chat: bool | None = None
    system: str | None = None
    provenance: bool = False


class Worker:
    """Answers parts. Ray Data makes one per process, and calls it with one part at a time."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._settings = Settings(**job.settings)

    @cached_property
    def _decoder(self) -> CoSDDecoder:
        """The models, which the first part loads, so that errors are returned like all others."""
        transformers_logging.disable_progress_bar()
        return self._settings.decoder()

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """The number of a part, ``answers`` to its prompts, as JSON like those, and ``error``.

        That is empty, or says that a model cannot be loaded, or how decoding has failed: what is raised here,
        Ray would show as a traceback.
        """
        answered = {"number": part["number"], "answers": "[]", "error": ""}
        try:
            answers = asyncio.run(self._answer_all(json.loads(part["prompts"])))
            return {**answered, "answers": json.dumps(answers)}
        except CoSDError as error:
            return {**answered, "error": str(error)}

    async def _answer_all(self, prompts: list[Any]) -> list[dict[str, Any]]:
        places = asyncio.Semaphore(self._settings.max_concurrent)

        async def answer(prompt: Any) -> dict[str, Any]:
            async with places:
                return await self._answer(read_prompt(prompt))

        return await asyncio.gather(*map(answer, prompts))

    async def _answer(self, prompt: str | Chat) -> dict[str, Any]:
        """The fields that an answer adds; a prompt that the models cannot take has its error there."""
        job = self._job
        try:
            if isinstance(prompt, str):
                prompt = as_prompt(prompt, self._decoder, chat=job.chat, system=job.system)
            found = await self._decoder.agenerate(prompt, **self._settings.generation_options())
        except InvalidPromptError as error:
            return {"text": None, "finish_reason": "error", "error": str(error)}
        answer = {"text": found.text, "finish_reason": found.finish_reason}
        return {**answer, "provenance": found.to_dict()} if job.provenance else answer
