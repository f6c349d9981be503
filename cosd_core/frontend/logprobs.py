"""Log probabilities of the tokens of an answer, from its trace: no model runs for them."""

import math
from collections.abc import Iterable
from typing import Any

from cosd_core.outputs import TracedToken
from cosd_core.verifiers import Verifier

UNKNOWN = -9999.0
"""OpenAI's value for a token that is not among those whose probabilities are known."""

_LEAST = 5e-324
"""The smallest float, instead of 0: the probability of a sampled token may round to 0."""


def known_logprobs(token: TracedToken, verifier: Verifier) -> list[tuple[str, float]]:
    """The text and log probability of a token, then those of the rejected one if there is one.

    Each probability is the confidence of the model that predicted the token. A replacement of several tokens
    is one prediction: the first token has its logprob, the others 0.0. A token that a verifier drew from a
    mixture of distributions is ``UNKNOWN`` unless it is the draft's or the assistant's prediction.
    """
    if token.source == "draft":
        written, rejected = _log(token.p), token.q
    elif token.other_text == "":
        return [(token.text, 0.0)]
    else:
        is_drawn = verifier.needs_logits and token.id != token.assistant_id
        written, rejected = UNKNOWN if is_drawn else _log(token.q), token.p
    known = [(token.text, written)]
    return [*known, (token.other_text, _log(rejected))] if token.other_text else known


def openai_logprobs(
    tokens: Iterable[TracedToken], verifier: Verifier, *, most: int | None
) -> dict[str, list[dict[str, Any]]]:
    """The ``logprobs`` of OpenAI's chat completions: an entry per token, with at most ``most`` alternatives.

    ``top_logprobs`` holds the token itself and the rejected one, the more probable first.
    """
    content: list[dict[str, Any]] = []
    for token in tokens:
        known: list[dict[str, Any]] = [
            {"token": text, "bytes": list(text.encode()), "logprob": logprob}
            for text, logprob in known_logprobs(token, verifier)
        ]
        top = sorted(known, key=lambda each: -each["logprob"])[: most or 0]
        content.append({**known[0], "top_logprobs": top})
    return {"content": content}


def _log(confidence: float | None) -> float:
    return math.log(min(max(confidence or 0.0, _LEAST), 1.0))
