"""Pieces of text add up to the decoded text, end at whole characters, and never show a stop string."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cosd_core.generation.detokenizer import Detokenizer, TextBuffer
from cosd_core.generation.stop_automaton import StopAutomaton
from tests.models import byte_tokenizer

LOST = "\N{REPLACEMENT CHARACTER}"
properties = settings(deadline=None)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()+=*/<>#_-"
SAMPLE = ["the quick brown fox isn't", "  x += 42;\n\treturn {x}", "naïve café 你好 🦊🦊", "\n\n    \t  "]


@cache
def merged_bytes() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=360, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SAMPLE * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@cache
def llama_like() -> PreTrainedTokenizerFast:
    """BPE over letters with a space marker; every other character is spelled in bytes (Llama 2, Mistral)."""
    vocabulary = {piece: at for at, piece in enumerate(["<unk>", *BYTES, "▁", *LETTERS, "th", "▁th", "▁the"])}
    vocabulary |= {"the": len(vocabulary)}
    merges = [("t", "h"), ("▁", "th"), ("th", "e"), ("▁", "the")]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@cache
def unigram() -> PreTrainedTokenizerFast:
    """Unigram with a space marker and byte fallback (Gemma's and T5's kind)."""
    pieces = [("<unk>", 0.0), *((piece, -9.0) for piece in BYTES)]
    pieces += [(piece, -3.0) for piece in ("▁", *LETTERS)] + [("▁the", -2.0), ("fox", -2.0), ("▁▁", -3.5)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@cache
def word_pieces() -> PreTrainedTokenizerFast:
    """Words from pieces with a ``##`` marker, and contractions tidied up (BERT)."""
    vocabulary = ["[UNK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "##the", "é", "##é", "你"]
    tokenizer = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(vocabulary)}))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@cache
