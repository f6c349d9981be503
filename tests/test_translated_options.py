"""Claim: with different tokenizers too, options hold, nothing of a text is lost, what fails fails alone."""

import codecs
import re
from functools import cache
from itertools import product
from typing import Any

import pytest
import regex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LogitsProcessor, PreTrainedTokenizer

from cosd_core import (
    Chat,
    CoSDDecoder,
    Generation,
    Grammar,
    InvalidPromptError,
    LanguageModel,
    LogitsProcessorError,
    RuleVerifier,
    Turn,
    VocabularyMismatchError,
    explain,
)
from cosd_core.chat.events import ParsedAnswer
from cosd_core.cross_tokenizer.row import CrossTokenizerRow
from cosd_core.cross_tokenizer.vocabulary import vocabulary_of
from tests.chats import TEMPLATES, chat_model
from tests.grids import covering
from tests.test_merging import Fails, join_one_by_one
from tests.test_translated import ascii_over, random_over
from tests.tokenizers import KEEPING_BYTES, ZOO, gpt2, llama2
from tests.translated_reference import assert_agrees, write

KEEN = RuleVerifier(alpha=0.9, beta=0.1)
"""Replaces much."""


@cache
def pair(
    draft: str = "gpt2-400", assistant: str = "gpt2-2000", *, seed: int = 0, **parts: Any
) -> CoSDDecoder:
    models = ascii_over(ZOO[draft](), seed=seed), ascii_over(ZOO[assistant](), seed=seed + 40)
    return CoSDDecoder(*models, **{"verifier": KEEN, **parts})


# Nothing is lost

prompts = st.lists(
    st.sampled_from([
        "The capital of France", "Столица", "東京は", "🦊👩\u200d👧", "e\u0301", "def f(x):\n    return x\n",
        "   \n\n\t", "1,234.5",
        "العربية", "हिन्दी", "</s>", "<|endoftext|>", "\u00a0", "ﬁ", "a", "\r\n",
    ]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    min_size=1, max_size=4,
).map("".join).filter(bool)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    names=st.tuples(st.sampled_from(sorted(ZOO)), st.sampled_from(sorted(ZOO))).filter(
        lambda each: each[0] != each[1]
    ),
    seed=st.integers(0, 3),
    prompt=prompts,
    length=st.integers(1, 16),
    draft_length=st.sampled_from([1, 4, 30]),
    stop=st.sampled_from([(), ("a",), (" ", "。"), ("the", "e\n")]),
    heat=st.sampled_from([0.0, 1.0]),
)
def test_texts_tokens_chunks_and_counts_add_up(
    names: tuple[str, str],
    seed: int,
    prompt: str,
    length: int,
    draft_length: int,
    stop: tuple[str, ...],
    heat: float,
) -> None:
    draft, assistant = (
        random_over(ZOO[name](), seed=seed + 9 * at, sharpness=2, ends=(5, 9))
        for at, name in enumerate(names)
    )
    if not draft.encode(prompt) or not assistant.encode(prompt):
        return  # a tokenizer that drops all of it leaves nothing to begin with
    decoder = CoSDDecoder(draft, assistant, verifier=KEEN, draft_length=draft_length)
    chunks = list(decoder.stream(prompt, max_new_tokens=length, stop=stop, temperature=heat, seed=seed))
    generation = chunks[-1].generation
    assert generation is not None
    assert "".join(chunk.text for chunk in chunks) == generation.text
    assert tuple(token for chunk in chunks for token in chunk.tokens) == generation.tokens
    whole = "".join(token.text for token in generation.tokens)
    assert whole.startswith(generation.text)
    assert len(generation.tokens) <= length
    assert not any(each in generation.text for each in stop)
    assert (generation.stop_sequence is not None) == (
        whole != generation.text or any(each in whole for each in stop)
    )
    check_counts(generation)
    is_end = generation.token_ids[-1] in draft.eos_token_ids
    if generation.finish_reason == "length":
        assert len(generation.tokens) == length
        assert not is_end
    else:
        assert is_end or generation.stop_sequence
    assert not set(generation.token_ids[:-1]) & draft.eos_token_ids
    if names[0] in KEEPING_BYTES:
        known = vocabulary_of(draft.tokenizer, draft.vocabulary_size)
        said = b"".join(map(known.bytes_of, generation.token_ids))
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        assert whole == decode(said, final=generation.stop_sequence is None)


