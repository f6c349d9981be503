"""Whether a grammar admits a text, by a matcher over bytes."""

import json
from typing import Any

from cosd_core import GenerationError, Grammar
from cosd_core.sampling.grammar_matcher import GrammarMatcher
from tests.models import byte_tokenizer

END = 256


def admits(grammar: Grammar, text: str) -> bool:
    """Whether the grammar derives a whole text."""
    tokenizer = byte_tokenizer()
    tokens = tokenizer.encode(text)
    matcher = GrammarMatcher(grammar, tokenizer, END + 1, frozenset({END}))
    try:
        return bool(matcher.is_complete(tokens) or matcher.allowed(tokens)[END])
    except GenerationError:
        return False


def enforces(schema: Any, value: Any) -> bool:
    """Whether the grammar of a schema admits a value."""
    return admits(Grammar.json_schema(schema), json.dumps(value, ensure_ascii=False))
