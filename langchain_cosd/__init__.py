"""Two models behind one LangChain class. Not written yet."""