def check_counts(generation: Generation) -> None:
    stats = generation.stats
    assert stats.tokens == len(generation.tokens) == len(generation.token_ids)
    assert stats.drafted == stats.kept + stats.replaced + stats.discarded
    assert min(stats.kept, stats.replaced, stats.discarded, stats.assistant_skipped) >= 0
    assert stats.draft_passes >= stats.kept + stats.replaced


# Options


PATTERNS = [
    "[a-z]{2,9}( [0-9]{1,4}){1,3}",
    "(no|yes)(, (no|yes))*",
    "[äöüß ]{1,30}",
    "[a-c]{70,90}",
    "(敏捷|的){3,9}。x?",
]


@pytest.mark.parametrize(
    "names",
    [("gpt2-400", "gpt2-2000"), ("llama3", "single-bytes"), ("single-bytes", "gpt2-400")],
    ids="/".join,
)
def test_a_grammar_holds_in_every_models_tokens(names: tuple[str, str]) -> None:
    """Cut texts, in the middle of a character too, begin a text of the grammar."""
    replaced = whole = 0
    for seed, pattern in enumerate(PATTERNS):
        for length, heat in ((7, 0.0), (24, 1.0), (90, 1.0)):
            decoder = pair(*names, seed=seed, draft_length=[1, 8, 30][seed % 3])
            generation = decoder.generate(
                "Say", grammar=Grammar.regex(pattern), max_new_tokens=length, temperature=heat, seed=seed
            )
            text = generation.text.rstrip("\N{REPLACEMENT CHARACTER}")
            if generation.finish_reason == "stop":
                assert re.fullmatch(pattern, generation.text)
                whole += 1
            else:
                assert regex.fullmatch(pattern, text, partial=True)
            replaced += generation.stats.replaced
    assert replaced > 5
    assert whole > 5


def test_json_of_a_schema_is_whole_json_of_it() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 8},
            "n": {"type": "integer", "maximum": 999, "minimum": 0},
        },
        "required": ["city", "n"],
    }
    grammar = Grammar.json_schema(schema)
    texts = [
        pair(seed=seed).generate("Q", grammar=grammar, max_new_tokens=80, temperature=1.0, seed=seed)
        for seed in range(4)
    ]
    assert sum(each.finish_reason == "stop" for each in texts) >= 2
    assert sum(each.stats.replaced for each in texts) >= 3
    for each in texts:
        if each.finish_reason == "stop":
            assert re.fullmatch(
                r'\{\s*"city"\s*:\s*"[\s\S]{0,48}"\s*,\s*"n"\s*:\s*\d{1,3}\s*\}\s*', each.text
            )


def test_ends_that_are_named_are_the_draft_s_and_found_by_name_in_the_others() -> None:
    draft, assistant = ascii_over(ZOO["gpt2-400"](), seed=1), ascii_over(ZOO["gpt2-2000"](), seed=2)
    decoder = CoSDDecoder(draft, assistant, verifier=KEEN, draft_length=4)
    ends = ["e", "a", "Ġ", "t"]
    theirs = [model.tokenizer.convert_tokens_to_ids(ends) for model in (draft, assistant)]
    texts = [
        decoder.generate(prompt, max_new_tokens=20, eos_token_id=theirs[0])
        for prompt in ("x", "The", "1 + 1")
    ]
    for prompt, generation in zip(("x", "The", "1 + 1"), texts, strict=True):
        assert_agrees(
            generation,
            write(draft, [assistant], KEEN.replaces, prompt, eos_token_id=theirs, max_new_tokens=20),
        )
    assert any(each.token_ids[-1] in theirs[0] for each in texts)
    beyond = decoder.generate("x", max_new_tokens=20, eos_token_id=[*theirs[0], 2**32, 10**30])
    assert beyond.token_ids == texts[0].token_ids, "ids that no model has end nothing"


