"""Claim: SmolLM2 writes, by transformers and by llama.cpp, what passes without a cache give."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cosd_core import CoSDDecoder, GGUFModel, Grammar, LanguageModel, RuleVerifier
from cosd_core.cli.app import app
from cosd_core.demo import load_pair
from tests import translated_reference
from tests.real.agreement import assert_equal_texts
from tests.reference import assert_agrees, write

pytestmark = pytest.mark.real

PROMPTS = ["The capital of France is", "def add(left, right):\n    return", "Zwölf Boxkämpfer jagen"]
CHARACTERS = "(🦊|é|你好|👩‍🚀|ß|Ω){10}"
"""Most of them are several tokens of SmolLM2, and one is three code points."""


def test_greedy_texts_are_those_of_an_uncached_loop(decoder: CoSDDecoder) -> None:
    draft, other = decoder.models
    replaced = 0
    for prompt in PROMPTS:
        written = write(draft, [other], RuleVerifier(), prompt, max_new_tokens=12)
        generation = decoder.generate(prompt, max_new_tokens=12)
        replaced += written.replaced
        if isinstance(draft, GGUFModel):
            assert_equal_texts(generation, written)
        else:
            assert_agrees(generation, written, asked=False, tolerance=1e-3)
    assert replaced, "the models should disagree somewhere"


def test_a_batch_gives_the_texts_of_single_calls_and_a_stream_the_same(decoder: CoSDDecoder) -> None:
    single = [decoder.generate(prompt, max_new_tokens=12) for prompt in PROMPTS]
    batch = decoder.generate(PROMPTS, max_new_tokens=12)
    streamed = ["".join(chunk.text for chunk in decoder.stream(each, max_new_tokens=12)) for each in PROMPTS]
    assert streamed == [each.text for each in single]
    if isinstance(decoder.models[0], GGUFModel):  # the shapes of passes round otherwise
        assert sum(one.text == two.text for one, two in zip(single, batch, strict=True)) >= 2
    else:
        assert [each.token_ids for each in batch] == [each.token_ids for each in single]


def test_chunks_hold_whole_characters(decoder: CoSDDecoder) -> None:
    grammar = Grammar.regex(CHARACTERS)
    chunks = [each.text for each in decoder.stream("Symbols:", grammar=grammar, max_new_tokens=80)]
    assert len(chunks) > 3
    assert re.fullmatch(CHARACTERS, "".join(chunks))
    assert not any("\ufffd" in chunk for chunk in chunks)


def test_a_stop_string_ends_the_text_before_it(decoder: CoSDDecoder) -> None:
    whole = decoder.generate(PROMPTS[0], max_new_tokens=16).text
    stop = whole[9:12]  # begins and ends within tokens
    generation = decoder.generate(PROMPTS[0], max_new_tokens=16, stop=[stop, "never written"])
    assert generation.text == whole[: whole.index(stop)]
    assert (generation.finish_reason, generation.stop_sequence) == ("stop", stop)
    chunks = decoder.stream(PROMPTS[0], max_new_tokens=16, stop=[stop])
    assert "".join(chunk.text for chunk in chunks) == generation.text


@pytest.mark.parametrize("smol_drafts", [True, False])
def test_a_model_with_other_tokens_takes_part(decoder: CoSDDecoder, smol_drafts: bool) -> None:
    """The bundled facts model, whose tokens are bytes."""
    facts, _ = load_pair()
    smol = decoder.models[0]
    pair = (smol, facts) if smol_drafts else (facts, smol)
    mixed = CoSDDecoder(*pair)
    assert not mixed.shares_vocabulary
    for prompt in ("Q: atomic number of iron? A:", "Ångström, 你好 🦊:"):
        generation = mixed.generate(prompt, max_new_tokens=10)
        if isinstance(smol, GGUFModel):  # rounding decides where confidences are near their limits
            assert "".join(token.text for token in generation.tokens) == generation.text
            assert "\ufffd" not in generation.text[:-1]
            continue
        expected = translated_reference.write(
            pair[0], [pair[1]], lambda p, q: p < 0.5 and q > 0.5 * p, prompt, max_new_tokens=10
        )
        assert generation.text == expected.text


def test_the_command_writes_the_same(folder: Path, smol: LanguageModel) -> None:
    options = ["--max-new-tokens", "8", "--dtype", "float32", "--device", "cpu", "--no-chat"]
    models = ["--draft", str(folder), "--assistant", str(folder)]
    result = CliRunner().invoke(app, ["generate", *models, *options, PROMPTS[0]])
    assert result.exit_code == 0, result.output
    assert CoSDDecoder(smol, smol).generate(PROMPTS[0], max_new_tokens=8).text in result.output
