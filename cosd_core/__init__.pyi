# The public names. Type checkers read this file; __init__.py imports each name on its first use.
from . import explain as explain
from ._version import __version__ as __version__
from .chat import Chat as Chat, Turn as Turn
from .decoder import CoSDDecoder as CoSDDecoder
from .errors import (
    AnswerTimeoutError as AnswerTimeoutError,
    ContextOverflowError as ContextOverflowError,
    CoSDError as CoSDError,
    EvaluationFileError as EvaluationFileError,
    GenerationError as GenerationError,
    IncompleteAnswerError as IncompleteAnswerError,
    InvalidOptionError as InvalidOptionError,
    InvalidPromptError as InvalidPromptError,
    LogitsProcessorError as LogitsProcessorError,
    MissingExtraError as MissingExtraError,
    ModelInUseError as ModelInUseError,
    ModelLoadError as ModelLoadError,
    ModelOutputError as ModelOutputError,
    OutOfMemoryError as OutOfMemoryError,
    OverloadedError as OverloadedError,
    ModelUnloadedError as ModelUnloadedError,
    TraceError as TraceError,
    ScheduleError as ScheduleError,
    SchemaMismatchError as SchemaMismatchError,
    TrainingDataError as TrainingDataError,
    UnsupportedModelError as UnsupportedModelError,
    VerifierError as VerifierError,
    VerifierFileError as VerifierFileError,
    VocabularyMismatchError as VocabularyMismatchError,
)
from .frontend.settings import Settings as Settings
from .frontend.settings_file import read_settings as read_settings
from .generation.scheduling import (
    AdaptiveSchedule as AdaptiveSchedule,
    FixedSchedule as FixedSchedule,
    Schedule as Schedule,
    ScheduleState as ScheduleState,
)
from .grammar import Grammar as Grammar
from .models.gguf.model import GGUFModel as GGUFModel
from .models.language_model import LanguageModel as LanguageModel
from .options import (
    ChatOptions as ChatOptions,
    GenerationOptions as GenerationOptions,
    LoadingOptions as LoadingOptions,
)
from .outputs import (
    Chunk as Chunk,
    Generation as Generation,
    Stats as Stats,
    Step as Step,
    TracedToken as TracedToken,
)
from .prediction import Prediction as Prediction
from .training.calibration import Calibration as Calibration
from .training.examples import Example as Example, read_examples as read_examples
from .training.teacher_forcing import observe as observe
from .verifiers import (
    AssistantVerifier as AssistantVerifier,
    AverageVerifier as AverageVerifier,
    ConfidenceVerifier as ConfidenceVerifier,
    DraftVerifier as DraftVerifier,
    Leaf as Leaf,
    PairwiseVerifier as PairwiseVerifier,
    PanelVerifier as PanelVerifier,
    Position as Position,
    RuleVerifier as RuleVerifier,
    SpeculativeVerifier as SpeculativeVerifier,
    Split as Split,
    TokenSampler as TokenSampler,
    TreeVerifier as TreeVerifier,
    Verifier as Verifier,
)
from .verifiers.observations import Observations as Observations
from .verifiers.types import Replacement as Replacement, Verdict as Verdict