def test_an_end_that_is_an_ordinary_token_is_told_of_when_it_is_replaced() -> None:
    decoder = pair("single-bytes", "gpt2-400", verifier="assistant")
    alone = CoSDDecoder(decoder.draft, decoder.draft).generate("Say", max_new_tokens=1, eos_token_id=[])
    first = alone.token_ids[0]
    generation = decoder.generate("Say", max_new_tokens=9, eos_token_id=[first])
    assert generation.tokens[0].source == "assistant"
    assert generation.tokens[0].draft_id == first
    assert generation.tokens[0].other_text == decoder.draft.decode([first])
    assert explain.to_text(generation).plain.startswith(generation.text[:2])


def test_without_any_end_a_text_has_its_full_length() -> None:
    generation = pair("single-bytes").generate("x", max_new_tokens=40, eos_token_id=[])
    assert (generation.finish_reason, len(generation.tokens)) == ("length", 40)


def test_a_prompt_of_ids_is_the_text_that_they_stand_for() -> None:
    decoder = pair("single-bytes", "llama2")
    text = "The capital of 你"
    ids = decoder.draft.encode(text)
    assert (
        decoder.generate(list(ids), max_new_tokens=24).token_ids
        == decoder.generate(text, max_new_tokens=24).token_ids
    )


def test_a_prompt_of_special_tokens_alone_is_refused_by_the_model_that_sees_nothing() -> None:
    decoder = pair("single-bytes", "llama2")
    only = [decoder.draft.tokenizer.eos_token_id]
    with pytest.raises(InvalidPromptError, match=f"is empty for model '{decoder.assistants[0].name}'"):
        decoder.generate(only, add_special_tokens=False)


class NoLetterE(LogitsProcessor):
    """Bars tokens of two vocabularies, by the size of the scores; a pure function."""

    stateless = True

    def __init__(self, *barred: tuple[int, list[int]]) -> None:
        self._barred = dict(barred)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = scores.clone()
        scores[:, self._barred[scores.shape[-1]]] = -float("inf")
        return scores


def test_a_logits_processor_sees_every_models_own_ids() -> None:
    decoder = pair("gpt2-400", "gpt2-2000")
    barred = []
    for model in decoder.models:
        known = vocabulary_of(model.tokenizer, model.vocabulary_size)
        barred.append((known.size, [at for at in range(known.size) if b"e" in known.bytes_of(at)]))
    free = [decoder.generate(prompt, max_new_tokens=40).text for prompt in ("x", "The", "a", "b")]
    held = [
        decoder.generate(prompt, max_new_tokens=40, logits_processor=[NoLetterE(*barred)])
        for prompt in ("x", "The", "a", "b")
    ]
    assert any("e" in text for text in free)
    assert not any("e" in each.text for each in held)
    assert sum(each.stats.replaced for each in held) >= 1


# Windows


@cache
def spelling(kind: str, window: int) -> LanguageModel:
    """An assistant that reads single bytes, so many at most; learned positions have a last one."""
    tokenizer = ZOO["single-bytes"]()
    if kind == "rotary":
        return random_over(tokenizer, seed=6, max_position_embeddings=window)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=window, n_embd=16, n_layer=2, n_head=2, initializer_range=0.6,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return LanguageModel(GPT2LMHeadModel(config).double(), tokenizer, name=f"learned-{window}")


@pytest.mark.parametrize(
    ("verifier", "kind"), covering(product(["rule", "assistant", KEEN], ["rotary", "learned"])), ids=str
)
def test_a_text_ends_before_the_word_that_no_window_takes_and_must_be_judged(
    kind: str, verifier: Any
) -> None:
    """The draft writes words and the assistant spells them; where the text ends does not depend on blocks."""
    prompts = ["The capital " * 2, "The capital of all"]
    early = 0
    for seed in range(2):
        draft, assistant = ascii_over(gpt2(400), seed=seed), spelling(kind, 48)
        texts = set()
        for schedule in ("fixed", "adaptive"):
            for length in (1, 3, 50):
                decoder = CoSDDecoder(
                    draft, assistant, verifier=verifier, draft_length=length, schedule=schedule
                )
                generations = decoder.generate(prompts, max_new_tokens=23, eos_token_id=[])
                texts.add(tuple(each.text for each in generations))
                for each in generations:
                    assert each.finish_reason == "length"
                    check_counts(each)
                    early += len(each.tokens) < 23
        assert len(texts) == 1
    assert early > 0


