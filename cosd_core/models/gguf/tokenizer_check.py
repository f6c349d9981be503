"""Compares a tokenizer with llama.cpp's own: models must never get other ids than they were trained on."""

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from cosd_core.errors import UnsupportedModelError, quoted
from cosd_core.models.gguf.weights import Weights

_PROSE = (
    "The quick brown fox jumps over the lazy dog.",
    "Q: what is 37+45? A: 82. It's 1,234.56 dollars, isn't it?",
    "def add(left, right):\n    if left is None:\n        return right\n    return left + right\n",
    "Dear Sir or Madam,\n\nPlease find enclosed the report (3 pages).\n",
)
"""Texts that every right tokenizer of a vocabulary splits alike."""

_HARD = (
    *_PROSE,
    "", " ", "  ", "   a", "a ", "a  b   c    d", "\n", "\n\n", "\n\n\n\na", " \n \n", "\t", "\t\ta\tb",
    "\r\n\r\na", " \t\n x", "x = 1;\t// ok\n\n\n    y += 2;\r\n}", "1", "12", "123", "1234", "0123456789",
    "3.14159e-10", "½ ²³ ١٢٣", "I'LL don't WE'VE 'tis ''''", "!!! ... --- === ### ((([[[{{{",
    "http://example.org/a_b?c=d&e=f#g", "camelCaseHTTPServer", "naïve café Ünïcödé ÀÉÎ ß ﬁ",
    "Быстрая лиса, ЖЁЛТЫЙ", "敏捷的棕色狐狸。你好、世界!", "素早いキツネ カタカナ", "빠른 갈색 여우",
    "الثعلب السريع",
        "עברית", "हिन्दी में लिखा", "ภาษาไทย", "🦊👩\u200d👩\u200d👧 👍🏽🇫🇷", "e\u0301 a\u0300\u0301",
    "\u200b\u00a0\u2009x\u3000y", "\ufeffx", "<html><body>&amp;</body></html>", "x\u0000y\u0007",
    "\U0001d518\U0001d52b \U00020000", "…—“quoted” \u2018single\u2019 •",
)  # fmt: skip
"""Texts on which tokenizers that seem alike differ."""


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, weights: Weights, *, named: str | None) -> None:
    """Check that a tokenizer gives the ids that llama.cpp gives.

    Args:
        tokenizer: The tokenizer.
        weights: The model, whose vocabulary llama.cpp uses.
        named: The tokenizer's name, if it is not the file's own. Then only plain texts are compared: the
            model's original tokenizer may be right where llama.cpp is not, as with decomposed letters.

    Raises:
        UnsupportedModelError: They differ.
    """
    for text in _PROSE if named else (*_HARD, *_with_special_tokens(tokenizer)):
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        expected = weights.tokenize(text)
        if ids != expected:
            whose = f"tokenizer {quoted(named)}" if named else "the tokenizer made from the file"
            advice = "" if named else ": name the tokenizer of the original model, tokenizer=..."
            raise UnsupportedModelError(
                f"model {quoted(weights.path)}: {whose} and llama.cpp split {quoted(text)} into different "
                f"tokens, {quoted(ids)} and {quoted(expected)}{advice}"
            )


def _with_special_tokens(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Texts with control tokens between words, at their start and at their end."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    for token in (*added[:8], *added[-8:]):
        yield f"{token}user\nHello {token} world{token}"
