"""From one vocabulary to another. So far draft and assistants must share one; anything else is refused."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from cosd_core.errors import VocabularyMismatchError

_PROBE = "The 3 quick\tfoxes aren't naïve:\n\n  x += 42; // 你好 🦊"
"""Text on which tokenizers of one vocabulary but different habits fall apart."""


def shared_vocabulary(
    tokenizers: Sequence[PreTrainedTokenizerBase], sizes: Sequence[int], names: Sequence[str]
) -> int:
    """The number of token ids that all models share.

    Two tokenizers are the same if their vocabularies and their encoding of a probe text are; sizes of
    padded embedding matrices do not count.

    Args:
        tokenizers: The draft's, then every assistant's.
        sizes: Per model the number of ids it scores.
        names: Per model its name for messages.

    Raises:
        VocabularyMismatchError: With the first difference.
    """
    draft = tokenizers[0]
    for tokenizer, name in zip(tokenizers[1:], names[1:], strict=True):
        if tokenizer is draft:
            continue
        if difference := _difference(draft, tokenizer):
            raise VocabularyMismatchError(
                f"draft {names[0]!r} and assistant {name!r} must share one tokenizer, but {difference}"
            )
    return min(sizes)


def _difference(draft: Any, assistant: Any) -> str | None:
    ours, theirs = draft.get_vocab(), assistant.get_vocab()
    if ours != theirs:
        token = min(token for token, _ in ours.items() ^ theirs.items())
        return (
            f"token {token!r} is {ours.get(token, 'unknown')} in the draft's vocabulary ({len(ours)} tokens) "
            f"and {theirs.get(token, 'unknown')} in the assistant's ({len(theirs)} tokens)"
        )
    if draft.encode(_PROBE, add_special_tokens=False) != assistant.encode(_PROBE, add_special_tokens=False):
        return "they split the same text into different tokens"
    return None