# Chats


def test_every_model_is_shown_a_chat_by_its_own_template_in_its_own_tokens() -> None:
    draft = chat_model("chatml")
    tokenizer = llama2().__class__(
        tokenizer_object=llama2().backend_tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATES["strict"]
    assistant = LanguageModel(
        random_over(llama2(), seed=3, max_position_embeddings=4096).model, tokenizer, name="strict"
    )
    chat = Chat([{"role": "user", "content": "What is the capital of France?"}])
    seen: list[list[int]] = []
    handle = assistant.model.register_forward_pre_hook(
        lambda _model, _arguments, named: seen.append(named["input_ids"][0].tolist()), with_kwargs=True
    )
    try:
        generation = CoSDDecoder(draft, assistant, schedule="fixed").generate(chat, max_new_tokens=12)
    finally:
        handle.remove()
    shown = tokenizer.apply_chat_template(chat.messages, tokenize=False, add_generation_prompt=True)
    assert seen[0][: len(tokenizer.encode(shown, add_special_tokens=False))] == tokenizer.encode(
        shown, add_special_tokens=False
    )
    assert generation.stats.assistant_passes > 0
    assert "".join(token.text for token in generation.tokens) == generation.text


SWITCH = {
    "type": "function",
    "function": {
        "name": "switch",
        "parameters": {"type": "object", "properties": {"to": {"enum": ["on", "off"]}}, "required": ["to"]},
    },
}


class CallsOften(LogitsProcessor):
    """Makes the tag that begins a call likely in one model's tokens."""

    stateless = True

    def __init__(self, model: LanguageModel) -> None:
        self._size = model.vocabulary_size
        self._tag = model.tokenizer.convert_tokens_to_ids("<tool_call>")

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        favoured = scores.clone()
        if scores.shape[1] == self._size and scores[0, self._tag].isfinite():  # and no grammar bars it
            favoured[:, self._tag] = scores.max() + 2
        return favoured


@pytest.mark.parametrize(
    ("turned", "name", "template"),
    covering(
        product([False, True], ["gpt2-400", "llama2", "unigram-bytes", "single-bytes"], ["hermes", "mistral"])
    ),
)
def test_a_call_that_must_be_made_is_made_though_only_one_tokenizer_has_its_tags(
    template: str, name: str, turned: bool
) -> None:
    models = [chat_model(template), random_over(ZOO[name](), seed=5, max_position_embeddings=4096)]
    chat = Chat([{"role": "user", "content": "Light, please"}], [SWITCH])
    draft, assistant = reversed(models) if turned else models
    for seed, (choice, verifier) in enumerate(product(("any", "switch"), ("rule", "draft", "assistant"))):
        decoder = CoSDDecoder(draft, assistant, verifier=verifier, draft_length=[3, 30][seed % 2])
        turn = Turn(chat, decoder.models, tool_choice=choice)
        generation = decoder.generate(
            turn.prompt, grammar=turn.grammar, max_new_tokens=120, temperature=1.0, seed=seed
        )
        assert generation.finish_reason == "stop"
        [call] = ParsedAnswer.of(turn.read(generation)).calls
        assert call.name == "switch"
        assert call.arguments["to"] in ("on", "off")


@pytest.mark.parametrize("turned", [False, True], ids=["tags are the draft's", "tags are the assistant's"])
def test_free_text_has_no_call_but_a_right_one_though_only_one_tokenizer_has_its_tags(turned: bool) -> None:
    models = [chat_model("hermes"), random_over(ZOO["gpt2-400"](), seed=5, max_position_embeddings=4096)]
    chat = Chat([{"role": "user", "content": "Light, please"}], [SWITCH])
    draft, assistant = reversed(models) if turned else models
    # What a processor makes likely has no confidence, so a rule would let nothing of it stand.
    decoder = CoSDDecoder(draft, assistant, verifier="rule" if turned else "draft")
    calls = replaced = 0
    for seed in range(12):
        turn = Turn(chat, decoder.models)
        generation = decoder.generate(
            turn.prompt,
            grammar=turn.grammar,
            max_new_tokens=90,
            temperature=1.0,
            seed=seed,
            logits_processor=[CallsOften(models[0])],
        )
        answer = ParsedAnswer.of(turn.read(generation))
        assert all(call.name == "switch" and call.arguments["to"] in ("on", "off") for call in answer.calls)
        assert not answer.invalid_calls or generation.finish_reason == "length"
        calls += len(answer.calls)
        replaced += generation.stats.replaced
    assert calls > 3
    assert (replaced > 3) == turned


def test_the_same_tags_in_all_tokenizers_are_matched_as_tokens() -> None:
    chat = Chat([{"role": "user", "content": "Light, please"}], [SWITCH])
    shared = Turn(chat, [chat_model("hermes"), chat_model("chatml")]).grammar
    mixed = Turn(chat, [chat_model("hermes"), random_over(gpt2(400), seed=5)]).grammar
    assert shared is not None
    assert mixed is not None
    assert not shared.spelt
    assert mixed.spelt == {"<tool_call>", "</tool_call>"}


# Failures


@pytest.mark.parametrize("heat", [0.0, 1.0])
async def test_a_failing_call_fails_alone(heat: float, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = pair("single-bytes", "gpt2-400", draft_length=6)
    options: dict[str, Any] = {"max_new_tokens": 30, "eos_token_id": [], "temperature": heat, "seed": 3}
    asked = [f"prompt {number}" for number in range(6)]
    alone = [decoder.generate(prompt, **options) for prompt in asked]
    thrown: list[int] = []
    discard = CrossTokenizerRow.discard_block

    def counted(row: CrossTokenizerRow) -> None:
        before = len(row.input_ids)
        discard(row)
        thrown.append(before - len(row.input_ids))

    monkeypatch.setattr(CrossTokenizerRow, "discard_block", counted)
    calls = [(prompt, dict(options)) for prompt in asked]
    bad = (1, 4)
    for at in bad:
        calls[at][1]["logits_processor"] = [Fails(len(decoder.draft.encode(asked[at])) + 12 + at)]
    results = await join_one_by_one(decoder, calls)
    assert any(thrown), "blocks under way were thrown away"
    for at, result in enumerate(results):
        if at in bad:
            assert isinstance(result, LogitsProcessorError)
        else:
            [generation] = result
            assert generation.token_ids == alone[at].token_ids
            assert generation.text == alone[at].text
            check_counts(generation)


# Refusals


@pytest.mark.parametrize("verifier", ["average", "speculative"])
def test_what_mixes_distributions_needs_one_vocabulary(verifier: str) -> None:
    with pytest.raises(VocabularyMismatchError) as caught:
        pair(verifier=verifier)
    for part in (verifier, "one tokenizer", "random-"):
        assert part in str(caught.value)


class Lowered(PreTrainedTokenizer):
    """Written in Python, without offsets: lower case letters, one token each."""

    def __init__(self) -> None:
        self._letters = "<end>", "<unk>", *"abcdefghijklmnopqrstuvwxyz'() \n0123456789"
        super().__init__(eos_token="<end>", unk_token="<unk>")

    @property
    def vocab_size(self) -> int:
        return len(self._letters)

    def get_vocab(self) -> dict[str, int]:
        return {letter: at for at, letter in enumerate(self._letters)}

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return list(text.lower())

    def _convert_token_to_id(self, token: str) -> int:
        return self.get_vocab().get(token, 1)

    def _convert_id_to_token(self, index: int) -> str:
        return self._letters[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)


def test_a_tokenizer_that_changes_text_and_says_not_where_is_refused() -> None:
    changing = random_over(Lowered(), seed=0)
    keeping = ascii_over(gpt2(400), seed=0)
    for models in ((changing, keeping), (keeping, changing)):
        with pytest.raises(VocabularyMismatchError, match="changes text and gives no offsets"):
            CoSDDecoder(*models)
