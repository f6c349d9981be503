"""A tokenizer whose ids are words and pieces of words, to fuse models that do not share one."""

import random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .mixtures import ARITHMETIC, FACTS
from .tokenizer import with_specials

SIZE = 640
SPECIALS = 3
SEED = 0
SAMPLES = 20_000
"""Examples of each mixture that the tokenizer is learned from."""

_PARTS = Regex(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
"""How GPT-2 splits a text before it merges, but with every digit alone."""


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Learn it from the questions and answers that the models learn from: byte-level BPE.

    A frequent word is one token together with the space before it, a name is a few, every digit is one.
    """
    rng = random.Random(SEED)
    examples = [mixture.example(rng) for mixture in (FACTS, ARITHMETIC) for _ in range(SAMPLES)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PARTS, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((prompt + answer for prompt, answer in examples), trainer)
    return with_specials(tokenizer)
