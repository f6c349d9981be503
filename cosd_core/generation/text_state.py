"""The text of one request while it is decoded: its tokens, where it ends, and what it cost."""

import time
from dataclasses import asdict, dataclass, replace
from functools import partial

from cosd_core.generation.detokenizer import TextBuffer
from cosd_core.generation.lookup import Copied
from cosd_core.generation.requests import Request
from cosd_core.generation.row import PassRequest
from cosd_core.outputs import FinishReason, Generation, Stats, Step, TracedToken
from cosd_core.prediction import Opinions, Prediction
from cosd_core.sampling.sampler import Sampler, SamplingPosition
from cosd_core.verifiers import Verifier
from cosd_core.verifiers.types import Verdict


@dataclass(frozen=True, slots=True)
class RowConfig:
    """The settings that all rows of a call share.

    Attributes:
        verifier: Decides token by token whose token stands.
        draft_length: K, the most tokens per block.
        lazy: Whether the assistants run only where the verifier could replace a token.
        models: The models' names, the draft's first.
        calibration: The temperature of every model's confidences.
    """

    verifier: Verifier
    draft_length: int
    lazy: bool
    models: tuple[str, ...]
    calibration: tuple[float, ...]


@dataclass(slots=True)
class Counts:
    """The figures of :class:`Stats` that rows count."""

    rounds: int = 0
    drafted: int = 0
    kept: int = 0
    replaced: int = 0
    draft_passes: int = 0
    assistant_passes: int = 0
    assistant_skipped: int = 0


class TextState:
    """The tokens of one request, as the draft reads them, and the text they make.

    Attributes:
        index: The number of the request in its call.
        request: The checked prompt and its options.
        config: The settings of the call.
        input_ids: The prompt, the text and the block under way, in the draft's token ids.
        tokens: The tokens of the text.
        buffer: The text, and the part of it that is final.
        finish_reason: Why the text ended, or None while it goes on.
        counts: What it cost so far.
    """

    def __init__(
        self, index: int, request: Request, config: RowConfig, buffer: TextBuffer, sampler: Sampler
    ) -> None:
        """Begin after the prompt, with an empty buffer and the draft's sampler."""
        self.index = index
        self.request = request
        self.config = config
        self.input_ids = list(request.ids)
        self.tokens: list[TracedToken] = []
        self.buffer = buffer
        self.finish_reason: FinishReason | None = None
        self.counts = Counts()
        self._sampler = sampler
        self._drafted = buffer  # with the tokens of the block, if there are stop strings
        self._copied = Copied()
        self._started = time.perf_counter()

    @property
    def room(self) -> int:
        """How many tokens the text may still take."""
        return self.request.options.max_new_tokens - len(self.tokens)

    def begin_block(self) -> None:
        """Nothing is drafted any more."""
        if self.request.options.stop:
            self._drafted = self.buffer.copy()

    def draft(self, token_id: int, passes: int) -> None:
        """Add a drafted token to :attr:`input_ids`, which took so many passes."""
        self.counts.draft_passes += passes
        self.input_ids.append(token_id)

    def preview(self, token: int | bytes) -> None:
        """Look for stop strings in the text of a drafted token, which the buffer takes if it stands."""
        if self.request.options.stop:
            self._drafted.push(token)

    @property
    def has_drafted_stop(self) -> bool:
        """Whether the text ends at a stop string if what was previewed stands."""
        return self._drafted.stop_sequence is not None

    def is_over(self, *more: int, without: int = 0) -> bool:
        """Whether :attr:`input_ids`, its last ``without`` left out and ``more`` appended, end the text.

        Raises:
            GenerationError: The grammar does not allow them.
        """
        ids = [*self.input_ids[: len(self.input_ids) - without], *more] if more or without else self.input_ids
        return self._sampler.is_over(ids, len(self.request.ids), len(ids))

    def positions(self, first: int, input_ids: list[int] | None = None) -> list[SamplingPosition]:
        """The position behind all ids, and the ``first`` positions before it.

        Args:
            first: How many more positions than one.
            input_ids: The same ids behind the prompt of another model; None: :attr:`input_ids`.
        """
        ids = self.input_ids if input_ids is None else input_ids
        behind_prompt = len(self.input_ids) - len(self.request.ids)
        prompt, end = len(ids) - behind_prompt, len(ids)
        return [
            SamplingPosition(self._sampler, ids, prompt, length, length - prompt)
            for length in range(end - first, end + 1)
        ]

    def draft_request(self, width: int) -> PassRequest:
        """The position behind all ids, and those behind guesses of at most ``width`` further ids."""
        ids, prompt = self.input_ids, len(self.request.ids)
        guess = self._copied.guess(ids, prompt + len(self.tokens), width) if width else []
        if guess := self._sampler.possible(ids, prompt, guess):
            ids = [*ids, *guess]
        at = partial(SamplingPosition, self._sampler, ids, prompt)
        return PassRequest(ids, [at(end, end - prompt) for end in range(len(self.input_ids), len(ids) + 1)])

    def append(self, token: TracedToken) -> None:
        """Append a token whose text is in the buffer, and finish if it ends the text."""
        self.tokens.append(token)
        self.input_ids.append(token.id)
        if self.buffer.stop_sequence is not None or self.is_over():
            self.finish("stop")
        elif not self.room:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        """End the text. The last token takes what was held back of an unfinished character."""
        self.finish_reason = reason
        if rest := self.buffer.close():
            self.tokens[-1] = replace(self.tokens[-1], text=self.tokens[-1].text + rest)
        if self.buffer.stop_sequence is not None:  # the rest may have completed a stop string
            self.finish_reason = "stop"

    def step(
        self,
        proposal: tuple[Prediction, ...],
        opinions: tuple[Opinions | None, ...],
        verdict: Verdict,
        *,
        first: int,
    ) -> Step:
        """The record of a round, before which the text had ``first`` tokens."""
        return Step(
            index=self.index,
            proposal=proposal,
            opinions=opinions,
            verdict=verdict,
            tokens=tuple(self.tokens[first:]),
            text=self.buffer.release(final=self.finish_reason is not None),
            generation=self._generation() if self.finish_reason else None,
        )

    def _generation(self) -> Generation:
        assert self.finish_reason is not None, "the text has ended"
        counts, grammar = self.counts, self.request.options.grammar
        return Generation(
            text=self.buffer.text,
            token_ids=tuple(token.id for token in self.tokens),
            tokens=tuple(self.tokens),
            finish_reason=self.finish_reason,
            stop_sequence=self.buffer.stop_sequence,
            prompt=self.request.prompt,
            prompt_tokens=len(self.request.ids),
            stats=Stats(
                **asdict(counts),
                tokens=len(self.tokens),
                discarded=counts.drafted - counts.kept - counts.replaced,
                seconds=time.perf_counter() - self._started,
            ),
            verifier=self.config.verifier,
            models=self.config.models,
            calibration=self.config.calibration,
            schema_error=grammar.error(self.buffer.text) if grammar else None,
        )
