"""Collaborative Speculative Decoding: two or more language models write one text together.

::

    from cosd_core import CoSDDecoder

    decoder = CoSDDecoder.from_pretrained(draft="org/model-a", assistant="org/model-b")
    print(decoder.generate("The capital of France", max_new_tokens=32).text)
"""

from cosd_core import explain
from cosd_core._version import __version__
from cosd_core.chat import Chat, Turn
from cosd_core.decoder import CoSDDecoder
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
from cosd_core.frontend.settings import Settings
from cosd_core.frontend.settings_file import read_settings
from cosd_core.generation.scheduling import AdaptiveSchedule, FixedSchedule, Schedule, ScheduleState
from cosd_core.grammar import Grammar
from cosd_core.models.language_model import LanguageModel
from cosd_core.options import ChatOptions, GenerationOptions, LoadingOptions
from cosd_core.outputs import Chunk, Generation, Stats, Step, TracedToken
from cosd_core.prediction import Prediction
from cosd_core.training.calibration import Calibration
from cosd_core.training.examples import Example, read_examples
from cosd_core.training.teacher_forcing import observe
from cosd_core.verifiers import (
    AssistantVerifier,
    AverageVerifier,
    ConfidenceVerifier,
    DraftVerifier,
    Leaf,
    PairwiseVerifier,
    PanelVerifier,
    Position,
    RuleVerifier,
    SpeculativeVerifier,
    Split,
    TokenSampler,
    TreeVerifier,
    Verifier,
    WideTreeVerifier,
)
from cosd_core.verifiers.observations import Observations
from cosd_core.verifiers.types import Replacement, Verdict

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
    "Example",
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
    "MissingExtraError",
    "ModelLoadError",
    "ModelOutputError",
    "Observations",
    "PairwiseVerifier",
    "PanelVerifier",
    "Position",
    "Prediction",
    "Replacement",
    "RuleVerifier",
    "Schedule",
    "ScheduleState",
    "Settings",
    "SpeculativeVerifier",
    "Split",
    "Stats",
    "Step",
    "TokenSampler",
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
    "__version__",
    "explain",
    "observe",
    "read_examples",
    "read_settings",
]

Generation._repr_html_ = explain.to_html_fragment  # type: ignore[attr-defined]  # notebooks look for it
