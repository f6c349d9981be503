"""CoSD inside vLLM: a plugin for its speculative decoding, and a reader of its answers (docs/vllm.md).

This module and ``provenance`` need no vLLM: they read answers on the client's side too.
"""

from cosd_core.serving.vllm.provenance import DecidedToken, read_provenance

__all__ = ["DecidedToken", "read_provenance"]
