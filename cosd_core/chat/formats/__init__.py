"""Finds the tool format of a model from its tokenizer."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateError, meta
from transformers import PreTrainedTokenizerBase

from cosd_core.chat.formats.base import AddedToken, ToolFormat
from cosd_core.chat.formats.families import HermesFormat, LlamaFormat, MistralFormat, XmlFormat
from cosd_core.chat.tools import as_json

__all__ = ["ToolFormat", "takes_tools", "tool_format"]

_REASONING_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
"""A tag that transformers adds to jinja2."""
_LLAMA = re.compile(r'\{\\?"name\\?": .{0,80}\\?"parameters\\?": ', re.DOTALL)


def tool_format(tokenizer: PreTrainedTokenizerBase, chat_template: Any = None) -> ToolFormat:
    """The format in ``chat_template``, or else in the tokenizer's; Hermes if that does not render tools."""
    template = _template(chat_template or tokenizer.chat_template)
    decoder = tokenizer.added_tokens_decoder
    added = {token.content: AddedToken(token_id, token.special) for token_id, token in decoder.items()}
    response_template = getattr(tokenizer, "response_template", None)
    shared: dict[str, Any] = {
        "reasoning_tags": next((tags for tags in _REASONING_TAGS if any(t in template for t in tags)), None),
        "tokens": added,
        "response_template": response_template,
        "extra_visible_tokens": _mentioned_tokens(response_template, added, tokenizer.eos_token_id),
    }
    takes_tools = _renders_tools(template)
    if takes_tools and "[TOOL_CALLS]" in template:
        return MistralFormat(True, named="[ARGS]" in template, numbered="[CALL_ID]" in template, **shared)
    if takes_tools and "<tool_call>" in template:
        return (XmlFormat if "<function=" in template else HermesFormat)(True, **shared)
    if takes_tools and ("<|python_tag|>" in template or _LLAMA.search(template)):
        return LlamaFormat(True, **shared)
    return HermesFormat(False, **shared)


def _template(template: Any) -> str:
    """The template for tools, if there are several."""
    if isinstance(template, Mapping):
        template = template.get("tool_use") or template.get("default")
    return template if isinstance(template, str) else ""


def takes_tools(chat_template: Any) -> bool:
    """Whether a tokenizer's chat template renders tools."""
    return _renders_tools(_template(chat_template))


@lru_cache(maxsize=64)
def _renders_tools(template: str) -> bool:
    environment = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False)
    try:
        return "tools" in meta.find_undeclared_variables(environment.parse(_GENERATION.sub("", template)))
    except (TemplateError, RecursionError):  # transformers cannot render it either, and says why
        return False


def _mentioned_tokens(template: Any, added: Mapping[str, AddedToken], end: int | None) -> frozenset[int]:
    """The special tokens that a response template mentions, without the end-of-sequence token."""
    if template is None:
        return frozenset()
    # The patterns escape the brackets of tokens.
    source = as_json(template).replace("\\", "")
    return frozenset(
        token.id for text, token in added.items() if token.is_special and token.id != end and text in source
    )
