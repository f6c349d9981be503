"""Records out of sentences: the answer is held to a pydantic class, token by token.

Needs ``cosd[langchain]``.
"""

from pydantic import BaseModel, Field

from bundled_pairs import load_chat_pair
from langchain_cosd import ChatCoSD


class Person(BaseModel):
    """A person."""

    name: str
    age: int = Field(ge=0, le=150)
    city: str


SENTENCES = [
    "Venra Holm is 44 years old and lives in Lasko.",
    "Ilan Forke lives in Tamiro and is 71 years old.",
    "Remo Tasil is 29 years old and lives in Nureda.",
]


def main() -> None:
    draft, assistant = load_chat_pair()
    chat = ChatCoSD(draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=64)
    extract = chat.with_structured_output(Person)
    for sentence, person in zip(SENTENCES, extract.batch(SENTENCES), strict=True):
        print(f"{sentence}\n  {person!r}")

    print("\nWhat is cut off is never taken for whole:")
    short = chat.model_copy(update={"max_new_tokens": 8}).with_structured_output(Person, include_raw=True)
    result = short.invoke(SENTENCES[0])
    print(f"  {result['raw'].content!r} -> {result['parsed']}")


if __name__ == "__main__":
    main()
