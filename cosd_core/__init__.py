"""Collaborative Speculative Decoding: two or more language models write one text together.

::

    from cosd_core import CoSDDecoder

    decoder = CoSDDecoder.from_pretrained(draft="org/model-a", assistant="org/model-b")
    print(decoder.generate("The capital of France", max_new_tokens=32).text)
"""

__version__ = "0.1.0"

from cosd_core import explain
from cosd_core.chat import Chat, Turn
from cosd_core.decoding import CoSDDecoder
from cosd_core.errors import (
    AnswerTimeoutError,
    ContextOverflowError,
    CoSDError,
    GenerationError,
    IncompleteAnswerError,
    InvalidOptionError,
    InvalidPromptError,
    LogitsProcessorError,
    ModelLoadError,
    ModelOutputError,
    UnsupportedModelError,
    VerifierFileError,
    VocabularyMismatchError,
)
from cosd_core.grammar import Grammar
from cosd_core.models.language_model import LanguageModel
from cosd_core.options import ChatOptions, GenerationOptions, LoadingOptions
from cosd_core.records import Chunk, Generation, Prediction, Replacement, Stats, Step, TracedToken, Verdict
from cosd_core.scheduling import AdaptiveSchedule, FixedSchedule, Pace, Schedule
from cosd_core.settings import Settings
from cosd_core.verifiers import (
    AssistantVerifier,
    AverageVerifier,
    ConfidenceVerifier,
    DraftVerifier,
    Leaf,
    Picker,
    Position,
    RuleVerifier,
    SpeculativeVerifier,
    Split,
    TreeVerifier,
    Verifier,
)

__all__ = [
    "AdaptiveSchedule",
    "AnswerTimeoutError",
    "AssistantVerifier",
    "AverageVerifier",
    "Chat",
    "ChatOptions",
    "Chunk",
    "CoSDDecoder",
    "CoSDError",
    "ConfidenceVerifier",
    "ContextOverflowError",
    "DraftVerifier",
    "FixedSchedule",
    "Generation",
    "GenerationError",
    "GenerationOptions",
    "Grammar",
    "IncompleteAnswerError",
    "InvalidOptionError",
    "InvalidPromptError",
    "LanguageModel",
    "Leaf",
    "LoadingOptions",
    "LogitsProcessorError",
    "ModelLoadError",
    "ModelOutputError",
    "Pace",
    "Picker",
    "Position",
    "Prediction",
    "Replacement",
    "RuleVerifier",
    "Schedule",
    "Settings",
    "SpeculativeVerifier",
    "Split",
    "Stats",
    "Step",
    "TracedToken",
    "TreeVerifier",
    "Turn",
    "UnsupportedModelError",
    "Verdict",
    "Verifier",
    "VerifierFileError",
    "VocabularyMismatchError",
    "explain",
]
