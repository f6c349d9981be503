"""The bundled pair with two tokenizers: trained models that read each other's text do as well as with one."""

import asyncio
from statistics import mean

import pytest

from cosd_core import Chunk, CoSDDecoder, LanguageModel
from cosd_core.demo import KINDS, held_out, is_correct, load_pair
from examples.bundled_pairs import load_chat_pair, load_words_pair
from langchain_cosd import ChatCoSD
from langchain_cosd import CoSDLLM as LangChainLLM
from llama_index_cosd import CoSDLLM as LlamaIndexLLM
from tests.grids import every, exhaustive

QUESTIONS = [question for kind in KINDS for question in held_out(kind, 30)]
PROMPTS = [question.prompt for question in QUESTIONS]
Pair = tuple[LanguageModel, LanguageModel]


@pytest.fixture(scope="module", params=every(2, ["bytes draft", "words draft"]))
def pair(request: pytest.FixtureRequest) -> Pair:
    facts, arithmetic = load_words_pair()
    return (facts, arithmetic) if request.param == "bytes draft" else (arithmetic, facts)


def texts(decoder: CoSDDecoder, prompts: list[str] = PROMPTS, **options: object) -> list[str]:
    return [answer.text for answer in decoder.generate(prompts, **{"max_new_tokens": 48, **options})]


def accuracy(answers: list[str]) -> float:
    right = [is_correct(question, answer) for question, answer in zip(QUESTIONS, answers, strict=True)]
    return 100 * mean(right)


@exhaustive
def test_accuracy_is_within_five_points_of_the_pair_with_one_tokenizer(pair: Pair) -> None:
    alone = max(accuracy(texts(CoSDDecoder(*pair, verifier=name))) for name in ("draft", "assistant"))
    together, with_one = accuracy(texts(CoSDDecoder(*pair))), accuracy(texts(CoSDDecoder(*load_pair())))
    assert together >= with_one - 5
    assert together >= 90
    assert alone < 40


def test_each_alone_writes_what_it_writes_without_the_other(pair: Pair) -> None:
    for name, model in zip(("draft", "assistant"), pair, strict=True):
        own = texts(CoSDDecoder(model, model, verifier="draft"))
        assert texts(CoSDDecoder(*pair, verifier=name)) == own


def test_blocks_schedules_and_batches_change_nothing(pair: Pair) -> None:
    prompts = PROMPTS[::6]
    for options in ({}, {"temperature": 1.0, "seed": 7}):
        wanted = texts(CoSDDecoder(*pair), prompts, **options)
        for parts in ({"draft_length": 1}, {"draft_length": 3, "batch_size": 1}, {"schedule": "fixed"}):
            assert texts(CoSDDecoder(*pair, **parts), prompts, **options) == wanted


def test_the_trace_tells_the_text(pair: Pair) -> None:
    for answer in CoSDDecoder(*pair).generate(PROMPTS, max_new_tokens=48):
        assert "".join(token.text for token in answer.tokens) == answer.text
        assert answer.stats.tokens == len(answer.tokens)
        assert answer.stats.drafted == answer.stats.kept + answer.stats.replaced + answer.stats.discarded
        first = [token for token in answer.tokens if token.source == "assistant" and token.other_text]
        assert len(first) == answer.stats.replaced
        assert all(token.q is not None and token.p < 0.5 for token in first)


def test_streams_and_tasks_write_the_same(pair: Pair) -> None:
    decoder = CoSDDecoder(*pair)
    prompts = PROMPTS[::15]
    wanted = texts(decoder, prompts)

    async def at_once() -> list[str]:
        answers = await asyncio.gather(*(decoder.agenerate(each, max_new_tokens=48) for each in prompts))
        return [answer.text for answer in answers]

    assert asyncio.run(at_once()) == wanted
    for prompt, text in zip(prompts, wanted, strict=True):
        chunks: list[Chunk] = list(decoder.stream(prompt, max_new_tokens=48))
        assert "".join(chunk.text for chunk in chunks) == text


def test_both_frameworks_write_with_it(pair: Pair) -> None:
    draft, assistant = pair
    wanted = texts(CoSDDecoder(*pair), PROMPTS[:3])
    chain = LangChainLLM(draft_model=draft, assistant_model=assistant, max_tokens=48)
    engine = LlamaIndexLLM(draft_model=draft, assistant_model=assistant, max_tokens=48)
    assert [chain.invoke(prompt) for prompt in PROMPTS[:3]] == wanted
    assert [engine.complete(prompt).text for prompt in PROMPTS[:3]] == wanted


@pytest.mark.parametrize("tool_choice", ["any", "weather"])
def test_a_chat_calls_tools_though_the_assistant_has_no_tokens_for_the_tags(tool_choice: str) -> None:
    caller, _ = load_chat_pair()
    _, words = load_words_pair()
    chat = ChatCoSD(draft_model=caller, assistant_model=words, max_tokens=60)

    def weather(city: str) -> str:
        """The weather in a city."""
        return city

    answer = chat.bind_tools([weather], tool_choice=tool_choice).invoke("What is the weather in Oslo?")
    [call] = answer.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Oslo"})


def test_three_models_with_two_tokenizers_write_together() -> None:
    facts, arithmetic = load_pair()
    _, words = load_words_pair()
    trio = texts(CoSDDecoder(facts, [arithmetic, words]))
    assert accuracy(trio) >= 90
    never = CoSDDecoder(facts, [words, facts], verifier=["rule", "draft"])
    assert texts(never, PROMPTS[::9]) == texts(CoSDDecoder(facts, words), PROMPTS[::9])
