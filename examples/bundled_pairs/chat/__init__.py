"""The recipe of the chat pair: dialogues with tools, JSON and texts to read, a tokenizer, and training."""
