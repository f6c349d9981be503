"""An HTTP server over a pair, with the interface of OpenAI's API."""
