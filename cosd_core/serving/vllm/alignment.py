"""Compares the vocabularies of the two models that vLLM loads."""

from dataclasses import dataclass
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from cosd_core.models.loading import load_tokenizer
from cosd_core.models.vocabulary_alignment import Alignment, require_one_vocabulary


@dataclass(frozen=True, slots=True)
class _Named:
    """What the comparison reads of a model."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    vocabulary_size: int
    eos_token_ids: tuple[int, ...]


def aligned(vllm_config: Any) -> Alignment:
    """The alignment of the draft's and the assistant's vocabularies.

    Raises:
        VocabularyMismatchError: They are two.
        ModelLoadError: A tokenizer cannot be read.
    """
    draft, assistant = vllm_config.speculative_config.draft_model_config, vllm_config.model_config
    # vLLM gives the draft the assistant's tokenizer; its own lies beside its weights.
    models = [
        _named(draft, draft.model, draft.revision),
        _named(assistant, assistant.tokenizer, assistant.tokenizer_revision),
    ]
    return require_one_vocabulary(cast(Any, models), "vLLM with cosd")


def _named(model_config: Any, source: str, revision: str | None) -> _Named:
    access = {"revision": revision, "trust_remote_code": model_config.trust_remote_code}
    ends = model_config.try_get_generation_config().get("eos_token_id")
    if ends is None:
        ends = getattr(model_config.hf_text_config, "eos_token_id", None)
    ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return _Named(
        model_config.model, load_tokenizer(source, access), model_config.get_vocab_size(), tuple(ids)
    )
