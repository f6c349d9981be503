"""``llama_index.llms.cosd`` in LlamaIndex's namespace: the wheel installs this file there."""

from llama_index_cosd import CoSDLLM, CoSDProgram

__all__ = ["CoSDLLM", "CoSDProgram"]
