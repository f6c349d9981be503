"""Compares the vocabularies of the two models that vLLM loads."""

from dataclasses import dataclass
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedTokenizerBase

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
    """
    speculative = vllm_config.speculative_config
    models = [_named(each) for each in (speculative.draft_model_config, vllm_config.model_config)]
    return require_one_vocabulary(cast(Any, models), "vLLM with cosd")


def _named(model_config: Any) -> _Named:
    where = {"revision": model_config.tokenizer_revision, "trust_remote_code": model_config.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(model_config.tokenizer, **where)
    ends = model_config.try_get_generation_config().get("eos_token_id")
    if ends is None:
        ends = getattr(model_config.hf_text_config, "eos_token_id", None)
    ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return _Named(model_config.model, tokenizer, model_config.get_vocab_size(), tuple(ids))
