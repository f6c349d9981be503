"""Claim: models with different tokenizers write what docs/different-tokenizers.md says, whatever the blocks.

Their texts are those of the uncached reference, those of the one-vocabulary method where one tokenizer is
taken for two, and those of a model alone where it alone decides.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from random import Random
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cosd_core import (
    AdaptiveSchedule,
    CoSDDecoder,
    Generation,
    LanguageModel,
    PanelVerifier,
    RuleVerifier,
    TreeVerifier,
)
from cosd_core.cross_tokenizer.row_factory import CrossTokenizerRowFactory
from cosd_core.cross_tokenizer.tokenizer_view import TokenizerView
from cosd_core.cross_tokenizer.vocabulary import vocabulary_of
from cosd_core.demo import held_out, load_pair
from cosd_core.models.vocabulary_alignment import Alignment
from cosd_core.verifiers import Leaf, Split
from tests.grids import but_for, covering, every, exhaustive
from tests.joining import decode_joining
from tests.test_translated_by_eye import pieces
from tests.tokenizers import ZOO
from tests.translated_reference import Written, assert_agrees, write

PROMPTS = [
    "The capital of France is",
    "x",
    "naïve 你好 🦊.",
    "def f(x):\n    return",
    "Быстрая лиса,   1,234",
]
SETTINGS: list[dict[str, Any]] = [
    {"schedule": "fixed", "draft_length": 1},
    {"schedule": "adaptive", "draft_length": 8},
    {"schedule": "fixed", "draft_length": 3, "batch_size": 2},
    {"schedule": "fixed", "draft_length": 50},
    {"schedule": AdaptiveSchedule(assistant_cost=5), "draft_length": 2, "batch_size": 1},
]
TREE = TreeVerifier((Split("p", 0.3, 1, 4), Split("q", 0.1, 2, 3), Leaf(False), Leaf(True), Leaf(False)))


@cache
def random_over(
    tokenizer: PreTrainedTokenizerBase, *, seed: int, sharpness: float = 3.0, ends: tuple[int, ...] = (),
    eager_to_end: float = 1.0, **config: Any,
) -> LanguageModel:  # fmt: skip
    """A random two-layer Llama over a tokenizer; its texts also end with these tokens."""
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "initializer_range": 0.3, "eos_token_id": [tokenizer.eos_token_id, *ends], "bos_token_id": None,
        "pad_token_id": None,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**shape, **config})).to(torch.float64)
    model.lm_head.weight.data *= sharpness
    model.lm_head.weight.data[tokenizer.eos_token_id] *= eager_to_end
    return LanguageModel(model, tokenizer, name=f"random-{seed}")


@cache
def ascii_over(tokenizer: PreTrainedTokenizerBase, *, seed: int) -> LanguageModel:
    """One that writes no broken characters: of all others but those of ASCII it thinks little."""
    model = random_over(tokenizer, seed=-1 - seed)
    known = vocabulary_of(tokenizer, len(tokenizer))
    rare = [at for at in range(len(tokenizer)) if not known.bytes_of(at).isascii()]
    model.model.lm_head.weight.data[rare] *= 0.01
    return model


# The reference


@dataclass(frozen=True)
class Case:
    """Models by their tokenizers, the draft's first, and what is asked of them."""

    number: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.number}-{'/'.join(self.names)}"

    def models(self) -> list[LanguageModel]:
        random = Random(self.number)
        made = []
        for at, name in enumerate(self.names):
            tokenizer = ZOO[name]()
            ends = tuple(random.randrange(len(tokenizer)) for _ in range(random.choice([0, 0, 8])))
            made.append(
                random_over(
                    tokenizer, seed=10 * self.number + at, ends=ends, sharpness=random.choice([2, 3, 5])
                )
            )
        return made

    def verifier(self) -> RuleVerifier:
        random = Random(self.number)
        return RuleVerifier(alpha=random.choice([0.3, 0.5, 0.9]), beta=random.choice([0.1, 0.5, 1.0]))

    def options(self) -> dict[str, Any]:
        chosen: dict[str, Any] = {"max_new_tokens": Random(self.number).choice([13, 18, 24])}
        match self.number % 5:
            case 1:
                chosen |= {"temperature": 0.8, "seed": self.number, "top_k": 30}
            case 2:
                chosen |= {"stop": ("a", "。", "\x00", "th")}
            case 3:
                chosen |= {"min_new_tokens": 9, "repetition_penalty": 1.3}
            case 4:
                chosen |= {"max_new_tokens": 3}
        return chosen


