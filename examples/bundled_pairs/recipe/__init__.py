"""How the bundled pair was made: the tokenizer, the training mixtures and the training loop."""
