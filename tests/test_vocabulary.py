"""Every tokenizer's tokens are known by their bytes, and a text goes on in them without losing any."""

import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerBase

from cosd_core.cross_tokenizer.vocabulary import Vocabulary, vocabulary_of
from cosd_core.errors import VocabularyMismatchError
from tests.tokenizers import (
    CORPUS,
    KEEPING_BYTES,
    ZOO,
    byte_tokenizer,
    characters,
    gpt2,
    llama2,
    llama3,
    unigram,
    wordpiece,
    wrapped,
)

MARKER = "▁"
"""Stands for a space in SentencePiece's tokens, and cannot be told from one in their texts."""

odd = st.sampled_from([
    " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\u0301", "e\u0301", "é", "ﬁ", "\u200d",
    "👩\u200d👩\u200d👧", "🇫🇷", "a", "ing", "Paris", " Paris", "1", "42", ".", "'s", "<", ">", "</s>", "<s>",
    "<unk>", "[UNK]", "<0x0A>", "<|endoftext|>", "<|eos|>", "\x00", "İ", "ß", "中", "日本", "ह", "ि", "א",
    "\ufffd",
])  # fmt: skip
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=MARKER), max_size=8)
pieces_of_corpus = st.tuples(st.sampled_from(CORPUS), st.integers(0, 60), st.integers(1, 40)).map(
    lambda cut: cut[0][cut[1] : cut[1] + cut[2]]
)
texts = st.lists(st.one_of(odd, anything, pieces_of_corpus), max_size=5).map("".join)
# Without "<": the library's Unigram takes a text "<0x00>" for the byte of that name, and we do not.
words = st.text(st.sampled_from(sorted({*"".join(CORPUS)} - {*" \n\t\u00a0<"})), min_size=1, max_size=8)
often = settings(max_examples=100, deadline=None)


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    return vocabulary_of(tokenizer, len(tokenizer))


def pieces(tokenizer: PreTrainedTokenizerBase, text: str, **options: Any) -> list[bytes]:
    known = vocabulary(tokenizer)
    return [known.bytes_of(token) for token in known.encode(text, **options)[0]]


@pytest.mark.parametrize("name", KEEPING_BYTES)
@often
@given(text=texts)
def test_the_bytes_of_the_tokens_are_those_of_the_text(name: str, text: str) -> None:
    known = vocabulary(KEEPING_BYTES[name]())
    ids, ends = known.encode(text)
    assert b"".join(map(known.bytes_of, ids)) == text.encode()
    assert list(ends) == [len(b"".join(map(known.bytes_of, ids[:count]))) for count in range(1, len(ids) + 1)]


@pytest.mark.parametrize("name", ZOO)
@often
@given(text=texts | st.just(MARKER * 3), specials=st.booleans())
def test_ends_never_decrease_and_the_last_is_that_of_the_text(name: str, text: str, specials: bool) -> None:
    ids, ends = vocabulary(ZOO[name]()).encode(text, specials=specials)
    assert len(ids) == len(ends)
    assert list(ends) == sorted(ends)
    assert not ends or (ends[0] >= 0 and ends[-1] == len(text.encode()))


@pytest.mark.parametrize("name", ZOO)
@often
@given(before=st.lists(words, min_size=1, max_size=4).map(" ".join), word=words)
def test_a_word_after_a_space_is_written_as_in_the_whole_text(name: str, before: str, word: str) -> None:
    tokenizer = ZOO[name]()
    ids, _ = vocabulary(tokenizer).encode(f" {word}")
    whole = tokenizer.encode(f"{before} {word}", add_special_tokens=False, split_special_tokens=True)
    assert whole[len(whole) - len(ids) :] == list(ids)


@pytest.mark.parametrize("name", [name for name in ZOO if not name.startswith("unigram")])
@often
@given(before=st.lists(words, max_size=3).map(" ".join), lines=st.integers(1, 3), line=words)
def test_a_line_is_written_as_in_the_whole_text(name: str, before: str, lines: int, line: str) -> None:
    # Unigram has pieces that begin with a newline and go on, and the one of T5 reads a newline as a space.
    tokenizer = ZOO[name]()
    ids, _ = vocabulary(tokenizer).encode(line)
    text = before + "\n" * lines + line
    whole = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert whole[len(whole) - len(ids) :] == list(ids)