PAIRS = [
    ("characters", "gpt2-400"), ("gpt2-400", "characters"), ("single-bytes", "unigram-bytes"),
    ("wordpiece", "gpt2-2000"), ("gpt2-2000", "wordpiece"), ("llama2", "gpt2-400"), ("gpt2-400", "llama2"),
    ("single-bytes", "gpt2-2000"), ("gpt2-2000", "single-bytes"), ("llama3", "llama2"), ("unigram", "llama3"),
    ("llama3", "unigram"), ("gpt2-400", "gpt2-2000"), ("gpt2-400-space", "unigram-bytes"),
    ("characters", "wordpiece"), ("unigram-bytes", "characters"),
]  # fmt: skip
PANELS = [
    ("gpt2-400", "gpt2-400", "characters"), ("characters", "llama2", "characters", "wordpiece"),
    ("single-bytes", "gpt2-2000", "single-bytes"), ("llama3", "unigram", "single-bytes", "llama3"),
]  # fmt: skip
CASES = [Case(number, names) for number, names in enumerate(PAIRS * 2 + PANELS * 3)]


@cache
def written(case: Case, prompt: str) -> Written:
    verifier = case.verifier()
    draft, *assistants = case.models()
    return write(draft, assistants, verifier.replaces, prompt, **case.options())


@pytest.mark.parametrize("case", every(3, CASES), ids=str)
def test_texts_and_their_writers_are_the_references(case: Case) -> None:
    prompts = [PROMPTS[(case.number + at) % len(PROMPTS)] for at in range(2)]
    for at in range(2):
        parts = SETTINGS[(case.number + 2 * at) % len(SETTINGS)]
        decoder = CoSDDecoder(case.models()[0], case.models()[1:], verifier=case.verifier(), **parts)
        for prompt, generation in zip(prompts, decoder.generate(prompts, **case.options()), strict=True):
            assert_agrees(generation, written(case, prompt))


@exhaustive
def test_among_the_cases_is_everything_that_can_happen() -> None:
    texts = [
        (case, written(case, PROMPTS[(case.number + at) % len(PROMPTS)])) for case in CASES for at in range(2)
    ]
    tokens = [token for _, text in texts for token in text.tokens]
    assert sum(token.writer is None for token in tokens) > 200
    assert sum(token.writer is not None for token in tokens) > 150
    assert sum(text.changes for _, text in texts) > 100
    assert {token.writer for token in tokens} == {None, 0, 1, 2}
    assert sum(text.finish_reason == "length" for _, text in texts) > 20
    assert sum(text.stop_sequence is not None for _, text in texts) > 5
    ended = [
        text.tokens[-1] for _, text in texts if text.finish_reason == "stop" and text.stop_sequence is None
    ]
    assert (
        min(sum(last.writer is None for last in ended), sum(last.writer is not None for last in ended)) >= 2
    )


@pytest.mark.parametrize(("name", "fires"), [
    (TREE, lambda p, q: p <= 0.3 and q > 0.1),
    ("assistant", lambda _p, _q: True),
    ("draft", lambda _p, _q: False),
    (PanelVerifier((RuleVerifier(alpha=0.9, beta=0.1), TREE)), [lambda p, q: p < 0.9 and q > 0.1 * p,
                                                               lambda p, q: p <= 0.3 and q > 0.1]),
], ids=["tree", "assistant", "draft", "panel"])  # fmt: skip
def test_under_other_verifiers_too(name: Any, fires: Any) -> None:
    names = (
        ("gpt2-400", "characters", "unigram-bytes")
        if isinstance(name, PanelVerifier)
        else ("gpt2-400", "characters")
    )
    draft, *assistants = (random_over(ZOO[each](), seed=at) for at, each in enumerate(names))
    for parts in SETTINGS[:4]:
        decoder = CoSDDecoder(draft, assistants, verifier=name, **parts)
        for prompt, generation in zip(PROMPTS, decoder.generate(PROMPTS, max_new_tokens=12), strict=True):
            assert_agrees(generation, write(draft, assistants, fires, prompt, max_new_tokens=12))


# One tokenizer taken for two


class Forced(CrossTokenizerRowFactory):
    """Rows for models that share a vocabulary and are told that they do not: no word of it is half a word."""

    def _tokenizer_views(self, named: Sequence[int] | None) -> list[TokenizerView]:
        return [replace(view, finishes_words=False) for view in super()._tokenizer_views(named)]


def forced(decoder: CoSDDecoder) -> CoSDDecoder:
    """The same decoder, made to compare texts."""
    others = len(decoder.assistants)
    made = CoSDDecoder(decoder.draft, decoder.assistants, verifier=decoder.verifier)
    made._alignment = Alignment(decoder._alignment.vocabularies, ("forced",) * others)
    made._rows = Forced(made.models, made._alignment, decoder._rows._config)
    return made


