"""The errors cosd raises. All of them derive from one root, so one ``except CoSDError`` is enough.

::

    CoSDError
    ├── InvalidOptionError          an option or argument has a wrong name, type or value
    ├── InvalidPromptError          a prompt is empty, of a wrong type, or names unknown token ids
    │   └── ContextOverflowError    prompt and answer do not fit the context window of every model
    ├── ModelLoadError              a model or tokenizer cannot be found or read
    ├── UnsupportedModelError       a model that is no causal LM, or whose cache is wrong
    ├── VocabularyMismatchError     models' tokens differ and cannot be compared
    ├── MissingExtraError           an optional package is needed and not installed
    ├── TrainingDataError           what a verifier is to be learned from is missing, damaged or incomplete
    ├── EvaluationFileError         a file of tasks, answers or settings is missing, damaged or unwritable
    ├── VerifierFileError           a saved verifier is missing, damaged or not what it claims to be
    └── GenerationError             something failed while decoding; the decoder stays usable
        ├── AnswerTimeoutError      an answer took longer than it was given
        ├── IncompleteAnswerError   a structured answer was cut before it was whole
        ├── ModelOutputError        a model returned NaN or logits of an unexpected shape
        └── LogitsProcessorError    a logits processor raised, or returned something unusable

They do not derive from ``ValueError`` or ``TypeError`` on purpose: frameworks catch those and turn them
into empty answers.
"""


class CoSDError(Exception):
    """Root of every error that cosd raises on purpose."""


class InvalidOptionError(CoSDError):
    """An option or argument has a wrong name, type or value."""


class InvalidPromptError(CoSDError):
    """A prompt is empty, of a wrong type, or names token ids that no model knows."""


class ContextOverflowError(InvalidPromptError):
    """Prompt and answer together do not fit the context window of every model."""


class ModelLoadError(CoSDError):
    """A model or tokenizer cannot be found or read."""


class UnsupportedModelError(CoSDError):
    """A model that cannot take part: it is no causal LM, it fails, or its cache is wrong."""


class VocabularyMismatchError(CoSDError):
    """Draft and assistant have different tokens, and what is asked for needs one vocabulary."""


class MissingExtraError(CoSDError):
    """An optional package is needed and not installed."""


class TrainingDataError(CoSDError):
    """What a verifier is to be learned from is missing, damaged or incomplete."""


class EvaluationFileError(CoSDError):
    """A file of tasks, answers or settings is missing, damaged, or cannot be written."""


class VerifierFileError(CoSDError):
    """A saved verifier is missing, damaged or not what it claims to be."""


class GenerationError(CoSDError):
    """Something failed while decoding. The request is lost, the decoder stays usable."""


class AnswerTimeoutError(GenerationError, TimeoutError):
    """An answer took longer than ``timeout``; the work was stopped."""


class IncompleteAnswerError(GenerationError):
    """A structured answer was cut by ``max_new_tokens`` or a stop string before it was whole."""


class ModelOutputError(GenerationError):
    """A model returned NaN, or logits of an unexpected shape."""


class LogitsProcessorError(GenerationError):
    """A logits processor raised, or returned something unusable."""


def quoted(value: object, longest: int = 120) -> str:
    """A value, or what an exception says, as messages quote it: in one line, cut where it is long."""
    try:
        said = str(value) or type(value).__name__ if isinstance(value, BaseException) else repr(value)
    except Exception:  # a user's own __repr__ may raise anything
        said = f"a {type(value).__name__}"
    line = " ".join(said.split())
    return line if len(line) <= longest else f"{line[: longest - 30]}...{line[-25:]}"
