"""Makes a transformers tokenizer from the vocabulary in a GGUF file."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cosd_core.errors import ModelLoadError, UnsupportedModelError, quoted
from cosd_core.models.gguf.header import GGUFHeader
from cosd_core.models.gguf.splits import SPLITS, WHOLE_WORDS

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
"""The types of tokens in a file."""

_SPACE = "▁"
_NAMED = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
"""transformers' names of special tokens, and the names of their ids in a file."""


def build_tokenizer(header: GGUFHeader, *, control: Sequence[int], adds_bos: bool) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file.

    Args:
        header: The file's header.
        control: The ids that llama.cpp treats as control tokens, which the file may not know of.
        adds_bos: Whether a text begins with the BOS token.

    Raises:
        UnsupportedModelError: The file's kind of tokenizer cannot be made.
        ModelLoadError: The vocabulary is missing or damaged.
    """
    kind = header.values.get("tokenizer.ggml.model")
    make = _KINDS.get(kind)
    if make is None:
        raise UnsupportedModelError(
            f"model {quoted(header.path)} has a tokenizer of kind {quoted(kind)}, which cannot be made from "
            f"the file; there can be {', '.join(_KINDS)}. Name that of the original model: tokenizer=..."
        )
    try:
        vocabulary = _Vocabulary(header)
        tokenizer = make(vocabulary)
        _add_special_tokens(tokenizer, vocabulary, control)
        named = _special_tokens(header)
        if adds_bos and "bos_token" in named:
            _begin_with(tokenizer, named["bos_token"])
    except UnsupportedModelError:
        raise
    except Exception as error:  # the file may hold anything, and the library raises plain Exception
        raise ModelLoadError(
            f"cannot make the tokenizer of model {quoted(header.path)}: {quoted(error)}"
        ) from error
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, padding_side="left", **named
    )
    if header.chat_template:
        made.chat_template = header.chat_template
    return made


class _Vocabulary:
    """The entries of a file that describe its vocabulary."""

    def __init__(self, header: GGUFHeader) -> None:
        values = header.values
        self.tokens = _tokens(header)
        types = values.get("tokenizer.ggml.token_type")
        self.types: Any = [_NORMAL] * len(self.tokens) if types is None else types
        self.scores = values.get("tokenizer.ggml.scores")
        self.merges: list[str] | None = values.get("tokenizer.ggml.merges")
        self.split = str(values.get("tokenizer.ggml.pre") or "default")
        self.adds_space = bool(values.get("tokenizer.ggml.add_space_prefix", True))

    @property
    def ids(self) -> dict[str, int]:
        """The id of every token. Of equal tokens the last one counts, as in llama.cpp."""
        return {token: at for at, token in enumerate(self.tokens)}

    def merge_pairs(self) -> list[tuple[str, str]]:
        """The merges that the file lists, each as two tokens that a space separates."""
        # A token may hold spaces itself; a merge's first character is never the separator.
        pairs = []
        for merge in self.merges or ():
            at = merge.index(" ", 1)
            pairs.append((merge[:at], merge[at + 1 :]))
        return pairs


def _byte_level(vocabulary: _Vocabulary) -> Tokenizer:
    """BPE over bytes, as in GPT-2 and most newer models."""
    if vocabulary.split not in SPLITS:
        raise UnsupportedModelError(
            f"the tokenizer splits texts in a way named {quoted(vocabulary.split)}, which is not known here: "
            "name the tokenizer of the original model, tokenizer=..."
        )
    whole = vocabulary.split in WHOLE_WORDS
    tokenizer = Tokenizer(models.BPE(vocabulary.ids, vocabulary.merge_pairs(), ignore_merges=whole))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS[vocabulary.split]]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(vocabulary: _Vocabulary) -> Tokenizer:
    """BPE as SentencePiece does it, whose merges follow from the scores of the tokens."""
    unknown = next((at for at, kind in enumerate(vocabulary.types) if kind == _UNKNOWN), None)
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary.ids,
            _merges_by_score(vocabulary),
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if vocabulary.adds_space else spaces
    )
    tokenizer.decoder = _sentencepiece_decoder(strip=vocabulary.adds_space)
    return tokenizer


def _sentencepiece_with_merges(vocabulary: _Vocabulary) -> Tokenizer:
    """The same with merges that the file lists, and lines as the longest words."""
    tokenizer = Tokenizer(
        models.BPE(vocabulary.ids, vocabulary.merge_pairs(), fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]+|\n+"), "isolated")
    tokenizer.decoder = _sentencepiece_decoder(strip=False)
    return tokenizer


_KINDS: Mapping[Any, Callable[[_Vocabulary], Tokenizer]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "gemma4": _sentencepiece_with_merges,
}
"""The kinds of tokenizers in GGUF files that can be made."""


def _merges_by_score(vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """All pairs of tokens that make a token, in the order in which llama.cpp merges: the best score first."""
    ids, scores, types = vocabulary.ids, vocabulary.scores, vocabulary.types
    if scores is None:
        raise ModelLoadError("the vocabulary has no scores")
    found = []
    for at, token in enumerate(vocabulary.tokens):
        if types[at] not in (_NORMAL, _USER_DEFINED) or ids[token] != at:
            continue
        # The scores of added runs of spaces do not say when they are merged: it is first, the shorter before.
        added_run = types[at] == _USER_DEFINED and not token.strip(_SPACE)
        rank = -math.inf if added_run else -scores[at]
        found += [
            (rank, at, token[:end], token[end:])
            for end in range(1, len(token))
            if token[:end] in ids and token[end:] in ids
        ]
    found.sort(key=lambda merge: merge[:2])
    return [(left, right) for _, _, left, right in found]


def _sentencepiece_decoder(*, strip: bool) -> Any:
    steps: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)


def _tokens(header: GGUFHeader) -> list[str]:
    """The tokens, those of several spaces spelled as the others of SentencePiece: Gemma's files do not."""
    tokens: list[str] = header.values["tokenizer.ggml.tokens"]
    if header.values["tokenizer.ggml.model"] == "gpt2":
        return tokens
    return [_SPACE * len(token) if token and not token.strip(" ") else token for token in tokens]


def _add_special_tokens(tokenizer: Tokenizer, vocabulary: _Vocabulary, control: Sequence[int]) -> None:
    """Keep control tokens, and those that a user of the tokenizer added, whole."""
    tokens, types = vocabulary.tokens, vocabulary.types
    special = {*control, *(at for at, kind in enumerate(types) if kind in (_CONTROL, _UNKNOWN))}
    added = [at for at, kind in enumerate(types) if kind == _USER_DEFINED and at not in special]
    added = [at for at in added if tokens[at].strip(_SPACE)]  # runs of spaces result from merges
    tokenizer.add_tokens([AddedToken(tokens[at], normalized=False, special=False) for at in added])
    tokenizer.add_special_tokens(
        [AddedToken(tokens[at], normalized=False, special=True) for at in sorted(special)]
    )


def _special_tokens(header: GGUFHeader) -> dict[str, str]:
    tokens = header.values["tokenizer.ggml.tokens"]
    ids = {name: header.values.get(f"tokenizer.ggml.{key}") for name, key in _NAMED.items()}
    return {name: tokens[at] for name, at in ids.items() if at is not None and 0 <= at < len(tokens)}


def _begin_with(tokenizer: Tokenizer, token: str) -> None:
    at = tokenizer.token_to_id(token)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token}:0 $A:0", pair=f"{token}:0 $A:0 {token}:1 $B:1", special_tokens=[(token, at)]
    )
