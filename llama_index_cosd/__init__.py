"""A LlamaIndex LLM that runs cosd's fused decoding: :class:`CoSDLLM`.

Needs the extra ``cosd[llama-index]``.
"""

try:
    import llama_index.core  # noqa: F401 - imported only to check that it is installed
except ImportError as error:
    raise ImportError('llama_index_cosd needs LlamaIndex: pip install "cosd[llama-index]"') from error

from llama_index_cosd.llms import CoSDLLM
from llama_index_cosd.program import CoSDProgram

__all__ = ["CoSDLLM", "CoSDProgram"]
