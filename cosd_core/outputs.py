"""The results of decoding, as frozen values."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, PlainValidator, TypeAdapter, ValidationError

from cosd_core.errors import InvalidOptionError, TraceError, VerifierFileError, quoted
from cosd_core.prediction import Opinions, Prediction
from cosd_core.verifiers import Verifier, read_verifier
from cosd_core.verifiers.base import described
from cosd_core.verifiers.types import Verdict

Source = Literal["draft", "assistant"]
FinishReason = Literal["stop", "length"]

_STRICT = ConfigDict(strict=True, extra="forbid")
"""How the dataclasses below are read from JSON."""

_MOST_CONFIDENT = 1.001
"""Confidences are at most 1, up to rounding."""


@dataclass(frozen=True, slots=True)
class TracedToken:
    """One token of the text, and the predictions that led to it.

    If the tokenizers differ, one replacement may be several draft tokens; all have the p and q of the one
    decision. `docs/different-tokenizers.md` defines p and q for that case.

    Attributes:
        id: The token id in the draft's vocabulary.
        text: The text that the token adds. Empty for special tokens and for a token that ends inside a UTF-8
            character; the token that completes the character has the whole character.
        source: The kind of model that wrote the token.
        assistant_index: The assistant of ``q`` and ``assistant_id``: the one that wrote the token, else the
            most confident of those that disagree, else the most confident. None without verification.
        p: The draft's confidence in ``draft_id``.
        q: The assistant's confidence in ``assistant_id``. None without verification.
        draft_id: The draft's prediction.
        assistant_id: The assistant's prediction, in its own vocabulary. None without verification.
        other_text: The text, or the special token's name, of the rejected prediction: the draft's if it was
            replaced, a disagreeing assistant's if the draft's was kept. None if the models agree. Empty in
            all tokens of a replacement but the first.
    """

    id: int
    text: str
    source: Source
    assistant_index: int | None
    p: float
    q: float | None
    draft_id: int
    assistant_id: int | None
    other_text: str | None

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True)
class Stats:
    """The cost of one generation.

    Attributes:
        rounds: Draft blocks.
        tokens: Tokens of the text; ``kept + replaced`` if all models share one vocabulary.
        drafted: Tokens that the draft proposed; always ``kept + replaced + discarded``.
        kept: Draft tokens in the text.
        replaced: Draft tokens that an assistant's tokens replaced.
        discarded: Draft tokens after a replacement or the end of the text, or of a block that was drafted
            again because another text of the batch failed.
        draft_passes: Forward passes of the draft model for this text: one per drafted token, none for a token
            to which the grammar leaves no alternative, one for several that were guessed (``lookup``).
        assistant_passes: Verifications (one forward pass of each assistant over all positions of a block).
        assistant_skipped: Tokens of the text that were committed without verification.
        seconds: Wall time from the beginning of this text to its end, rounds of other texts included.
    """

    rounds: int
    tokens: int
    drafted: int
    kept: int
    replaced: int
    discarded: int
    draft_passes: int
    assistant_passes: int
    assistant_skipped: int
    seconds: float

    __pydantic_config__ = _STRICT

    @property
    def acceptance_rate(self) -> float:
        """The share of drafted tokens that were kept, between 0 and 1; 0 if nothing was drafted."""
        return self.kept / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the text per second of wall time."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All figures, the derived ones too, as plain numbers."""
        return asdict(self) | {name: getattr(self, name) for name in _DERIVED}


_DERIVED = ("acceptance_rate", "tokens_per_second")
"""The figures that :meth:`Stats.to_dict` adds."""


def _without_derived(stats: Any) -> Any:
    if not isinstance(stats, dict):
        return stats
    return {name: value for name, value in stats.items() if name not in _DERIVED}


