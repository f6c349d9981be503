"""The recipe of a small chat pair that calls tools, fills JSON and reads texts, and the pair itself."""

from importlib.resources import as_file, files
from typing import Literal

from cosd_core.models.language_model import LanguageModel

__all__ = ["load_chat_pair"]


def load_chat_pair(
    draft: Literal["caller", "actor"] = "caller",
) -> tuple[LanguageModel, LanguageModel]:
    """Load the pair as (draft, assistant): the caller drafts, the talker assists.

    The actor is a caller that also knows the words of a ReAct agent (``cosd_core.demo.chat.acting.HEADER``);
    it reads less well. The rule suits both with ``alpha=0.9``: each model is unsure of the other's field, but
    less than the default asks.
    """
    return _load(draft), _load("talker")


def _load(name: str) -> LanguageModel:
    with as_file(files("cosd_core.demo") / "weights" / name) as folder:
        return LanguageModel.from_pretrained(str(folder), dtype="float32", device="cpu")
