"""Models with different tokenizers: they are compared by text, word by word."""
