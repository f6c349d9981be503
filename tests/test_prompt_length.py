"""A prompt that cannot fit is refused by its length, before a tokenizer or anything else sees all of it."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cosd_core import Chat, ContextOverflowError, CoSDDecoder, InvalidPromptError, LanguageModel
from cosd_core.generation.requests import read_prompts
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.token_bound import token_bound
from cosd_core.models.vocabulary_alignment import align
from cosd_core.options import GenerationOptions
from tests.chats import chat_model, refused
from tests.models import random_model
from tests.tokenizers import CHANGING_TEXT, CORPUS, KEEPING_BYTES, ZOO, gpt2, llama2, wrapped

HI = [{"role": "user", "content": "Hi"}]
MEGABYTE = 1_000_000


def changed(made: PreTrainedTokenizerFast, **parts: Any) -> PreTrainedTokenizerFast:
    """A tokenizer with another normalizer or pre-tokenizer."""
    backend = Tokenizer.from_str(made.backend_tokenizer.to_str())
    for name, part in parts.items():
        setattr(backend, name, part)
    return wrapped(backend)


def stripping() -> PreTrainedTokenizerFast:
    """One of its tokens takes all white space around it, as Phi-3's do."""
    made = changed(gpt2(400))
    made.add_tokens([AddedToken("<|turn|>", rstrip=True, lstrip=True, normalized=False)])
    return made


def of_units(normalizer: Any) -> PreTrainedTokenizerFast:
    return changed(gpt2(400), normalizer=normalizer)


BOUNDED: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    **KEEPING_BYTES,
    "composed": lambda: of_units(normalizers.NFC()),
    "compatible": lambda: of_units(normalizers.NFKC()),
    "lower": lambda: of_units(normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])),
    "stripped": lambda: of_units(normalizers.Strip()),
    "words": lambda: changed(
        gpt2(400),
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
    ),
    "stripping": stripping,
}
UNBOUNDED: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    **CHANGING_TEXT,
    "deleting": lambda: of_units(normalizers.Replace("a", "")),
    "shortening": lambda: of_units(normalizers.Replace(Regex(" +"), " ")),
    "accents": lambda: of_units(normalizers.StripAccents()),
    "removing": lambda: changed(
        gpt2(400),
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex("[aeiou]"), "removed"), pre_tokenizers.ByteLevel()]
        ),
    ),
    "forgetting": lambda: wrapped(Tokenizer(models.BPE({"a": 0, "b": 1}, []))),
    "fusing": lambda: wrapped(Tokenizer(models.BPE({"?": 0, "a": 1}, [], unk_token="?", fuse_unk=True))),
}
PIECES = [
    *"aeZ3é \t\n\u00a0\u3000\u200b🦊中e\u0301\u0300가ᄀ\u1161\u11a8ﬁ",
    "    ",
    "the",
    "<|turn|>",
    "\u1f82",
    "¨",
]
texts = st.lists(st.sampled_from([*PIECES, *CORPUS]) | st.characters(codec="utf-8"), max_size=40).map("".join)


@pytest.mark.parametrize("name", BOUNDED)
@settings(max_examples=60, deadline=None)
@given(text=texts, copies=st.integers(1, 30))
def test_a_text_never_has_fewer_tokens_than_the_bound(name: str, text: str, copies: int) -> None:
    made = BOUNDED[name]()
    bound = token_bound(made)
    assert bound is not None
    text *= copies
    assert bound.fewest(text) <= len(made.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("name", UNBOUNDED)
def test_no_bound_where_one_token_may_stand_for_any_text(name: str) -> None:
    assert token_bound(UNBOUNDED[name]()) is None


def test_a_token_that_is_added_later_counts() -> None:
    made = changed(gpt2(400))
    before = token_bound(made)
    made.add_tokens([AddedToken("x" * 500)])
    after = token_bound(made)
    assert before is not None
    assert after is not None
    assert before.longest < after.longest == 500


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the texts that are encoded."""
    lengths: list[int] = []
    encode = BaseLanguageModel.encode

    def noted(self: Any, text: str, **options: Any) -> list[int]:
        lengths.append(len(text))
        return encode(self, text, **options)

    monkeypatch.setattr(BaseLanguageModel, "encode", noted)
    return lengths


def test_a_long_text_is_refused_before_it_is_encoded(draft, assistant, encoded) -> None:
    decoder = CoSDDecoder(draft, assistant)
    refused(
        lambda: decoder.generate("tell me " * MEGABYTE, max_new_tokens=6),
        ContextOverflowError,
        "8000000 characters", "250", "random-0", "truncation=True",
    )  # fmt: skip
    assert not encoded


def test_the_text_must_fit_every_model(draft) -> None:
    made = llama2()
    narrow = random_model(seed=3, vocabulary=len(made), max_position_embeddings=16).model
    decoder = CoSDDecoder(draft, LanguageModel(narrow, made, name="narrow"))
    refused(
        lambda: decoder.generate("a b c " * 40, max_new_tokens=6),
        ContextOverflowError, "240 characters", "narrow", "10 fit",
    )  # fmt: skip


def test_a_long_chat_is_refused_before_it_is_encoded(encoded, monkeypatch) -> None:
    decoder = CoSDDecoder(chat_model("chatml"), chat_model("chatml", seed=1))
    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", lambda *_, **__: pytest.fail("encoded"))
    chat = Chat([{"role": "user", "content": "tell me " * MEGABYTE}])
    refused(lambda: decoder.generate(chat), ContextOverflowError, "chatml 0", "4096", "80000")
    assert not encoded


def test_what_a_template_writes_is_bounded_too() -> None:
    decoder = CoSDDecoder(chat_model("chatml"), chat_model("chatml", seed=1))
    chat = Chat(HI, chat_template="{{ messages[0].content }}{{ 'x' * 3000000 }}")
    refused(lambda: decoder.generate(chat), ContextOverflowError, "chatml 0", "3000002 characters")


def test_the_length_of_token_ids_is_checked_first(draft, assistant) -> None:
    decoder = CoSDDecoder(draft, assistant)
    ids: list[Any] = [1] * MEGABYTE
    refused(lambda: decoder.generate([*ids, "a"]), ContextOverflowError, "1000001 tokens")
    refused(lambda: decoder.generate([1, "a"]), InvalidPromptError, "token ids")


@pytest.mark.parametrize("name", ZOO)
def test_cutting_a_text_before_or_after_it_is_encoded_is_the_same(name: str, encoded) -> None:
    made = ZOO[name]()
    model = LanguageModel(random_model(seed=3, vocabulary=len(made)).model, made)
    text = " ".join(random.Random(3).choices(CORPUS, k=3000))
    whole = model.encode(text)
    encoded.clear()
    options = GenerationOptions(max_new_tokens=1, truncation=True)
    [request] = read_prompts(text, options, [model, model], align([model, model]))
    assert list(request.ids) == whole[-255:]
    assert max(encoded) < len(text)
