"""A LangChain pipeline over the bundled pair: questions in, checked answers out, many at once and streamed.

Needs the extra ``cosd[langchain]``.
"""

import asyncio

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate

from cosd_core.demo import held_out, load_pair
from langchain_cosd import CoSDLLM


async def main() -> None:
    draft, assistant = load_pair()
    llm = CoSDLLM(draft_model=draft, assistant_model=assistant, max_tokens=48)
    chain = PromptTemplate.from_template("Q: {question}? A:") | llm | StrOutputParser() | str.strip

    print("One question, streamed:")
    async for piece in chain.astream({"question": "letters in the capital of France plus 4"}):
        print(piece, end="", flush=True)
    print("\n")

    questions = held_out("both", 12)
    asked = [{"question": each.prompt.removeprefix("Q: ").removesuffix("? A:")} for each in questions]
    answers = await chain.abatch(asked)
    right = sum(answer == each.answer.strip() for answer, each in zip(answers, questions, strict=True))
    print(f"{right} of {len(questions)} questions at once answered right, such as:")
    print(f"  {asked[0]['question']}? {answers[0]}\n")

    result = llm.generate([questions[0].prompt], return_trace=True)
    info = result.generations[0][0].generation_info
    assert info is not None
    by_assistant = [token["text"] for token in info["trace"]["tokens"] if token["source"] == "assistant"]
    print(f"The assistant wrote {by_assistant} of it; the draft the rest.")


if __name__ == "__main__":
    asyncio.run(main())
