"""Compiles grammars with llguidance.

Its compiler, jsonschema and Python's JSON encoder are recursive. They run here in a thread with a large
stack, so that the depth they need does not depend on the caller's stack, which may be small or nearly full:
llguidance needs up to 10 kB per level of a schema, and ``MAX_CHAIN`` levels are allowed.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from cosd_core.errors import quoted
from cosd_core.utils.threads import run_in_thread

_UNSATISFIABLE = "Unsatisfiable schema"


def serialize(kind: str, source: str) -> str:
    """A grammar of a kind (``json_schema``, ``regex``, ``lark``) in llguidance's serialization."""
    from llguidance import LLMatcher  # here: most generations need no grammar

    make: Callable[[str], str] = getattr(LLMatcher, f"grammar_from_{kind}")
    return make(source)


@lru_cache(maxsize=64)
def compile_error(serialized: str) -> str:
    """What llguidance refuses in a grammar in its serialization; empty if it compiles."""
    from llguidance import LLMatcher

    try:
        is_error, messages = run_in_thread(lambda: LLMatcher.validate_grammar_with_warnings(serialized))
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # not an Exception, and its class cannot be imported
            raise
        return f"llguidance failed: {quoted(error)}"
    return (messages[0] or "unknown error") if is_error else ""


def is_contradiction(error: str) -> bool:
    """Whether :func:`compile_error` says that a schema admits no value at all."""
    return _UNSATISFIABLE in error


def contradiction(error: str) -> str:
    """The reason that :func:`compile_error` gives, without llguidance's own terms."""
    reason = error.partition(f"{_UNSATISFIABLE}: ")[2].partition("\n")[0]
    return "a pattern, a format or a length exclude each other" if "Regex" in reason else reason


def start_matcher(tokenizer: Any, serialized: str) -> Any:
    """Llguidance's matcher at the start of a text."""
    from llguidance import LLMatcher

    return run_in_thread(lambda: LLMatcher(tokenizer, serialized, log_level=0))
