"""Collaborative Speculative Decoding: two or more language models write one text together.

::

    from cosd_core import CoSDDecoder

    decoder = CoSDDecoder.from_pretrained(draft="org/model-a", assistant="org/model-b")
    print(decoder.generate("The capital of France", max_new_tokens=32).text)
"""

__version__ = "0.1.0"

from cosd_core import explain
from cosd_core.calibration import Calibration
from cosd_core.chat import Chat, Turn
from cosd_core.decoding import CoSDDecoder
from cosd_core.errors import (
    AnswerTimeoutError,
    ContextOverflowError,
    CoSDError,
    EvaluationFileError,
    GenerationError,
    IncompleteAnswerError,
    InvalidOptionError,
    InvalidPromptError,
    LogitsProcessorError,
    MissingExtraError,
    ModelLoadError,
    ModelOutputError,
    TrainingDataError,
    UnsupportedModelError,
    VerifierFileError,
    VocabularyMismatchError,
)
from cosd_core.grammar import Grammar
from cosd_core.lessons import Lesson, read_lessons
from cosd_core.models.language_model import LanguageModel
from cosd_core.observations import Observations
from cosd_core.options import ChatOptions, GenerationOptions, LoadingOptions
from cosd_core.records import Chunk, Generation, Prediction, Replacement, Stats, Step, TracedToken, Verdict
from cosd_core.scheduling import AdaptiveSchedule, FixedSchedule, Pace, Schedule
from cosd_core.settings import Settings, read_settings
from cosd_core.teaching import observe
from cosd_core.verifiers import (
    AssistantVerifier,
    AverageVerifier,
    ConfidenceVerifier,
    DraftVerifier,
    Leaf,
    PairwiseVerifier,
    PanelVerifier,
    Picker,
    Position,
    RuleVerifier,
    SpeculativeVerifier,
    Split,
    TreeVerifier,
    Verifier,
    WideTreeVerifier,
)

__all__ = [
    "AdaptiveSchedule",
    "AnswerTimeoutError",
    "AssistantVerifier",
    "AverageVerifier",
    "Calibration",
    "Chat",
    "ChatOptions",
    "Chunk",
    "CoSDDecoder",
    "CoSDError",
    "ConfidenceVerifier",
    "ContextOverflowError",
    "DraftVerifier",
    "EvaluationFileError",
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
    "Lesson",
    "LoadingOptions",
    "LogitsProcessorError",
    "MissingExtraError",
    "ModelLoadError",
    "ModelOutputError",
    "Observations",
    "Pace",
    "PairwiseVerifier",
    "PanelVerifier",
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
    "TrainingDataError",
    "TreeVerifier",
    "Turn",
    "UnsupportedModelError",
    "Verdict",
    "Verifier",
    "VerifierFileError",
    "VocabularyMismatchError",
    "WideTreeVerifier",
    "explain",
    "observe",
    "read_lessons",
    "read_settings",
]
