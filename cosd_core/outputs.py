"""The values that travel between the parts of the decoder and out to its users. All of them are frozen."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from cosd_core.prediction import Opinions, Prediction
from cosd_core.verifiers.base import Verifier
from cosd_core.verifiers.types import Verdict

Source = Literal["draft", "assistant"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TracedToken:
    """One token of the text and how it came about.

    Where an assistant has other tokens than the draft, what it writes may be several tokens of the draft's;
    all carry the p and q that decided. `docs/different-tokenizers.md` says what p and q are then.

    Attributes:
        id: The token id in the draft's vocabulary.
        text: What the token adds to the text. Empty for special tokens and for a token that ends inside a
            UTF-8 character; the token that completes the character carries it whole.
        source: Who wrote it.
        assistant_index: The assistant that ``q`` and ``assistant_id`` belong to: the one that wrote the
            token, else the most confident of those that disagree, else the most confident. None where no
            assistant was asked.
        p: Confidence of the draft in ``draft_id``.
        q: Confidence of the assistant in ``assistant_id``. None where the assistant was not asked.
        draft_id: What the draft proposed here.
        assistant_id: What the assistant would have written here, in its own vocabulary. None where it was not
            asked.
        other_text: The text of the token that lost: the draft's where it was replaced, the assistant's
            where it disagreed in vain, the name of a special token. None where nobody disagreed. Empty in
            the further tokens of one replacement.
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


@dataclass(frozen=True, slots=True)
class Stats:
    """What one generation cost.

    Attributes:
        rounds: Draft blocks written and judged.
        tokens: Tokens of the text; ``kept + replaced`` where all models share one vocabulary.
        drafted: Tokens the draft proposed; always ``kept + replaced + discarded``.
        kept: Draft tokens that stand in the text.
        replaced: Draft tokens whose place an assistant's words took.
        discarded: Draft tokens thrown away because something before them changed or ended the text, or
            because another text of the batch failed and the block was drafted again.
        draft_passes: Forward passes of the draft model for this text, one per drafted token.
        assistant_passes: Times the assistants were asked (one forward pass of each, in parallel positions).
        assistant_skipped: Tokens of the text that were committed without asking the assistants.
        seconds: Wall time from the beginning of this text to its end, the turns of others included.
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
        return asdict(self) | {
            "acceptance_rate": self.acceptance_rate,
            "tokens_per_second": self.tokens_per_second,
        }


@dataclass(frozen=True, slots=True)
class Generation:
    """One finished text.

    Attributes:
        text: The text after the prompt, cut before the stop sequence, special tokens left out.
        token_ids: Its token ids, an end-of-sequence token and the stop sequence's tokens included.
        tokens: One entry per token id: who wrote it, and what the others would have written.
        finish_reason: ``"stop"`` after an end-of-sequence token or a stop sequence, ``"length"`` after
            ``max_new_tokens``.
        stop_sequence: The stop sequence that ended the text, or None.
        prompt: The prompt as text, also where truncation cut what the models saw of it.
        prompt_tokens: The length of the prompt in tokens.
        stats: What it cost.
        verifier: The verifier that judged.
        models: What the models are called, the draft first.
        calibration: The temperature at which it saw the confidences of each, p and q.
    """

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[TracedToken, ...]
    finish_reason: FinishReason
    stop_sequence: str | None
    prompt: str
    prompt_tokens: int
    stats: Stats
    verifier: Verifier
    models: tuple[str, ...]
    calibration: tuple[float, ...]

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
            "verifier": self.verifier.to_dict(),
            "models": list(self.models),
            "calibration": list(self.calibration),
        }


@dataclass(frozen=True, slots=True)
class Step:
    """One round of one prompt: what was proposed, what was thought of it, what became of it.

    Attributes:
        index: Which prompt of the batch.
        proposal: The draft's block.
        opinions: Per proposed position the assistants' predictions, or None where they were not asked.
        verdict: What the verifier decided.
        tokens: The tokens that this round added to the text.
        text: The text that became final in this round. Stop sequences and unfinished characters never
            show up in it.
        generation: The whole result once the text is finished, else None.
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
        text: What it adds to the text; may be empty in the last chunk.
        tokens: The tokens committed since the last chunk.
        index: Which prompt of the batch.
        finish_reason: Set in the last chunk of each prompt, else None.
        generation: The whole result in the last chunk of each prompt, else None.
    """

    text: str
    tokens: tuple[TracedToken, ...]
    index: int
    finish_reason: FinishReason | None
    generation: Generation | None
