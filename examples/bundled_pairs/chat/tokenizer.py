"""The tokenizer: a small byte-level BPE that splits a word into the same tokens wherever it stands.

A tiny model can only learn to copy this way. No space is glued to a word, digits stand alone, and
so does every character of the scripts that put no spaces between words. Whatever else there is between
words forms tokens of its own, so `": {"` is one. Line breaks stand alone too: the prompt of an answer ends
in one, and must not grow together with the first character of the answer.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .template import (
    CALL,
    END,
    END_OF_CALL,
    END_OF_RESPONSE,
    PAD,
    RESPONSE,
    START,
    TEMPLATE,
)

VOCABULARY = 2048
CONTEXT = 2048
SPECIAL = (PAD, START, END)
ADDED = (CALL, END_OF_CALL, RESPONSE, END_OF_RESPONSE)
WORDLESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}"
PIECES = rf"[{WORDLESS}]|\p{{N}}|\n+|[[\p{{L}}\p{{M}}]&&[^{WORDLESS}]]+|[^\p{{L}}\p{{M}}\p{{N}}\n]+"


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learn the merges from texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in ADDED])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=None,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE,
    )
