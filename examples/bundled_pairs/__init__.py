"""Trained pairs that no command of cosd needs, with the code that trains and scores every bundled model."""

from pathlib import Path
from typing import Literal

from cosd_core.demo import load_pair
from cosd_core.models.language_model import LanguageModel

__all__ = ["load_chat_pair", "load_words_pair"]

WEIGHTS = Path(__file__).parent / "weights"


def load_words_pair() -> tuple[LanguageModel, LanguageModel]:
    """Load a pair with two tokenizers as (draft, assistant).

    The draft is the facts model of ``cosd_core.demo.load_pair()``; its tokens are bytes. The assistant is an
    arithmetic model whose tokens are words and pieces of words.
    """
    facts, _ = load_pair()
    return facts, _load("arithmetic_words")


def load_chat_pair(draft: Literal["caller", "actor"] = "caller") -> tuple[LanguageModel, LanguageModel]:
    """Load a pair of chat models as (draft, assistant): the caller or the actor drafts, the talker assists.

    The caller was trained on tool calls and JSON, the talker on reading and small talk. The actor is a caller
    that was also trained on the steps of a ReAct agent (`chat.acting.HEADER`); it answers fewer reading
    questions. Use ``RuleVerifier(alpha=0.9)``: the confidence of each model in the other's field is low, but
    often above the default threshold of 0.5.
    """
    return _load(draft), _load("talker")


def _load(name: str) -> LanguageModel:
    return LanguageModel.from_pretrained(str(WEIGHTS / name), dtype="float32", device="cpu")
