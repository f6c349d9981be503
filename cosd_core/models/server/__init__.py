"""Models behind vLLM's OpenAI-compatible server: predictions over HTTP."""