@dataclass(frozen=True, slots=True)
class Generation:
    """One finished text.

    Attributes:
        text: The text after the prompt, cut before the stop sequence, special tokens left out.
        token_ids: Its token ids, an end-of-sequence token and the stop sequence's tokens included.
        tokens: One entry per token id: the model that wrote it, and the other models' predictions.
        finish_reason: ``"stop"`` after an end-of-sequence token or a stop sequence, ``"length"`` after
            ``max_new_tokens``.
        stop_sequence: The stop sequence that ended the text, or None.
        prompt: The whole prompt as text, even if the models' input was truncated.
        prompt_tokens: The length of the prompt in tokens.
        stats: The cost.
        verifier: The verifier that decided.
        models: The names of the models, the draft first.
        calibration: The temperature of each model's confidences.
        schema_error: What is wrong with the text by the JSON Schema that is its ``grammar``: the keyword, the
            JSON path and the reason. None if the text is valid, or no schema was given.
    """

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[TracedToken, ...]
    finish_reason: FinishReason
    stop_sequence: str | None
    prompt: str
    prompt_tokens: int
    stats: Annotated[Stats, BeforeValidator(_without_derived)]
    verifier: Annotated[Verifier, PlainValidator(read_verifier)]
    models: tuple[str, ...]
    calibration: tuple[float, ...]
    schema_error: str | None = None

    __pydantic_config__ = _STRICT

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> "Generation":
        """The generation whose :meth:`to_dict` this is, also after a round trip through JSON.

        It equals the original, except for a verifier of a user's own class: of that the name and the settings
        are known, and it decides nothing (:class:`RecordedVerifier`).

        Raises:
            TraceError: An entry is missing, unknown or of a wrong type, or two entries contradict each other.
        """
        try:
            generation = _json_reader().validate_json(json.dumps(described))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"])) or "it"
            raise TraceError(
                f"this is no saved generation: {where}={quoted(problem['input'])}: {problem['msg']}"
            ) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise TraceError(f"{quoted(described)} is no saved generation: {quoted(error)}") from error
        except (InvalidOptionError, VerifierFileError) as error:
            raise TraceError(f"this is no saved generation: {error}") from error
        if contradiction := generation._contradiction():
            raise TraceError(f"this is no saved generation: {contradiction}")
        return generation

    def _contradiction(self) -> str | None:
        """The first contradiction between the fields, or None."""
        assistants = len(self.models) - 1
        if assistants < 1 or len(self.calibration) != len(self.models):
            return f"models={quoted(self.models)} should name two, and calibration hold a number for each"
        if [token.id for token in self.tokens] != [*self.token_ids]:
            return f"token_ids={quoted(self.token_ids)} should be the ids of tokens"
        for at, token in enumerate(self.tokens):
            if not 0 <= (token.assistant_index or 0) < assistants:
                return f"tokens.{at}.assistant_index={token.assistant_index}, but there are {assistants}"
            if not all(0 <= each <= _MOST_CONFIDENT for each in (token.p, token.q or 0.0)):
                return f"tokens.{at}: p={token.p} and q={token.q} should lie between 0 and 1"
        if self.tokens and self.tokens[0].source == "assistant" and self.tokens[0].other_text == "":
            return "tokens.0 continues a replacement that does not begin"
        try:
            self.verifier.check(assistants)
        except InvalidOptionError as error:
            return str(error)
        return None

    def to_dict(self) -> dict[str, Any]:
        """The generation as plain JSON-able values."""
        return {
            "text": self.text,
            "token_ids": list(self.token_ids),
            "tokens": [asdict(token) for token in self.tokens],
            "finish_reason": self.finish_reason,
            "stop_sequence": self.stop_sequence,
            "prompt": self.prompt,
            "prompt_tokens": self.prompt_tokens,
            "stats": self.stats.to_dict(),
            "verifier": described(self.verifier),
            "models": list(self.models),
            "calibration": list(self.calibration),
            "schema_error": self.schema_error,
        }


@cache
def _json_reader() -> TypeAdapter[Generation]:
    """Reads a generation from JSON, where lists are tuples; made on first use, since that takes time."""
    return TypeAdapter(Generation)


@dataclass(frozen=True, slots=True)
class Step:
    """One round of one prompt: the draft's block, the assistants' predictions, and the result.

    Attributes:
        index: The index of the prompt in the batch.
        proposal: The draft's block.
        opinions: The assistants' predictions per position of the block, or None without verification.
        verdict: The verifier's decision.
        tokens: The tokens that this round added to the text.
        text: The text that became final in this round, without stop sequences and unfinished characters.
        generation: The whole result if the text is finished, else None.
    """

    index: int
    proposal: tuple[Prediction, ...]
    opinions: tuple[Opinions | None, ...]
    verdict: Verdict
    tokens: tuple[TracedToken, ...]
    text: str
    generation: Generation | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed text.

    Attributes:
        text: The added text; may be empty in the last chunk.
        tokens: The tokens committed since the last chunk.
        index: The index of the prompt in the batch.
        finish_reason: Set in the last chunk of each prompt, else None.
        generation: The whole result in the last chunk of each prompt, else None.
    """

    text: str
    tokens: tuple[TracedToken, ...]
    index: int
    finish_reason: FinishReason | None
    generation: Generation | None
