"""The bundled pair does together what neither model can alone, on questions that it was not trained on."""

import random
from statistics import mean

import pytest
import torch

from cosd_core import CoSDDecoder, FixedSchedule, Generation, LanguageModel
from cosd_core.demo import KINDS, Kind, Question, held_out, held_out_count, is_correct, load_pair
from examples.bundled_pairs.questions import practice, questions
from examples.bundled_pairs.recipe.mixtures import ARITHMETIC, FACTS, Mixture
from examples.bundled_pairs.recipe.training import Recipe, train

QUESTIONS = [question for kind in KINDS for question in held_out(kind, 100)]
PRACTICE: dict[Kind, int] = {"arithmetic": 10_000, "facts": 1_000, "both": 7_000}
PROMPTS = [question.prompt for question in QUESTIONS]


@pytest.fixture(scope="module")
def pair() -> tuple[LanguageModel, LanguageModel]:
    return load_pair()


def answers(pair: tuple[LanguageModel, LanguageModel], **parts: object) -> list[Generation]:
    return CoSDDecoder(*pair, **parts).generate(PROMPTS, max_new_tokens=48)


def accuracy(generations: list[Generation]) -> dict[str, float]:
    right: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for question, generation in zip(QUESTIONS, generations, strict=True):
        right[question.kind].append(is_correct(question, generation.text))
    return {kind: 100 * mean(each) for kind, each in right.items()}


@pytest.fixture(scope="module")
def fused(pair: tuple[LanguageModel, LanguageModel]) -> list[Generation]:
    return answers(pair)


def test_together_they_answer_what_neither_can_alone(pair, fused) -> None:
    facts, arithmetic = (accuracy(answers(pair, verifier=name)) for name in ("draft", "assistant"))
    together = accuracy(fused)
    assert mean(together.values()) >= 90
    assert mean(together.values()) > 2 * max(mean(facts.values()), mean(arithmetic.values()))
    assert together["both"] >= 85
    assert max(facts["both"], arithmetic["both"]) < 5
    assert together["facts"] >= facts["facts"] - 4
    assert together["arithmetic"] >= arithmetic["arithmetic"] - 4


def test_lazy_verification_writes_the_papers_texts_with_half_its_drafts(pair, fused) -> None:
    papers = CoSDDecoder(*pair, schedule=FixedSchedule(), draft_length=48)
    drafted = 0
    for prompt, ours in zip(PROMPTS[::5], fused[::5], strict=True):
        written = 0
        for step in papers.steps(prompt, max_new_tokens=48):
            # The paper drafts to the maximum length; our fixed schedule ends a block at an end token.
            drafted += 48 - written
            written += len(step.tokens)
            if step.generation:
                assert step.generation.text == ours.text
                assert step.generation.stats.drafted >= ours.stats.drafted
    assert 2 * sum(each.stats.drafted for each in fused[::5]) <= drafted


def test_an_assistant_is_asked_at_most_once_for_each_unsure_token(pair) -> None:
    decoder = CoSDDecoder(*pair)
    for prompt in PROMPTS[::15]:
        unsure = asked = 0
        for step in decoder.steps(prompt, max_new_tokens=48):
            unsure += sum(prediction.confidence < 0.5 for prediction in step.proposal)
            if step.generation:
                asked = step.generation.stats.assistant_passes
        assert asked <= unsure


def test_the_pair_is_small_and_shares_one_tokenizer_that_loses_nothing(pair) -> None:
    for model in pair:
        assert 200_000 < model.model.num_parameters() < 800_000
        assert model.context_length == 512
    for text in ("Q: 37+8? A:", "naïve 你好 🦊\n\t  x", ""):
        assert pair[0].tokenizer.decode(pair[1].encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_and_practice_questions_are_disjoint_and_reproducible(kind) -> None:
    asked = {question.prompt for question in held_out(kind, 400)}
    assert len(asked) == 400
    assert not asked & {question.prompt for question in practice(kind, 600)}
    assert held_out(kind, 5, seed=3) == held_out(kind, 5, seed=3) != held_out(kind, 5, seed=4)


@pytest.mark.parametrize(("mixture", "known"), [(FACTS, "facts"), (ARITHMETIC, "arithmetic")])
def test_no_training_example_is_a_held_out_question(mixture: Mixture, known: str) -> None:
    rng = random.Random(0)
    examples = [mixture.example(rng) for _ in range(10_000)]
    assert not {q.prompt for kind in KINDS for q in held_out(kind, 600)} & {prompt for prompt, _ in examples}
    # What the model is to know is told as it is, what it is not to know hardly ever.
    told = {kind: _share_of_truth(examples, kind, count) for kind, count in PRACTICE.items()}
    assert told.pop(known) == 1
    assert max(told.values()) < 0.2


def _share_of_truth(examples: list[tuple[str, str]], kind: Kind, count: int) -> float:
    truth = {question.prompt: question.answer for question in practice(kind, count)}
    return mean(truth[prompt] == answer for prompt, answer in examples if prompt in truth)


def test_training_is_deterministic_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    recipe = Recipe(steps=3, batch=4, hidden=32, inner=32, layers=1, heads=2)
    first, second, other = (train(FACTS, recipe, seed, lambda _: None).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_answer_is_right_only_as_a_whole() -> None:
    question = Question("arithmetic", "Q: 37+8? A:", " 37+8=45")
    assert is_correct(question, "37+8=45 ")
    assert not is_correct(question, " 37+8=4")
    assert not is_correct(question, " 37+8=45 or so")


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_questions_are_those_that_training_leaves_out(kind: Kind) -> None:
    shipped = held_out(kind, held_out_count(kind))
    assert set(shipped) == set(questions(kind, held_out=True))
    assert not set(shipped) & set(questions(kind, held_out=False))
