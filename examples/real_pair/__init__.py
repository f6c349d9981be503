"""A real pair: SmolLM2-135M-Instruct, and a LoRA adapter of it."""
