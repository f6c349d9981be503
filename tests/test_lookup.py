"""Guesses that are copied from prompt and text save passes of the draft, and change no text."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import CoSDDecoder, Grammar, InvalidOptionError, LanguageModel
from cosd_core.generation.lookup import Copied, GuessWidth
from tests.models import ascii_model, random_model, table_model, word_tokenizer
from tests.tokenizers import gpt2

WORDS = word_tokenizer("<eos>", *(f"w{number}" for number in range(8)))


def cycle(name: str) -> Any:
    """A model that writes w1 w2 ... w7 w1 ... for ever."""
    table = {f"w{at}": {f"w{at % 7 + 1}": 0.9, "<eos>": 0.1} for at in range(8)}
    return table_model(WORDS, table, name=name)


def test_what_is_copied_takes_a_pass_for_several_tokens() -> None:
    models = cycle("draft"), cycle("assistant")
    decoder = CoSDDecoder(*models, lookup=True, deterministic=True, draft_length=16)
    generation = decoder.generate("w1 w2 w3 w4 w5 w6 w7 w1 w2", max_new_tokens=36)
    assert generation.text.split()[:6] == ["w3", "w4", "w5", "w6", "w7", "w1"]
    assert len(generation.tokens) == 36
    assert generation.stats.draft_passes == 5  # at most nine tokens each: a guess and the one behind it


def with_other_tokens() -> LanguageModel:
    tokenizer = gpt2(300)
    return LanguageModel(
        random_model(seed=2, vocabulary=len(tokenizer)).model, tokenizer, name="other tokens"
    )


ASSISTANTS = {"one vocabulary": ascii_model(seed=2), "two": with_other_tokens()}
GRAMMAR = Grammar.regex("(ab|abc|c)* ?(x|yz){3}")


@pytest.mark.parametrize("assistant", ASSISTANTS)
@settings(deadline=None, max_examples=8)
@given(
    prompt=st.text(alphabet="abc ", min_size=1, max_size=40).filter(str.strip),
    temperature=st.sampled_from([0.0, 0.7]),
    verifier=st.sampled_from(["rule", "draft", "assistant"]),
    schedule=st.sampled_from(["adaptive", "fixed"]),
    options=st.sampled_from([{}, {"stop": ["a", "b "]}, {"grammar": GRAMMAR}]),
)
def test_the_text_is_the_same(
    assistant: str, prompt: str, temperature: float, verifier: str, schedule: str, options: dict[str, Any]
) -> None:
    models = ascii_model(seed=1), ASSISTANTS[assistant]
    texts = [
        CoSDDecoder(*models, verifier=verifier, schedule=schedule, lookup=lookup).generate(
            [prompt, prompt[::-1]], max_new_tokens=24, temperature=temperature, seed=3, **options
        )
        for lookup in (True, False)
    ]
    assert [each.token_ids for each in texts[0]] == [each.token_ids for each in texts[1]]


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 3), max_size=60), split=st.integers(0, 60), width=st.integers(1, 8))
def test_a_guess_follows_the_longest_end_that_stands_elsewhere(
    ids: list[int], split: int, width: int
) -> None:
    committed = min(split, len(ids))
    copied = Copied()
    copied.guess(ids, committed // 2, width)  # the text grows
    guess = copied.guess(ids, committed, width)
    for length in range(5, 1, -1):
        if length > len(ids):
            continue
        places = [at for at in range(length, committed) if ids[at - length : at] == ids[len(ids) - length :]]
        if places:
            assert guess == ids[places[-1] : min(places[-1] + width, committed)]
            return
    assert guess == []


def test_the_width_that_writes_most_per_second_is_used_most() -> None:
    cases = ({0: 1, 2: 3, 4: 5, 8: 9}, 8), ({0: 1, 2: 1, 4: 1, 8: 1}, 0), ({0: 1, 2: 3, 4: 3, 8: 3}, 2)
    for tokens, best in cases:
        width, used = GuessWidth(measured=True), []
        for _ in range(400):
            used.append(width.value)
            width.add(tokens[width.value], 1 + 0.05 * width.value)
        assert used.count(best) > 360


def test_only_flags_are_taken() -> None:
    with pytest.raises(InvalidOptionError, match="lookup='yes' should be True or False"):
        CoSDDecoder(cycle("draft"), cycle("assistant"), lookup="yes")  # type: ignore[arg-type]
