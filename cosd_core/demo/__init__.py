"""A bundled pair of tiny models that answer together what neither can alone, and the questions to ask them.

One model knows arithmetic, the other knows facts, and each was trained to be unsure of the other's domain
(`train.py` says how and why).
"""

from importlib.resources import as_file, files

from cosd_core.demo.questions import KINDS, Kind, Question, held_out, held_out_count, is_correct, practice
from cosd_core.models.language_model import LanguageModel

__all__ = ["KINDS", "Kind", "Question", "held_out", "held_out_count", "is_correct", "load_pair", "practice"]


def load_pair(*, words: bool = False) -> tuple[LanguageModel, LanguageModel]:
    """Load the pair as (draft, assistant): the facts model drafts, the arithmetic model assists.

    Args:
        words: Whether the arithmetic model is the one that was trained in words and pieces of words. The
            others' tokens are bytes, so the pair has two tokenizers then.
    """
    return _load("facts"), _load("arithmetic_words" if words else "arithmetic")


def _load(name: str) -> LanguageModel:
    with as_file(files(__name__) / "weights" / name) as folder:
        return LanguageModel.from_pretrained(str(folder), dtype="float32", device="cpu")
