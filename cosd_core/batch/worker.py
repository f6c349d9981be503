"""What answers parts: a copy of the models in a process of its own."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers.utils import logging as transformers_logging

from cosd_core.batch.rows import Row
from cosd_core.errors import InvalidPromptError
from cosd_core.frontend.prompts import as_prompt
from cosd_core.frontend.settings import Settings


@dataclass(frozen=True)
class Job:
    """What is asked of the models besides the rows; plain values, which travel to the workers.

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
        """Load the models.

        Raises:
            CoSDError: A model cannot be loaded.
        """
        transformers_logging.disable_progress_bar()
        self._job = job
        self._settings = Settings(**job.settings)
        self._decoder = self._settings.decoder()

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """The part with the lines of its answers in place of those of its rows.

        Raises:
            GenerationError: Decoding has failed.
        """
        rows = [Row.read(line) for line in part["lines"].split("\n")]
        answers = asyncio.run(self._answer_all(rows))
        lines = [row.answered(answer) for row, answer in zip(rows, answers, strict=True)]
        return {**part, "lines": "".join(f"{line}\n" for line in lines)}

    async def _answer_all(self, rows: list[Row]) -> list[dict[str, Any]]:
        places = asyncio.Semaphore(self._settings.max_concurrent)

        async def answer(row: Row) -> dict[str, Any]:
            async with places:
                return await self._answer(row)

        return await asyncio.gather(*map(answer, rows))

    async def _answer(self, row: Row) -> dict[str, Any]:
        """The fields that an answer adds; a prompt that the models cannot take has its error there."""
        job, prompt = self._job, row.prompt
        try:
            if isinstance(prompt, str):
                prompt = as_prompt(prompt, self._decoder, chat=job.chat, system=job.system)
            found = await self._decoder.agenerate(prompt, **self._settings.generation_options())
        except InvalidPromptError as error:
            return {"text": None, "finish_reason": "error", "error": str(error)}
        answer = {"text": found.text, "finish_reason": found.finish_reason}
        return {**answer, "provenance": found.to_dict()} if job.provenance else answer
