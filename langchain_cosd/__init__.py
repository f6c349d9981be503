"""LangChain models that run cosd's fused decoding: :class:`CoSDLLM` and :class:`ChatCoSD`.

Needs the extra ``cosd[langchain]``.
"""

try:
    import langchain_core  # noqa: F401 - imported only to check that it is installed
except ImportError as error:
    raise ImportError('langchain_cosd needs LangChain: pip install "cosd[langchain]"') from error

from langchain_cosd.chat_models import ChatCoSD
from langchain_cosd.errors import CoSDContextOverflowError, CoSDModelNotFoundError, CoSDTimeoutError
from langchain_cosd.llms import CoSDLLM

__all__ = ["ChatCoSD", "CoSDContextOverflowError", "CoSDLLM", "CoSDModelNotFoundError", "CoSDTimeoutError"]