@pytest.mark.parametrize(
    ("build", "text", "written"),
    [
        (lambda: gpt2(2000), " is  the capital\n", [b" is", b" ", b" the", b" capital", b"\n"]),
        (lambda: gpt2(400, space=True), "is", [b"is"]),
        (llama3, "42\n\n", [b"4", b"2", b"\n\n"]),
        (llama2, " is\n", [b" is", b"\n"]),
        (llama2, "is", [b"is"]),
        (llama2, "Ä", [b"\xc3", b"\x84"]),
        (lambda: unigram(byte_fallback=True), "Ä", [b"\xc3", b"\x84"]),
        (lambda: unigram(byte_fallback=False), " is  is ", [b" is", b" is"]),
        (wordpiece, " The  CAPITALS, it", [b" the", b" capital", b"s", b",", b" it"]),
        (characters, " aÄ", [b" ", b"a", b""]),
        (byte_tokenizer, " ä", [b" ", b"\xc3", b"\xa4"]),
    ],
)
def test_tokens_are_what_they_add_to_a_text(build: Callable, text: str, written: list[bytes]) -> None:
    assert pieces(build(), text) == written


def test_what_a_tokenizer_drops_counts_to_the_next_token_and_at_the_end_to_the_last() -> None:
    assert vocabulary(wordpiece()).encode("  The\n\tCAPITAL  ")[1] == (5, 16)
    assert vocabulary(unigram(byte_fallback=False)).encode(" is   is\n")[1] == (3, 9)
    assert vocabulary(characters()).encode("Äa")[1] == (2, 3)
    assert vocabulary(wordpiece()).encode(" \n ") == ((), ())


@pytest.mark.parametrize("name", ZOO)
def test_only_special_and_unknown_tokens_are_silent(name: str) -> None:
    tokenizer = ZOO[name]()
    known = vocabulary(tokenizer)
    assert known.without_text == set(tokenizer.all_special_ids)
    assert {known.bytes_of(token) for token in (*known.without_text, -1, len(tokenizer), 10**9)} == {b""}
    assert known.size == len(tokenizer)
    assert known.name(tokenizer.eos_token_id) == tokenizer.eos_token
    assert known.name(known.encode("the")[0][0]) == ""


@pytest.mark.parametrize("name", ZOO)
def test_names_of_special_tokens_are_text_unless_they_are_asked_for(name: str) -> None:
    tokenizer = ZOO[name]()
    text = f"the {tokenizer.eos_token}{tokenizer.eos_token} the"
    named, ends = vocabulary(tokenizer).encode(text, specials=True)
    assert named.count(tokenizer.eos_token_id) == 2
    assert ends[-1] == len(text)
    split, ends = vocabulary(tokenizer).encode(text)
    assert tokenizer.eos_token_id not in split
    assert ends[-1] == len(text)


def test_names_of_bytes_are_text() -> None:
    for tokenizer in (llama2(), unigram(byte_fallback=True)):
        assert b"".join(pieces(tokenizer, "<0x0A>" * 2000)) == b"<0x0A>" * 2000


def test_added_tokens_are_text_and_pieces_that_are_added_again_keep_their_markers() -> None:
    added = ["<tool>é", "Ġ\n", "Ġquark", "Ġis"]
    tokenizer = wrapped(Tokenizer.from_str(gpt2(400).backend_tokenizer.to_str()))
    tokenizer.add_tokens(added)
    said = [vocabulary(tokenizer).bytes_of(tokenizer.convert_tokens_to_ids(token)) for token in added]
    assert said == ["<tool>é".encode(), "Ġ\n".encode(), "Ġquark".encode(), b" is"]
    assert pieces(tokenizer, "a<tool>éĠ\n") == [b"a", *said[:2]]
    tokenizer = wrapped(Tokenizer.from_str(llama2().backend_tokenizer.to_str()))
    tokenizer.add_tokens([AddedToken("▁is", normalized=False), AddedToken("<tool>é", normalized=False)])
    said = [
        vocabulary(tokenizer).bytes_of(tokenizer.convert_tokens_to_ids(each)) for each in ("▁is", "<tool>é")
    ]
    assert said == [b" is", "<tool>é".encode()]


def test_a_character_outside_the_byte_map_stands_for_itself() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "中": 1, "Ġ": 2, "é中": 3}, unk_token="a"))
    tokenizer.decoder = decoders.ByteLevel()
    known = Vocabulary(wrapped(tokenizer), 4)
    assert [known.bytes_of(token) for token in range(4)] == [b"", "中".encode(), b" ", "é中".encode()]


def test_a_token_that_is_the_replacement_character_is_one() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "\ufffd": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    assert pieces(wrapped(tokenizer), "a\ufffdb") == [b"a", b"\xef\xbf\xbd", b""]


def test_unknown_text_is_not_lost_in_an_unknown_token_before_it() -> None:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0, byte_fallback=False))
    tokenizer.decoder = decoders.Fuse()
    known = Vocabulary(wrapped(tokenizer, unk_token="<unk>"), 2)
    assert known.encode("xyz") == ((0,), (3,))
    assert known.encode("xyaz") == ((0, 1, 0), (2, 3, 4))


