"""The errors that cosd raises. All of them derive from :class:`CoSDError`.

On purpose they do not derive from ``ValueError`` or ``TypeError``: frameworks catch those and return empty
answers.
"""


class CoSDError(Exception):
    """Root of every error that cosd raises on purpose."""


class InvalidOptionError(CoSDError):
    """An option or argument has a wrong name, type or value."""


class InvalidPromptError(CoSDError):
    """A prompt is empty, of a wrong type, or has token ids outside of the vocabulary."""


class ContextOverflowError(InvalidPromptError):
    """Prompt and answer together do not fit the context window of every model."""


class ModelLoadError(CoSDError):
    """A model or tokenizer cannot be found or read."""


class UnsupportedModelError(CoSDError):
    """A model cannot be used: it is no causal LM, its forward pass fails, or its cache is wrong."""


class VocabularyMismatchError(CoSDError):
    """Draft and assistant have different tokens, and a verifier or an option needs one vocabulary."""


class MissingExtraError(CoSDError):
    """An optional package is needed and not installed."""


class TrainingDataError(CoSDError):
    """Training data for a verifier is missing, damaged or incomplete."""


class EvaluationFileError(CoSDError):
    """A file of tasks, answers or settings is missing, damaged, or cannot be written."""


class VerifierFileError(CoSDError):
    """A saved verifier is missing, damaged or of another kind."""


class GenerationError(CoSDError):
    """Something failed while decoding. The request is lost, the decoder stays usable."""


class OutOfMemoryError(GenerationError):
    """A single prompt and its answer do not fit into the device's memory."""


class OverloadedError(GenerationError):
    """More calls wait for a decoder than its ``max_waiting`` admits; a later try may succeed."""


class AnswerTimeoutError(GenerationError, TimeoutError):
    """An answer took longer than ``timeout``; the work was stopped."""


class IncompleteAnswerError(GenerationError):
    """A structured answer was cut by ``max_new_tokens`` or a stop string before its end."""


class ModelOutputError(GenerationError):
    """A model returned NaN, or logits of an unexpected shape."""


class LogitsProcessorError(GenerationError):
    """A logits processor raised, or returned something unusable."""


class VerifierError(GenerationError):
    """A verifier of your own raised, or returned something unusable."""


class ScheduleError(GenerationError):
    """A schedule of your own raised, or returned something unusable."""


def quoted(value: object, longest: int = 120) -> str:
    """A value's ``repr``, or an exception's message, in one line, shortened if it is long."""
    try:
        text = str(value) or type(value).__name__ if isinstance(value, BaseException) else repr(value)
    except Exception:  # a user's own __repr__ may raise anything
        text = f"a {type(value).__name__}"
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 30]}...{line[-25:]}"
