"""The text of a call in chunks, made from the records of its rounds."""

from collections.abc import Generator
from contextlib import closing

from cosd_core.outputs import Chunk, Step, TracedToken


class Chunker:
    """Turns steps into chunks; tokens of steps without text wait for the next chunk."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[TracedToken, ...]] = {}

    def __call__(self, step: Step) -> Chunk | None:
        """The chunk that a step completes, if there is one."""
        tokens = self._waiting.pop(step.index, ()) + step.tokens
        if not step.text and not step.generation:
            self._waiting[step.index] = tokens
            return None
        reason = step.generation.finish_reason if step.generation else None
        return Chunk(step.text, tokens, step.index, reason, step.generation)


def chunks_of(steps: Generator[Step, None, None]) -> Generator[Chunk, None, None]:
    """Steps as chunks; closing them closes the steps."""
    chunker = Chunker()
    with closing(steps):
        for step in steps:
            if chunk := chunker(step):
                yield chunk