def test_the_tokenizer_is_left_as_it_is_and_its_limits_do_not_cut() -> None:
    tokenizer = wrapped(
        Tokenizer.from_str(llama3().backend_tokenizer.to_str()), eos_token="<|end|>", pad_token="<|pad|>"
    )
    tokenizer.model_max_length = 4
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=10)
    before = tokenizer.backend_tokenizer.to_str()
    known, text = vocabulary(tokenizer), "the end of a long text " * 40
    for specials in (True, False):
        ids, _ = known.encode(text, specials=specials)
        assert b"".join(map(known.bytes_of, ids)) == text.encode()
    assert len(known.encode("a")[0]) == 1
    assert tokenizer.backend_tokenizer.to_str() == before
    assert not tokenizer.backend_tokenizer.encode_special_tokens


class Plain(PreTrainedTokenizer):
    """A tokenizer in Python with a token for each ASCII character, some written as SentencePiece writes."""

    def __init__(self, *, upper: bool = False, lost: str = "", **options: Any) -> None:
        self.upper, self.lost = upper, lost
        self.characters = [f"<0x{byte:02X}>" if byte < 32 else chr(byte) for byte in range(128)]
        super().__init__(eos_token="<end>", unk_token="<unk>", **options)

    @property
    def vocab_size(self) -> int:
        return 128

    def get_vocab(self) -> dict[str, int]:
        return {token: at for at, token in enumerate(self.characters)} | self.added_tokens_encoder

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        text = text.upper() if self.upper else text
        return [self.characters[ord(each)] if ord(each) < 128 else "<unk>" for each in text]

    def _convert_token_to_id(self, token: str) -> int:
        return self.characters.index(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.characters[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        text = "".join(chr(int(token[3:5], 16)) if token.startswith("<0x") else token for token in tokens)
        return text.replace(self.lost, "\ufffd") if self.lost else text


def test_a_tokenizer_in_python_works_where_it_keeps_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, text = Plain(model_max_length=4), " Paris,\n\tParis" * 3
    heard: list[logging.LogRecord] = []
    listener = logging.Handler()
    monkeypatch.setattr(listener, "emit", heard.append)
    monkeypatch.setattr(logging.getLogger("transformers"), "handlers", [listener])
    known = vocabulary(tokenizer)
    ids, ends = known.encode(text)
    assert not heard
    assert b"".join(map(known.bytes_of, ids)) == text.encode()
    assert ends == tuple(range(1, len(text) + 1))
    assert pieces(tokenizer, "a<end>") == [b"a", b"<", b"e", b"n", b"d", b">"]
    assert known.without_text == {tokenizer.eos_token_id, tokenizer.unk_token_id}
    assert tokenizer.model_max_length == 4
    with pytest.raises(VocabularyMismatchError, match=r"'Plain' changes text and gives no offsets.*'ä'"):
        known.encode("ä")


def test_a_tokenizer_in_python_that_changes_ordinary_text_is_refused_at_once() -> None:
    with pytest.raises(VocabularyMismatchError, match="'Plain' changes text and gives no offsets"):
        Vocabulary(Plain(upper=True), 130)


class Silent(Plain):
    """It does not name its tokens."""

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        raise NotImplementedError("there is no list of added tokens")


def test_tokenizers_that_cannot_be_read_are_refused_in_words() -> None:
    custom = wrapped(Tokenizer(models.BPE()))
    custom.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(object())
    for tokenizer, said in ((Silent(), "no list of added tokens"), (custom, "cannot be serialized")):
        with pytest.raises(VocabularyMismatchError, match=f"does not give the text of its tokens: .*{said}"):
            Vocabulary(tokenizer, 100)


def test_bytes_that_only_make_a_character_together_are_silent_where_nobody_knows_them() -> None:
    tokenizer = Plain(lost="z")
    assert vocabulary(tokenizer).bytes_of(ord("z")) == b""
    assert vocabulary(tokenizer).bytes_of(ord("y")) == b"y"


def test_a_vocabulary_is_read_once_and_goes_with_its_tokenizer() -> None:
    for build in (lambda: wrapped(Tokenizer.from_str(gpt2(400).backend_tokenizer.to_str())), Plain):
        tokenizer = build()
        known = vocabulary_of(tokenizer, 400)
        assert vocabulary_of(tokenizer, 400) is known
        assert vocabulary_of(tokenizer, 399) is not known
        gone = weakref.ref(known)
        del tokenizer, known
        gc.collect()
        assert gone() is None


def test_a_token_that_the_model_does_not_have_is_an_error() -> None:
    tokenizer = gpt2(2000)
    last = len(tokenizer) - 1
    known = Vocabulary(tokenizer, last)
    word = known.bytes_of(last).decode()
    with pytest.raises(
        VocabularyMismatchError, match=f"{word!r} with token {last}, which its model does not"
    ):
        known.encode(word)
