"""Questions about a small valley, answered from passages that a retriever finds.

The passages lie in a vector store of LangChain's; the vectors count words (scikit-learn), so nothing is
downloaded. The bundled chat pair copies the sentence that answers the question. Needs ``cosd[langchain]``.
"""

from pathlib import Path

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from sklearn.feature_extraction.text import TfidfVectorizer

from bundled_pairs import load_chat_pair
from langchain_cosd import ChatCoSD

CORPUS = Path(__file__).parent / "corpus" / "valley.txt"
QUESTIONS = {
    "Who built The Kalo Bridge?": "Anra Velist",
    "How many people live in Tamiro?": "977",
    "When does The Rudin Museum open?": "10:30",
    "How high is The Sora Tower?": "88",
    "Who is the mayor of Nureda?": "Losa Grimand",
    "What is The Halin Castle made of?": "stone",
    "When was The Bela Garden planned?": "1751",
    "How much does The Pelara Ferry cost?": "14",
}


class WordCounts(Embeddings):
    """Texts as vectors of weighted word counts."""

    def __init__(self, texts: list[str]) -> None:
        self._vectorizer = TfidfVectorizer(sublinear_tf=True).fit(texts)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per text."""
        vectors: list[list[float]] = self._vectorizer.transform(texts).toarray().tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return self.embed_documents([text])[0]


def joined(documents: list[Document]) -> str:
    return "\n\n".join(document.page_content for document in documents)


def main() -> None:
    passages = CORPUS.read_text(encoding="utf-8").strip().split("\n\n")
    store = InMemoryVectorStore.from_texts(passages, WordCounts(passages))
    draft, assistant = load_chat_pair()
    chat = ChatCoSD(draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=48)
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Answer from the context."), ("human", "Context:\n{context}\n\nQuestion: {question}")]
    )
    retriever = store.as_retriever(search_kwargs={"k": 2})
    chain = (
        {"context": retriever | joined, "question": RunnablePassthrough()} | prompt | chat | StrOutputParser()
    )

    answers = chain.batch(list(QUESTIONS))
    right = 0
    for (question, expected), answer in zip(QUESTIONS.items(), answers, strict=True):
        right += expected in answer
        print(f"{question}\n  {answer}")
    print(f"\n{right} of {len(QUESTIONS)} answers are right.")


if __name__ == "__main__":
    main()
