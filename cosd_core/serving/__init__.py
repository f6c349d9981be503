"""A pair for many programs: an HTTP server with the interface of OpenAI's API, and a plugin for vLLM."""
