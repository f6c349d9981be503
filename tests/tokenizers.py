"""Tokenizers of every family, learned on the spot from a few lines."""

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from cosd_core.demo.facts import CAPITALS, WORDS
from examples.bundled_pairs.recipe.tokenizer import byte_tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 1,234.56 or 7 o'clock, isn't it?",
    "Paris is the capital of France; Berlin is the capital of Germany, and Rome that of Italy.",
    "Q: what is 37+45? A: 37+45=82. Q: how many letters has Wasserstraße? A: 12 letters.",
    "def add(left, right):\n    if left is None:\n        return right\n    return left + right\n\n\n",
    "for (int i = 0; i < 10; i++) {\n\tif (x[i] != y[i]) {\n\t\treturn false;\n\t}\n}\n",
    "Le cœur a ses raisons que la raison ne connaît point. Où êtes-vous, Noël ? Français naïf.",
    "Быстрая лиса прыгает через ленивую собаку. Столица Италии, столица Франции, столица Германии.",
    "敏捷的棕色狐狸跳过了懒狗。意大利的首都是罗马、法国的首都是巴黎。你好、世界。",
    "素早い茶色の狐はのろまな犬を飛び越える。フランスの首都はパリです。",
    "الثعلب البني السريع يقفز فوق الكلب الكسول. עברית היא שפה. तेज़ भूरी लोमड़ी कूदती है।",
    "🦊 👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇫🇷 are emoji; e\u0301 and é look alike, ﬁ is one character and x² has two.",
    "wide   gaps    and     more      gaps       between words \n \n  and   at  the   ends   ",
    "2024-05-17T08:09:10Z 3.14159 0xFF 1e-9 100% $5 #tag @name a_b <p>html</p> [x](y) C:\\dir",
    *(f"{city} is the capital of {country}." for country, city in CAPITALS.items()),
    " ".join(WORDS),
]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def wrapped(tokenizer: Tokenizer, **names: str) -> PreTrainedTokenizerFast:
    """As transformers gives it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, padding_side="left", **names
    )


@cache
def gpt2(size: int, *, space: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE with GPT-2's way to split, and its one special token; some put a space before a text."""
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    _learn(
        tokenizer,
        trainers.BpeTrainer(vocab_size=size, initial_alphabet=_byte_characters(), special_tokens=[end]),
    )
    return wrapped(tokenizer, bos_token=end, eos_token=end, unk_token=end)


@cache
def llama3() -> PreTrainedTokenizerFast:
    """Byte-level BPE with Llama 3's way to split, but single digits; every text begins with a token."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _learn(tokenizer, trainers.BpeTrainer(vocab_size=900, initial_alphabet=_byte_characters()))
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>", "<|pad|>"])
    _begin_with(tokenizer, "<|begin|>")
    return wrapped(tokenizer, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|pad|>")


@cache
def llama2() -> PreTrainedTokenizerFast:
    """BPE as SentencePiece does it: the text is one piece with a space before it, bytes are a last resort."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
            pre_tokenizers.Split(Regex("▁*[^▁\n]+|▁+|\n"), "isolated"),
        ]
    )
    _learn(learner, trainers.BpeTrainer(vocab_size=500))
    written = json.loads(learner.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *BYTES, *(piece for piece in written["vocab"] if piece != "\n")]
    merges = [tuple(pair) for pair in written["merges"]]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(_sentencepiece_decoder())
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    _begin_with(tokenizer, "<s>")
    return wrapped(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def unigram(*, byte_fallback: bool) -> PreTrainedTokenizerFast:
    """Unigram as in T5, which tidies a text up; or as in newer models, with bytes as a last resort."""
    specials = ["<pad>", "</s>", "<unk>"]
    split = pre_tokenizers.Metaspace(prepend_scheme="always")
    # The library's own trainer of Unigram gives another vocabulary in every process. Likelier pieces come
    # first here too; roots, so that no two ways to write a text are equally likely.
    pieces = [(piece, -4 - math.sqrt(at) / 8) for at, piece in enumerate(_pieces(split, 600))]
    scored = [*((name, 0.0) for name in specials), *pieces]
    if byte_fallback:
        scored += [(byte, -20.0) for byte in BYTES]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2, byte_fallback=byte_fallback))
    tokenizer.pre_tokenizer = split
    if byte_fallback:
        tokenizer.decoder = decoders.Sequence(_sentencepiece_decoder())
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
        )
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(specials)
    return wrapped(tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@cache
def wordpiece() -> PreTrainedTokenizerFast:
    """WordPiece as in BERT: lower case, no accents, no runs of spaces."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    normalizer, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    pieces = _pieces(split, 400, normalizer)
    words = [*specials, *pieces, *(f"##{piece}" for piece in pieces)]
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, split
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(specials)
    _begin_with(tokenizer, "[CLS]")
    return wrapped(
        tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
    )


@cache
def characters() -> PreTrainedTokenizerFast:
    """One token for each character of the corpus, one for all others."""
    pieces = ["[UNK]", "[END]", *sorted(set("".join(CORPUS)))]
    tokenizer = Tokenizer(models.WordLevel({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["[UNK]", "[END]"])
    return wrapped(tokenizer, unk_token="[UNK]", eos_token="[END]")


@cache
def single_bytes() -> PreTrainedTokenizerFast:
    """That of the bundled pair."""
    return byte_tokenizer()


Builder = Callable[[], PreTrainedTokenizerFast]

KEEPING_BYTES: dict[str, Builder] = {
    "gpt2-400": lambda: gpt2(400),
    "gpt2-400-space": lambda: gpt2(400, space=True),
    "gpt2-2000": lambda: gpt2(2000),
    "llama3": llama3,
    "llama2": llama2,
    "unigram-bytes": lambda: unigram(byte_fallback=True),
    "single-bytes": single_bytes,
}
"""Those whose tokens give back every byte of a text."""
CHANGING_TEXT: dict[str, Builder] = {
    "unigram": lambda: unigram(byte_fallback=False),
    "wordpiece": wordpiece,
    "characters": characters,
}
"""Those that drop or replace some characters."""
ZOO = KEEPING_BYTES | CHANGING_TEXT


def _learn(tokenizer: Tokenizer, trainer: Any) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator(CORPUS, trainer)


def _pieces(split: Any, size: int, normalizer: Any = None) -> list[str]:
    """What BPE learns, the most frequent first and single characters last."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = split
    if normalizer is not None:
        learner.normalizer = normalizer
    _learn(learner, trainers.BpeTrainer(vocab_size=size))
    known = learner.get_vocab()
    return sorted(known, key=lambda piece: (len(piece) == 1, known[piece]))


def _byte_characters() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _sentencepiece_decoder() -> Sequence[Any]:
    return [
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ]  # fmt: skip


def _begin_with(tokenizer: Tokenizer, name: str) -> None:
    """Put a special token before every text, where special tokens are asked for."""
    at = tokenizer.token_to_id(name)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{name} $A", special_tokens=[(name, at)])
