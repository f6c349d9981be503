"""Two models behind one LlamaIndex class. Not written yet."""