def same(plain: Generation, translated: Generation) -> bool:
    """The text, its tokens, and who wrote them."""
    assert plain.token_ids == translated.token_ids
    assert plain.text == translated.text
    assert plain.finish_reason == translated.finish_reason
    for ours, theirs in zip(plain.tokens, translated.tokens, strict=True):
        assert (ours.text, ours.source) == (theirs.text, theirs.source)
        if ours.source == "assistant":
            assert (ours.p, ours.q) == (pytest.approx(theirs.p, rel=1e-3), pytest.approx(theirs.q, rel=1e-3))
            assert (ours.draft_id, ours.assistant_id) == (theirs.draft_id, theirs.assistant_id)
            assert (ours.assistant_index, ours.other_text) == (theirs.assistant_index, theirs.other_text)
    return any(token.source == "assistant" for token in plain.tokens)


@cache
def spaced_words() -> PreTrainedTokenizerFast:
    """Words with the space before them, and stops: every sequence of tokens is how its text is split."""
    words = [
        " the",
        " cat",
        " cats",
        " sat",
        " un",
        " unhappy",
        " on",
        " a",
        " mat",
        " naïve",
        " 你好",
        " 7",
        " 42",
    ]
    vocabulary = {piece: at for at, piece in enumerate(["<end>", *words, ".", ",", "\n"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" [^ .,\n]+|[.,\n]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


CANONICAL = {
    "letters": lambda: pieces(*"abcdefgh .,\nß中😀1'", unknown="<end>"),
    "words": spaced_words,
}
CANONICAL_PROMPTS = {
    "letters": ["a", "bad cafe", "中中 a", "d\n\n  e", "1'h 😀ß.", "fade, "],
    "words": [" the", " the cat sat", " a\n\n", " 你好, naïve.", " 42 7 42"],
}


@pytest.mark.parametrize("kind", but_for(["words"], CANONICAL))
def test_one_tokenizer_taken_for_two_gives_the_text_that_it_gives(kind: str) -> None:
    """100 random cases over both kinds, and every answer of them."""
    tokenizer = CANONICAL[kind]()
    replaced = ended = 0
    for number in range(50):
        random = Random(number)
        draft, *assistants = (
            random_over(
                tokenizer, seed=number + 1000 * at, eager_to_end=1.5, sharpness=random.choice([1.5, 3, 6])
            )
            for at in range(2 + (number % 5 == 0))
        )
        verifier = RuleVerifier(alpha=random.choice([0.3, 0.5, 0.9]), beta=random.choice([0.1, 0.5, 1.0]))
        plain = CoSDDecoder(draft, assistants, verifier=verifier, draft_length=random.choice([1, 2, 5, 30]),
                            schedule=random.choice(["fixed", "adaptive"]))  # fmt: skip
        options: dict[str, Any] = {"max_new_tokens": random.choice([1, 7, 20])}
        if number % 3 == 0:
            options |= {"min_new_tokens": min(5, options["max_new_tokens"])}
        prompt = random.choice(CANONICAL_PROMPTS[kind])
        ours, theirs = plain.generate(prompt, **options), forced(plain).generate(prompt, **options)
        replaced += same(ours, theirs)
        ended += ours.finish_reason == "stop"
    assert replaced > 16
    assert 6 < ended < 44


@pytest.mark.parametrize(
    "verifier", every(3, ["rule", "draft", "assistant", TREE]), ids=["rule", "draft", "assistant", "tree"]
)
def test_the_bundled_pair_answers_the_same_when_its_bytes_are_taken_for_two(verifier: Any) -> None:
    questions = held_out("both", 20) + held_out("facts", 10) + held_out("arithmetic", 10)
    prompts = [question.prompt for question in questions]
    plain = CoSDDecoder(*load_pair(), verifier=verifier)
    answers = [decoder.generate(prompts, max_new_tokens=48) for decoder in (plain, forced(plain))]
    replaced = [same(*each) for each in zip(*answers, strict=True)]
    assert any(replaced) == (verifier != "draft")


# One model alone


def alone(model: LanguageModel, prompt: str, length: int) -> list[int]:
    """The new token ids of transformers' own greedy search."""
    ids = torch.tensor([model.encode(prompt)])
    found = model.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=length, pad_token_id=0
    )
    return found[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize(
    ("names", "verifier"), covering(product(PAIRS[:6], ["draft", RuleVerifier(alpha=0.0)])), ids=str
)
def test_a_draft_that_is_never_replaced_writes_what_it_writes_alone(
    names: tuple[str, str], verifier: Any
) -> None:
    for seed in range(2):
        draft, assistant = (
            random_over(ZOO[name](), seed=seed + 50 * at, ends=(3, 30, 33)) for at, name in enumerate(names)
        )
        for parts in (SETTINGS[seed], SETTINGS[3]):
            generations = CoSDDecoder(draft, assistant, verifier=verifier, **parts).generate(
                PROMPTS, max_new_tokens=16
            )
            assert [list(each.token_ids) for each in generations] == [
                alone(draft, each, 16) for each in PROMPTS
            ]


@pytest.mark.parametrize("draft", every(3, ["gpt2-400", "gpt2-2000", "single-bytes", "llama3", "llama2"]))
def test_an_assistant_that_always_has_its_way_writes_what_it_writes_alone(draft: str) -> None:
    """It spells, so that it reads whatever it writes in the tokens that it wrote."""
    spelling = pieces(*"abcdefgh .,\nß中1", unknown="<end>")
    whole = 0
    for seed in range(4):
        assistant = random_over(spelling, seed=seed, eager_to_end=1.5, sharpness=2)
        for prompt in ("a", "bad cafe 1", "中 d"):
            decoder = CoSDDecoder(
                ascii_over(ZOO[draft](), seed=seed), assistant, verifier="assistant", **SETTINGS[seed % 5]
            )
            generation = decoder.generate(prompt, max_new_tokens=24)
            ids = alone(assistant, prompt, 72)
            own = "".join(assistant.tokenizer.convert_ids_to_tokens([each for each in ids if each]))
            if generation.finish_reason == "stop":
                assert generation.text == own
                whole += 1
            else:
                assert own.startswith(generation.text.rstrip("\N{REPLACEMENT CHARACTER}"))
    assert whole >= 3


# What does not matter


@pytest.fixture(
    scope="module",
    params=every(2, [("gpt2-400", "characters"), ("single-bytes", "llama2", "single-bytes")]),
    ids="/".join,
)
def together(request: pytest.FixtureRequest) -> list[LanguageModel]:
    draft, *others = (ZOO[name]() for name in request.param)
    return [
        ascii_over(draft, seed=70),
        *(random_over(each, seed=at, sharpness=2) for at, each in enumerate(others)),
    ]


KEEN = RuleVerifier(alpha=0.9, beta=0.1)
"""Replaces much."""


HOW: dict[str, dict[str, Any]] = {
    "greedy": {"max_new_tokens": 22},
    "sampled": {"max_new_tokens": 14, "temperature": 0.9, "top_p": 0.9, "seed": 4},
}


@pytest.mark.parametrize("how", HOW)
def test_a_text_does_not_depend_on_block_schedule_batch_or_event_loop(
    together: list[LanguageModel], how: str
) -> None:
    draft, *assistants = together
    options = HOW[how]
    first = CoSDDecoder(draft, assistants, verifier=KEEN, schedule="fixed", draft_length=4)
    texts = [first.generate(prompt, **options) for prompt in PROMPTS]
    assert sum(each.stats.replaced for each in texts) >= 10
    for schedule in ("fixed", "adaptive"):
        for length in (1, 2, 3, 8, 50):
            decoder = CoSDDecoder(draft, assistants, verifier=KEEN, schedule=schedule, draft_length=length)
            for ours, theirs in zip(decoder.generate(PROMPTS, **options), texts, strict=True):
                assert (ours.text, ours.token_ids) == (theirs.text, theirs.token_ids)
                assert [each.source for each in ours.tokens] == [each.source for each in theirs.tokens]

    async def at_once() -> list[Generation]:
        return list(await asyncio.gather(*(decoder.agenerate(prompt, **options) for prompt in PROMPTS)))

    joined = decode_joining(decoder, [(prompt, options) for prompt in PROMPTS], seed=3)
    for generations in (asyncio.run(at_once()), joined):
        assert [each.token_ids for each in generations] == [each.token_ids for each in texts]


@pytest.mark.parametrize("how", HOW)
def test_a_block_that_was_thrown_away_is_written_again(together: list[LanguageModel], how: str) -> None:
    """As an engine does with calls that shared a batch with one that failed; at any round, at any length."""
    draft, *assistants = together
    for length in (1, 4, 50):
        decoder = CoSDDecoder(draft, assistants, verifier=KEEN, draft_length=length)
        expected = [each.token_ids for each in decoder.generate(PROMPTS, **HOW[how])]
        random = Random(length)
        batch = decoder._open_batch([row for rows in decoder._groups(PROMPTS, HOW[how]) for row in rows])
        finished = {}
        thrown = 0
        while batch.rows:
            if thrown < 15 and random.random() < 0.3:  # at length 1 a long word takes many rounds in peace
                with torch.inference_mode():
                    batch._draft_blocks()
                for row in batch.rows:
                    before = len(row.input_ids)
                    row.discard_block()
                    thrown += len(row.input_ids) < before
            finished |= {step.index: step.generation for step in batch.round() if step.generation}
            batch.remove([row for row in batch.rows if row.is_finished])
        assert thrown >= 5
        assert [finished[at].token_ids for at in range(len(PROMPTS))] == expected
        for generation in finished.values():
            stats = generation.stats
            assert stats.drafted == stats.kept + stats.replaced + stats.discarded
