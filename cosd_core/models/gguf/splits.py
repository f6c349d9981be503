"""How llama.cpp splits a text into words before the merges of a byte-level BPE, by the file's name for it.

They are those of ``llm_tokenizer_bpe`` in llama.cpp's ``src/llama-vocab.cpp``. A loaded tokenizer is compared with
llama.cpp's, so an entry that no longer agrees is found there.
"""

_ENGLISH = "'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = f"(?i:{_ENGLISH})"
_END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"

_GPT_2 = rf"{_ENGLISH}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)"
_QWEN_2 = rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_END}"
_QWEN_35 = rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*{_END}"
_LLAMA_3 = rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_END}"
_UPPER, _LOWER = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_TEKKEN = rf"{_CASED % ('', '')}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_END}"
_GPT_4O = rf"{_CASED % (f'{_ANY_CASE}?', f'{_ANY_CASE}?')}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_END}"
_DEEPSEEK_3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*{_END}"
)

_SPLITS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "jais", "trillion", "exaone4",
     "granite-docling"): (_GPT_2,),
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"): (
        r"\p{N}", _GPT_2,
    ),
    ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"): (
        _QWEN_2,
    ),
    ("qwen35",): (_QWEN_35,),
    ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "dbrx", "smaug-bpe",
     "chatglm-bpe", "glm4", "glm5"): (_LLAMA_3,),
    ("tekken",): (_TEKKEN,),
    ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"): (_GPT_4O,),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm"): (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK_3),
    ("deepseek-coder",): (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
    ("falcon",): (r"[\p{P}\$\+<=>\^~\|`]+", _GPT_2, "[0-9][0-9][0-9]"),
    ("seed-coder",): (
        rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+{_END}",
    ),
    ("", "default"): (r"[\p{P}\$\+<=>\^~\|]+", _GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"),
}  # fmt: skip

SPLITS = {name: patterns for names, patterns in _SPLITS.items() for name in names}
"""The patterns by name. Each is applied to the pieces of the one before it; what it does not match is a piece too."""

WHOLE_WORDS = {
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "glm4", "glm5", "tekken",
}  # fmt: skip
"""The names for which a word that is a token becomes this token, whatever the merges."""
