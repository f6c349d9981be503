"""How llama.cpp splits a text into words before the merges of a byte-level BPE, by the file's name for it.

They are those of ``llm_tokenizer_bpe`` in llama.cpp's ``src/llama-vocab.cpp``. Every tokenizer that is made
is compared with llama.cpp's (``tokenizer_check.py``), so an entry that no longer agrees is found.
"""

_ANY_CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_WORD = rf"{_BEFORE}\p{{L}}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SIGNS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_TITLE, _CAPITALS = f"{_BEFORE}{_UPPER}*{_LOWER}+", f"{_BEFORE}{_UPPER}+{_LOWER}*"


def _either(*patterns: str) -> str:
    return "|".join(patterns)


_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_QWEN_2 = _either(_ANY_CASE, _WORD, r"\p{N}", _SIGNS, _SPACES)
_QWEN_35 = _either(
    _ANY_CASE, rf"{_BEFORE}[\p{{L}}\p{{M}}]+", r"\p{N}", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", _SPACES
)
_LLAMA_3 = _either(_ANY_CASE, _WORD, r"\p{N}{1,3}", _SIGNS, _SPACES)
_SEED_CODER = _either(_ANY_CASE, _WORD, r"\p{N}", r" ?[^\s\p{L}\p{N}\r\n]+", _SPACES)
_TEKKEN = _either(_TITLE, _CAPITALS, r"\p{N}", _SIGNS_AND_SLASHES, _SPACES)
_GPT_4O = _either(
    f"{_TITLE}{_ANY_CASE}?", f"{_CAPITALS}{_ANY_CASE}?", r"\p{N}{1,3}", _SIGNS_AND_SLASHES, _SPACES
)
_DEEPSEEK_3 = _either(
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
    _SPACES,
)

_SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2 phi-2 gigachat a.x-4.0 mellum mpt olmo jais trillion exaone4 granite-docling": (_GPT_2,),
    "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": (r"\p{N}", _GPT_2),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2": (_QWEN_2,),
    "qwen35": (_QWEN_35,),
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 dbrx smaug-bpe": (_LLAMA_3,),
    "chatglm-bpe glm4 glm5": (_LLAMA_3,),
    "tekken": (_TEKKEN,),
    "gpt-4o llama4 kanana2 talkie minimax-m2": (_GPT_4O,),
    "deepseek-v3 hunyuan-dense joyai-llm": (r"\p{N}{1,3}", "[一-龥\u3040-\u30ff]+", _DEEPSEEK_3),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT_2, "[0-9][0-9][0-9]"),
    "seed-coder": (_SEED_CODER,),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"),
}

SPLITS = {name: patterns for names, patterns in _SPLITS.items() for name in names.split()}
"""The patterns by name. Each splits the pieces of the one before it, and keeps what it does not match."""

WHOLE_WORDS = frozenset(
    ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "glm4", "glm5",
     "tekken")
)  # fmt: skip
"""The names for which a word that is a token becomes this token, whatever the merges."""
