"""Errors that are both cosd's and LangChain's, where LangChain has its own class for them."""

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
    """Raise cosd's errors as the classes of this module, where there is one."""
    try:
        yield
    except ContextOverflowError as error:
        raise CoSDContextOverflowError(str(error)) from error
    except ModelLoadError as error:
        raise CoSDModelNotFoundError(str(error)) from error
    except AnswerTimeoutError as error:
        raise CoSDTimeoutError(str(error)) from None
