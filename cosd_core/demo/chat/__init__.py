"""How the bundled chat pair was made: tokenizer, dialogues, training loop, and the held-out exam."""
