"""LlamaIndex on a pair of models that write together: :class:`CoSDLLM`.

Needs the extra ``cosd[llama-index]``.
"""

try:
    import llama_index.core  # noqa: F401 - only asked whether it is there
except ImportError as error:
    raise ImportError('llama_index_cosd needs LlamaIndex: pip install "cosd[llama-index]"') from error

from llama_index_cosd.base import CoSDLLM
from llama_index_cosd.program import CoSDProgram

__all__ = ["CoSDLLM", "CoSDProgram"]
