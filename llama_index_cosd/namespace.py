"""``llama_index.llms.cosd``, where LlamaIndex's users look for an LLM: the wheel puts this file there."""

from llama_index_cosd import CoSDLLM, CoSDProgram

__all__ = ["CoSDLLM", "CoSDProgram"]
