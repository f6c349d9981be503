"""A tokenizer whose token ids are the bytes of the text, so that any text survives it unchanged."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
BOS_ID, EOS_ID, PAD_ID = 256, 257, 258
VOCABULARY = 259
CONTEXT = 512


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Build it. It adds no beginning-of-sequence token: no model was trained with one."""
    vocabulary = {character: byte for byte, character in enumerate(_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return with_specials(tokenizer)


def with_specials(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Add the tokens that begin and end a text and fill it up, and make it one of transformers'."""
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in (BOS, EOS, PAD)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _characters() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies, by byte."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256)]
