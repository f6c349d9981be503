"""One record per token of a generation and its figures, as the terminal and the page show them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

from cosd_core.errors import VerifierError
from cosd_core.models.base import with_adapter, without_adapter
from cosd_core.outputs import Generation, TracedToken
from cosd_core.utils.escaping import quote
from cosd_core.utils.guarded import guarded
from cosd_core.verifiers import PanelVerifier, Verifier
from cosd_core.verifiers.base import can_replace

Outcome = Literal["replaced", "disputed", "agreed", "unchecked"]

_NUM_COLORS = 3


@dataclass(frozen=True, slots=True)
class ExplainedToken:
    """One token with its explanation. All tokens of one replacement are one record.

    Attributes:
        token: The token.
        text: The part of its text that is in the answer.
        cut: The part of its text that belongs to the stop sequence or follows it.
        outcome: The verifier's decision on the draft's token; ``"unchecked"`` without a verification.
        is_end: Whether this is the end-of-sequence token that ended the text.
        assistant_number: The assistant, counted from 1; 0 if there is only one assistant.
        assistant_name: The assistant's short name; empty if there is only one assistant.
        assistant_text: The text of the assistant's own prediction; None if it is unknown.
        reason: Why the verifier kept or replaced the draft's token.
    """

    token: TracedToken
    text: str
    cut: str
    outcome: Outcome
    is_end: bool
    assistant_number: int
    assistant_name: str
    assistant_text: str | None
    reason: str

    @property
    def assistant(self) -> str:
        """The assistant's label: "assistant", or "assistant 2" if there are several."""
        return f"assistant {self.assistant_number}" if self.assistant_number else "assistant"

    @property
    def named_assistant(self) -> str:
        """The assistant's label with its name."""
        return f"{self.assistant} ({self.assistant_name})" if self.assistant_name else self.assistant

    @property
    def color(self) -> int:
        """The index of the assistant's color: 0, 1 or 2."""
        return max(self.assistant_number - 1, 0) % _NUM_COLORS


def explained_tokens(generation: Generation) -> Iterator[ExplainedToken]:
    """Explain every token; texts are cut where the answer ends."""
    tokens = _merge_replacements(generation.tokens)
    remaining, last = len(generation.text), len(tokens) - 1
    ends_by_token = generation.finish_reason == "stop" and generation.stop_sequence is None
    models = generation.models
    for index, token in enumerate(tokens):
        text, cut = token.text[:remaining], token.text[remaining:]
        remaining -= len(text)
        number = token.assistant_index + 1 if len(models) > 2 and token.assistant_index is not None else 0
        outcome = _outcome(token)
        # A verifier that mixes distributions can pick a token that is not the assistant's own prediction.
        is_mixed = generation.verifier.needs_logits and token.id != token.assistant_id
        prediction = None if is_mixed and outcome != "agreed" else token.text
        yield ExplainedToken(
            token,
            text,
            cut,
            outcome,
            is_end=ends_by_token and index == last,
            assistant_number=number,
            assistant_name=_short_name(models[number]) if number else "",
            assistant_text=token.other_text if outcome == "disputed" else prediction,
            reason=_reason(generation.verifier, token, outcome),
        )


def _merge_replacements(tokens: Sequence[TracedToken]) -> list[TracedToken]:
    """Merge the draft tokens that together are one replacement: they share one decision."""
    merged: list[TracedToken] = []
    for token in tokens:
        if token.source == "assistant" and token.other_text == "":
            merged[-1] = replace(merged[-1], text=merged[-1].text + token.text)
        else:
            merged.append(token)
    return merged


def _outcome(token: TracedToken) -> Outcome:
    if token.source == "assistant":
        return "replaced"
    if token.q is None:
        return "unchecked"
    return "agreed" if token.other_text is None else "disputed"


def _reason(verifier: Verifier, token: TracedToken, outcome: Outcome) -> str:
    if token.q is None:
        safe = not can_replace(verifier, token.p)
        return "no answer could have replaced this token" if safe else "this token was not checked"
    if outcome == "agreed":
        return "both would write this token"
    replaced, assistant = outcome == "replaced", token.assistant_index or 0
    with guarded(VerifierError, verifier):
        return verifier.reason(token.p, token.q, replaced=replaced, assistant=assistant)


def figures(generation: Generation) -> Iterator[tuple[str, str]]:
    """The statistics and settings of a generation, as pairs of a name and a formatted value."""
    stats, tokens = generation.stats, len(generation.tokens)
    stop = f"stop sequence {quote(generation.stop_sequence)}" if generation.stop_sequence else "end token"
    yield "Tokens", f"{tokens:,} ({stats.tokens_per_second:,.1f} per second)"
    yield "Rounds", f"{stats.rounds:,}"
    yield "Drafted", f"{stats.drafted:,}"
    yield "Kept", f"{stats.kept:,} ({stats.acceptance_rate:.0%})"
    yield "Replaced", f"{stats.replaced:,}"
    yield "Discarded", f"{stats.discarded:,}"
    yield "Passes", f"{stats.draft_passes:,} draft, {stats.assistant_passes:,} assistant"
    yield "Skipped", f"{stats.assistant_skipped:,} of {tokens:,} not asked"
    yield "Models", ", ".join(map(_short_name, generation.models))
    yield "Verifier", _describe_verifier(generation.verifier)
    if any(temperature != 1 for temperature in generation.calibration):
        yield "Calibration", ", ".join(f"{temperature:g}" for temperature in generation.calibration)
    yield "Ended by", stop if generation.finish_reason == "stop" else "length limit"


def _describe_verifier(verifier: Verifier) -> str:
    """A verifier's name and numbers; of a panel, those of every member."""
    if isinstance(verifier, PanelVerifier):
        members = enumerate(verifier.members, 1)
        return "; ".join(f"{number}: {_describe_verifier(member)}" for number, member in members)
    settings = verifier.to_dict().items()
    numbers = [f"{name} {value:g}" for name, value in settings if isinstance(value, int | float)]
    return ", ".join([verifier.name, *numbers])


def _short_name(name: str) -> str:
    """A model's name for one line: a hub id as it is, the last part of a path; the adapter likewise."""
    base, adapter = (
        part if not part or part.count("/") < 2 else PurePath(part).name for part in without_adapter(name)
    )
    return quote(with_adapter(base or "(no name)", adapter))