def characters() -> PreTrainedTokenizerFast:
    vocabulary = ["?", *dict.fromkeys("".join(SAMPLE) + LETTERS.replace("?", "") + "|é́😀👩‍🚀한글")]
    tokenizer = Tokenizer(models.WordLevel({each: at for at, each in enumerate(vocabulary)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


TOKENIZERS = (byte_tokenizer, merged_bytes, llama_like, unigram, word_pieces, characters)
tokenizers = pytest.mark.parametrize(
    "tokenizer", [pytest.param(make(), id=make.__name__) for make in TOKENIZERS]
)

snippets = st.sampled_from(
    [*SAMPLE, "é", "👩‍🚀", "🏳️‍🌈", "😀😀", "e\u0301", "한글", "עברית", "हिन्दी", "你好", "🦊", "don't",
     "def f(x):\n\treturn x", "  ", "\n", "\t", "\r\n", "the", " the fox", " .", "\u00a0", "\u200d", "a"]
)  # fmt: skip
texts = st.lists(snippets | st.text(max_size=5), min_size=1, max_size=12).map("".join)


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


@tokenizers
@properties
@given(text=texts, share=st.floats(0, 1))
@example(text="a😀😀", share=0.0)
@example(text="\N{REPLACEMENT CHARACTER}👩\u200d🚀", share=0.0)
@example(text="a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}é😀", share=0.0)
def test_pieces_add_up_to_the_decoded_continuation(tokenizer, text, share):
    ids = encode(tokenizer, text)
    assume(ids)
    cut = round(share * (len(ids) - 1))
    while cut and decode(tokenizer, ids[:cut]).endswith(LOST):
        cut -= 1  # a prompt ends at a whole character
    prompt, new = ids[:cut], ids[cut:]
    detokenizer = Detokenizer(tokenizer, prompt)
    pieces = [detokenizer.push(token) for token in new]
    expected = decode(tokenizer, ids).removeprefix(decode(tokenizer, prompt))
    assert "".join(pieces) + detokenizer.flush() == expected


@tokenizers
@properties
@given(text=texts.filter(lambda text: LOST not in text))
@example(text="😀😀")
@example(text="éé😀")
def test_pieces_of_a_text_hold_whole_characters_only(tokenizer, text):
    detokenizer = Detokenizer(tokenizer, [])
    assert all(LOST not in detokenizer.push(token) for token in encode(tokenizer, text))


@tokenizers
@properties
@given(text=texts)
def test_nothing_is_held_back_once_the_text_ends_in_a_whole_character(tokenizer, text):
    detokenizer, ids, shown = Detokenizer(tokenizer, []), [], ""
    for token in encode(tokenizer, text):
        ids.append(token)
        shown += detokenizer.push(token)
        so_far = decode(tokenizer, ids)
        assert shown == so_far or so_far.endswith(LOST)


@pytest.mark.parametrize("make", [byte_tokenizer, merged_bytes])
@properties
@given(data=st.data())
def test_pieces_of_invalid_bytes_add_up_too(make, data):
    tokenizer = make()
    any_ids = st.lists(st.integers(0, len(tokenizer.get_vocab()) - 1), max_size=60)
    prompt, new = data.draw(any_ids), data.draw(any_ids)
    assume(not decode(tokenizer, prompt).endswith(LOST))
    detokenizer = Detokenizer(tokenizer, prompt)
    text = ""
    for at, token in enumerate(new, start=1):
        text += detokenizer.push(token)
        so_far = decode(tokenizer, prompt + new[:at]).removeprefix(decode(tokenizer, prompt))
        assert so_far.startswith(text)
        last_three = sum(len(decode(tokenizer, [each])) for each in new[max(0, at - 3) : at])
        assert len(so_far) - len(text) <= max(3, last_three), "more is held back than an unfinished character"
    assert text + detokenizer.flush() == decode(tokenizer, prompt + new).removeprefix(
        decode(tokenizer, prompt)
    )


@pytest.mark.parametrize("make", [byte_tokenizer, llama_like])
@pytest.mark.parametrize("bytes_in_prompt", [1, 2, 3])
def test_a_character_that_the_prompt_began_is_shown_when_it_is_finished(make, bytes_in_prompt):
    tokenizer = make()
    whole = encode(tokenizer, "a🦊b")
    prompt, new = whole[: -5 + bytes_in_prompt], whole[-5 + bytes_in_prompt :]
    detokenizer = Detokenizer(tokenizer, prompt)
    assert "".join(detokenizer.push(token) for token in new) == "🦊b"


def test_special_tokens_add_nothing_and_leave_the_space_after_them_alone():
    tokenizer = llama_like()
    ids = [*encode(tokenizer, "the"), *[tokenizer.eos_token_id] * 5, *encode(tokenizer, "the")]
    for cut in range(1, len(ids)):
        detokenizer = Detokenizer(tokenizer, ids[:cut])
        shown = "".join(map(detokenizer.push, ids[cut:]))
        assert decode(tokenizer, ids[:cut]) + shown == "the the", f"prompt of {cut} tokens"


@properties
@given(text=texts, other=st.integers(0, 255))
def test_peeking_changes_nothing(text, other):
    tokenizer = byte_tokenizer()
    plain, peeked = Detokenizer(tokenizer, []), Detokenizer(tokenizer, [])
    for token in encode(tokenizer, text):
        foretold = peeked.peek(token)
        peeked.peek(other)
        piece = plain.push(token)
        assert peeked.push(token) == piece
        assert foretold.startswith(piece)


class Pieces:
    """A detokenizer whose token n is the nth of the given pieces."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces

    def push(self, token: int) -> str:
        return self.pieces[token]

    def peek(self, token: int) -> str:
        return self.pieces[token]

    def flush(self) -> str:
        return ""


def write(pieces: list[str], stop: tuple[str, ...], round_lengths: list[int]) -> tuple[list[str], TextBuffer]:
    """What is released, round by round, when the pieces arrive in rounds of these lengths."""
    buffer, released = TextBuffer(Pieces(pieces), stop), []  # type: ignore[arg-type]
    left = iter(range(len(pieces)))
    finished = False
    while not finished:
        for _ in range(round_lengths[len(released) % len(round_lengths)]):
            if (token := next(left, None)) is None or buffer.stop_sequence is not None:
                finished = True
                break
            buffer.push(token)
        released.append(buffer.release())
    buffer.close()
    return [*released, buffer.release(final=True)], buffer


def until_stop(text: str, stops: tuple[str, ...]) -> tuple[str, str | None]:
    """The text before the stop string that is complete first, and that stop string, by trying every end."""
    for end in range(len(text) + 1):
        if completed := [stop for stop in stops if text[:end].endswith(stop)]:
            longest = max(completed, key=len)
            return text[: end - len(longest)], longest
    return text, None


alphabets = st.sampled_from(["ab", "abc", "é😀", "a\n", "你e\u0301"])
stop_cases = alphabets.flatmap(
    lambda alphabet: st.tuples(
        st.text(alphabet, max_size=40),
        st.lists(st.text(alphabet, min_size=1, max_size=6), min_size=1, max_size=4).map(tuple),
    )
)


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


cuts = st.lists(st.integers(0, 100), max_size=40)
rounds = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@properties
@given(case=stop_cases, cuts=cuts, rounds=rounds)
@example(case=("ab", ("ab", "a")), cuts=[], rounds=[1])
@example(case=("abba", ("abba", "b")), cuts=[], rounds=[1])
def test_a_text_ends_before_the_stop_that_is_complete_first_however_it_is_split(case, cuts, rounds):
    text, stops = case
    released, buffer = write(split(text, cuts), stops, rounds)
    expected, stop = until_stop(text, stops)
    assert buffer.text == "".join(released) == expected
    assert buffer.stop_sequence == stop


@properties
@given(case=stop_cases, cuts=cuts, rounds=rounds)
def test_no_part_of_a_stop_is_released_and_only_the_beginning_of_one_is_held_back(case, cuts, rounds):
    text, stops = case
    pieces = split(text, cuts)
    buffer, shown = TextBuffer(Pieces(pieces), stops), ""  # type: ignore[arg-type]
    for token in range(len(pieces)):
        buffer.push(token)
        shown += buffer.release()
        assert not any(stop in shown for stop in stops)
        if buffer.stop_sequence is not None:
            assert shown == buffer.text
            break
        held = buffer.text.removeprefix(shown)
        assert not held or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param(tuple("a" * length + "b" for length in range(1, 400)), id="of one letter"),
        pytest.param(tuple(f"{number:04}!" for number in range(1000)), id="as many as there may be"),
        pytest.param(("a" * 100_000 + "b",), id="as long as it may be"),
    ],
)
def test_the_work_per_character_does_not_grow_with_the_stop_strings(stops, monkeypatch):
    steps = 0
    step = StopAutomaton.step

    def counted(self, state, character):
        nonlocal steps
        steps += 1
        return step(self, state, character)

    buffer = TextBuffer(Pieces(["a" * 50, "0123456789", "aa0"] * 100), stops)  # type: ignore[arg-type]
    monkeypatch.setattr(StopAutomaton, "step", counted)
    for token in range(300):
        buffer.push(token)
        buffer.release()
    assert steps == len(buffer.text) == 6300


@pytest.mark.parametrize("make", [byte_tokenizer, merged_bytes, characters])
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param("</answer>", id="many-tokens"),
        pytest.param("🦊🦊", id="multi-byte"),
        pytest.param("é\n", id="accent-and-newline"),
        pytest.param("the quick brown fox " * 15, id="300-characters"),
    ],
)
def test_a_stop_across_many_tokens_is_found(make, stop):
    tokenizer = make()
    ids = encode(tokenizer, f"naïve 🦊 the quick {stop[:-1]}|{stop} never shown")
    buffer, shown = TextBuffer(Detokenizer(tokenizer, []), (stop,)), ""
    for token in ids:
        buffer.push(token)
        shown += buffer.release()
        if buffer.stop_sequence:
            break
    assert buffer.stop_sequence == stop
    assert shown == buffer.text == f"naïve 🦊 the quick {stop[:-1]}|"


def test_the_end_of_the_text_releases_what_might_have_become_a_stop():
    released, buffer = write(["x", "ab"], ("abc",), [1])
    assert released[:-1] == ["x", "", ""]
    assert released[-1] == "ab"
    assert buffer.stop_sequence is None


def test_an_unfinished_character_is_shown_when_the_text_ends():
    tokenizer = byte_tokenizer()
    buffer = TextBuffer(Detokenizer(tokenizer, []), ())
    for token in encode(tokenizer, "a🦊")[:-1]:
        buffer.push(token)
    assert buffer.release() == "a"
    assert buffer.close() == LOST
    assert buffer.release(final=True) == LOST
