"""cosd's errors, where LangChain has a name of its own for them: each is both."""

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core import exceptions as langchain

from cosd_core import AnswerTimeoutError, ContextOverflowError, ModelLoadError


class CoSDContextOverflowError(ContextOverflowError, langchain.ContextOverflowError):
    """Prompt and answer do not fit the context window; LangChain's middleware shortens the history."""


class CoSDModelNotFoundError(ModelLoadError, langchain.ModelNotFoundError):
    """A model cannot be found or read."""


class CoSDTimeoutError(AnswerTimeoutError, langchain.ModelTimeoutError):
    """An answer took longer than ``timeout``; the work was stopped."""


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Raise cosd's errors under the names that LangChain knows too."""
    try:
        yield
    except ContextOverflowError as error:
        raise CoSDContextOverflowError(str(error)) from error
    except ModelLoadError as error:
        raise CoSDModelNotFoundError(str(error)) from error
    except AnswerTimeoutError as error:
        raise CoSDTimeoutError(str(error)) from None
