"""The llama.cpp backend: models in GGUF files, through the package llama-cpp-python."""
