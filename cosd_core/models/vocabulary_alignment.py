"""Compares the vocabularies of a draft and its assistants."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from cosd_core.errors import VocabularyMismatchError
from cosd_core.models.base import BaseLanguageModel

_PROBE = "The 3 quick\tfoxes aren't naïve:\n\n  x += 42; // 你好 🦊"
"""A text that tokenizers with one vocabulary but different rules split differently."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the vocabularies of a draft and its assistants relate.

    Attributes:
        vocabularies: Per model, the draft first, how many token ids take part. Models that share the draft's
            vocabulary have as many as the smallest of them: embedding matrices may be padded.
        differences: Per assistant, in words, how its tokens differ from the draft's; None if it shares them.
        barred: Ids that models with a shared vocabulary use for different special tokens: they are never
            generated.
    """

    vocabularies: tuple[int, ...]
    differences: tuple[str | None, ...]
    barred: frozenset[int] = frozenset()

    @property
    def shared(self) -> bool:
        """Whether all models share the draft's vocabulary."""
        return not any(self.differences)

    @property
    def admitted(self) -> torch.Tensor | None:
        """Which of the draft's ids may be generated, bool, ``[vocabulary]``; None: all."""
        if not self.barred:
            return None
        admitted = torch.ones(self.vocabularies[0], dtype=torch.bool)
        admitted[list(self.barred)] = False
        return admitted

    def bar(self, logits: torch.Tensor) -> torch.Tensor:
        """Set the logits of barred ids to -inf, in place, ``[..., vocabulary]``."""
        if self.barred:
            logits[..., list(self.barred)] = -torch.inf
        return logits


def align(models: Sequence[BaseLanguageModel]) -> Alignment:
    """Compare the vocabularies of a draft and its assistants: the tokens of ids, and the splits of a text.

    Special and added tokens may differ, as they do between a base model and its fine-tunes, unless that bars
    a token that ends the texts of a model.
    """
    draft, *assistants = models
    sharing, size, barred = [draft], draft.vocabulary_size, frozenset[int]()
    differences = []
    for assistant in assistants:
        smallest = min(size, assistant.vocabulary_size)
        difference, differing = _compare(draft.tokenizer, assistant.tokenizer)
        lost = [
            token
            for model in (*sharing, assistant)
            for token in model.eos_token_ids
            if token < model.vocabulary_size and (token >= smallest or token in differing)
        ]
        if lost and not difference:
            difference = f"token {lost[0]}, which ends the texts of one, means nothing to the other"
        if not difference:
            sharing, size, barred = [*sharing, assistant], smallest, barred | differing
        differences.append(difference)
    return Alignment(
        tuple(size if model in sharing else model.vocabulary_size for model in models),
        tuple(differences),
        frozenset(token for token in barred if token < size),
    )


def require_one_vocabulary(models: Sequence[BaseLanguageModel], what: str) -> Alignment:
    """The alignment of models that must share one vocabulary.

    Args:
        models: The draft, then its assistants.
        what: The feature that requires it, for the message.

    Raises:
        VocabularyMismatchError: With the first difference.
    """
    alignment = align(models)
    for difference, model in zip(alignment.differences, models[1:], strict=True):
        if difference:
            raise VocabularyMismatchError(
                f"{what} needs models with one tokenizer: draft {models[0].name!r} and assistant "
                f"{model.name!r} have two, {difference}"
            )
    return alignment


def _compare(
    draft: PreTrainedTokenizerBase, assistant: PreTrainedTokenizerBase
) -> tuple[str | None, frozenset[int]]:
    """How two vocabularies differ, in words; if only special and added tokens do, None and their ids."""
    if draft is assistant:
        return None, frozenset()
    ids, assistant_ids = draft.get_vocab(), assistant.get_vocab()
    differing = ids.items() ^ assistant_ids.items()
    added = {*draft.added_tokens_decoder, *assistant.added_tokens_decoder}
    if words := [token for token, at in differing if at not in added]:
        token = min(words)
        return (
            f"token {token!r} is {ids.get(token, 'unknown')} in the draft's vocabulary ({len(ids)} tokens) "
            f"and {assistant_ids.get(token, 'unknown')} in the assistant's ({len(assistant_ids)} tokens)"
        ), frozenset()
    if draft.encode(_PROBE, add_special_tokens=False) != assistant.encode(_PROBE, add_special_tokens=False):
        return "they split the same text into different tokens", frozenset()
    return None, frozenset(at for _, at in differing)
