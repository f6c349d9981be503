"""One request: what CoSD refuses, and how its tokens are picked."""

from typing import Any

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.options import GenerationOptions

_GREEDY_BELOW = 1e-5
"""vLLM takes a lower temperature for 0."""

_UNSUPPORTED: dict[str, tuple[Any, str]] = {
    "presence_penalty": (0.0, "the draft does not know it"),
    "frequency_penalty": (0.0, "the draft does not know it"),
    "logit_bias": (None, "the draft does not know it"),
    "bad_words": (None, "the draft does not know them"),
    "allowed_token_ids": (None, "the draft does not know them"),
    "thinking_token_budget": (None, "the draft does not know it"),
    "repetition_detection": (None, "it was not tested"),
    "prompt_logprobs": (None, "vLLM returns them with a first token that no draft has proposed"),
    "prompt_logprob_token_ids": (None, "vLLM returns them with a first token that no draft has proposed"),
    "logprob_token_ids": (None, "it was not tested"),
    "trace_decode_token_ids": (None, "it was not tested"),
}
"""Per field of ``SamplingParams``: the value that is fine, and why any other is refused."""


def check_request(params: Any, reasoning_parser: str) -> None:
    """Refuse what would reach only one of the two models, or was not tested.

    Args:
        params: vLLM's ``SamplingParams``.
        reasoning_parser: The one of the server, or an empty text.

    Raises:
        InvalidOptionError: With the option and the reason.
    """
    for name, (fine, reason) in _UNSUPPORTED.items():
        value = getattr(params, name, fine)
        if value != fine and value not in ([], {}):
            raise InvalidOptionError(f"{name}={quoted(value)} cannot be used with CoSD: {reason}")
    if params.max_tokens == 1 and params.logprobs is not None and not params.detokenize:
        raise InvalidOptionError(
            "beam search, which asks for single tokens with logprobs and without text, cannot be used with "
            "CoSD: it goes by the assistant's log probabilities alone"
        )
    if reasoning_parser and params.structured_outputs is not None:
        raise InvalidOptionError(
            "structured_outputs cannot be used with CoSD on a server with "
            f"reasoning_parser={quoted(reasoning_parser)}: the draft does not know where reasoning ends"
        )


def generation_options(params: Any) -> GenerationOptions:
    """How both models pick tokens."""
    return GenerationOptions(
        min_new_tokens=params.min_tokens,
        temperature=0.0 if params.temperature < _GREEDY_BELOW else float(params.temperature),
        top_p=float(params.top_p),
        top_k=max(params.top_k, 0),
        repetition_penalty=float(params.repetition_penalty),
        seed=params.seed,
    )
