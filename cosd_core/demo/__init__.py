"""A bundled pair of tiny models that together answer questions that neither answers alone, and the questions.

One model was trained on arithmetic, the other on facts. Each was also trained on the other's questions with
random answers, so that its confidence there is low (``examples/bundled_pairs`` in the repository).
"""

from importlib.resources import as_file, files

from cosd_core.demo.questions import KINDS, Kind, Question, held_out, held_out_count, is_correct, practice
from cosd_core.models.language_model import LanguageModel

__all__ = ["KINDS", "Kind", "Question", "held_out", "held_out_count", "is_correct", "load_pair", "practice"]


def load_pair() -> tuple[LanguageModel, LanguageModel]:
    """Load the pair as (draft, assistant): the facts model drafts, the arithmetic model assists.

    Both are Llama models of 205,568 parameters in float32 on the CPU. Their tokens are bytes.
    """
    return _load("facts"), _load("arithmetic")


def _load(name: str) -> LanguageModel:
    with as_file(files(__name__) / "weights" / name) as folder:
        return LanguageModel.from_pretrained(str(folder), dtype="float32", device="cpu")
