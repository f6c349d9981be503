"""LangChain on a pair of models that write together: :class:`CoSDLLM`.

Needs the extra ``cosd[langchain]``.
"""

from langchain_cosd.errors import CoSDContextOverflowError, CoSDModelNotFoundError, CoSDTimeoutError
from langchain_cosd.llms import CoSDLLM

__all__ = ["CoSDContextOverflowError", "CoSDLLM", "CoSDModelNotFoundError", "CoSDTimeoutError"]
