"""Models over one vocabulary of bytes, tags and control tokens that differ in their chat templates."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, processors
from transformers import LogitsProcessor, PreTrainedTokenizerFast

from cosd_core import CoSDDecoder, CoSDError, LanguageModel, Turn
from cosd_core.chat.events import Event, merge_deltas
from tests.models import ascii_model, byte_tokenizer

EOS, BOS = 256, 257
SPECIAL = ("<bos>", "<|im_start|>", "<|im_end|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>")
TAGS = ("<tool_call>", "</tool_call>", "<think>", "</think>")

_ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_CALLS = (
    "{% for c in m.tool_calls %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}"
)
_HERMES = (
    "{{ bos_token }}{% if tools %}<|im_start|>system\n"
    "{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "<tool_response>{{ m.name }}: {{ m.content }}</tool_response>\n"
    "{% elif m.tool_calls %}<|im_start|>assistant\n{{ m.content }}" + _CALLS + "<|im_end|>\n"
    "{% else %}" + _TURN + "{% endif %}{% endfor %}" + _ASKS
)
_ID = "{% if x|length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}"
TEMPLATES: dict[str, str | None] = {
    "none": None,
    "chatml": "{{ bos_token }}{% for m in messages %}" + _TURN + "{% endfor %}" + _ASKS,
    # Gemma, early Mistral: no system messages, and user and assistant in turn
    "strict": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}"
        "{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
        "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "no system": (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + _TURN + "{% endfor %}" + _ASKS
    ),
    "system first": (
        "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
        "{{ raise_exception('system message must be first') }}{% endif %}" + _TURN + "{% endfor %}" + _ASKS
    ),
    "forgets": (
        "{% for m in messages %}{% if m.role != 'system' or loop.first %}"
        + _TURN + "{% endif %}{% endfor %}" + _ASKS
    ),
    "user first": (
        "{% if messages[0].role != 'user' %}{{ raise_exception('a user begins') }}{% endif %}"
        "{% for m in messages %}" + _TURN + "{% endfor %}" + _ASKS
    ),
    "deaf": "{{ bos_token }}" + _ASKS,
    "grim": "{{ raise_exception('nothing pleases me') }}",
    "hermes": _HERMES,
    "thinking": _HERMES + "{% if enable_thinking is not defined or enable_thinking %}<think>\n"
                          "{% else %}<think>\n\n</think>\n\n{% endif %}",
    "reasons": "{% for m in messages %}" + _TURN + "{% endfor %}" + _ASKS + "<think>\n",
    "mistral": (
        "{{ bos_token }}{% if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
        "{% elif m.role == 'tool' %}{% set x = m.tool_call_id %}" + _ID +
        '[TOOL_RESULTS] {"content": {{ m.content | tojson }}, "call_id": "{{ x }}"}[/TOOL_RESULTS]'
        "{% elif m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}{% set x = c.id %}" + _ID +
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ x }}"}'
        "{% if not loop.last %}, {% endif %}{% endfor %}]{{ eos_token }}"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
}  # fmt: skip

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How it is outside",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NOW = {"type": "function", "function": {"name": "now", "description": "What time it is"}}
OSLO = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


@cache
def tokenizer(template: str = "none", *, eos_token: str = "<eos>") -> PreTrainedTokenizerFast:
    """Bytes, control tokens and tags; a text that is encoded begins with BOS."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=type(byte_tokenizer().backend_tokenizer).from_str(
            byte_tokenizer().backend_tokenizer.to_str()
        ),
        eos_token="<eos>",
    )
    special = [AddedToken(each, special=True, normalized=False) for each in SPECIAL]
    made.add_tokens(special, special_tokens=True)
    made.add_tokens([AddedToken(each, normalized=False) for each in TAGS])
    made.bos_token, made.eos_token = "<bos>", eos_token
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BOS)]
    )
    made.chat_template = TEMPLATES[template]
    return made


@cache
def _body(seed: int, **config: Any) -> LanguageModel:
    vocabulary = EOS + 1 + len(SPECIAL) + len(TAGS)
    return ascii_model(seed=seed, vocabulary=vocabulary, **{"max_position_embeddings": 4096, **config})


@cache
def chat_model(template: str, *, seed: int = 0, eos_token: str = "<eos>", **config: Any) -> LanguageModel:
    """A random model whose tokenizer has this chat template; it bears the template's name."""
    return LanguageModel(
        _body(seed, **config).model, tokenizer(template, eos_token=eos_token), name=f"{template} {seed}"
    )


class Recites(LogitsProcessor):
    """Makes the models write what is wished for."""

    stateless = True

    def __init__(self, prompt_length: int, ids: Sequence[int]) -> None:
        self._prompt_length, self._ids = prompt_length, ids

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        wanted = torch.full_like(scores, -torch.inf)
        at = self._ids[min(input_ids.shape[1] - self._prompt_length, len(self._ids) - 1)]
        wanted[:, at] = scores[:, at]
        return wanted


def recited(decoder: CoSDDecoder, text: str, prompt_length: int, *, whole: bool = True) -> dict[str, Any]:
    """Options by which a decoder answers with this text, tags in it as tokens; it is cut if not ``whole``."""
    ids = decoder.draft.tokenizer.encode(text, add_special_tokens=False)
    ends = [decoder.draft.tokenizer.eos_token_id] if whole else []
    return {"logits_processor": [Recites(prompt_length, [*ids, *ends])], "max_new_tokens": len([*ids, *ends])}


def answered(turn: Turn, decoder: CoSDDecoder, text: str, *, whole: bool = True) -> list[Event]:
    """The events of a turn whose answer is this text."""
    options = recited(decoder, text, len(turn.prompt.ids[0]), whole=whole)
    chunks = decoder.stream(turn.prompt, grammar=turn.grammar, **options)
    return merge_deltas(event for chunk in chunks for event in turn.read(chunk))


def refused(call: Any, error: type[CoSDError], *needed: str) -> None:
    """See that a call is refused by this error, in one line that holds all of these words."""
    with pytest.raises(CoSDError) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error, message
    assert len(message.splitlines()) == 1, message
    assert len(message) < 600, message
    for part in needed:
        assert part in message, f"{part!r} is not in: {message}"
