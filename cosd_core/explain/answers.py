"""Finds the trace in an answer: a framework's message or response, saved data, or JSON text.

No framework is imported: a trace is recognised by its entries, and found under the names below.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cosd_core.errors import TraceError, quoted
from cosd_core.outputs import Generation

_PLACES = (
    "trace",  # the metadata of an answer, in both frameworks
    "message",  # ChatGeneration, ChatResponse
    "response_metadata",  # LangChain's messages
    "generation_info",  # LangChain's generations of text
    "generations",  # LLMResult, ChatResult
    "raw",  # LlamaIndex's responses
    "metadata",  # its Response, where a caller has put it
    "messages",  # the state of a LangGraph agent
    "choices",  # the answers of cosd serve
    "provenance",  # of one of them
    "kwargs",  # langchain_core.load.dumpd
)
"""The attributes and keys under which answers keep their metadata."""

_MOST_NESTED = 12
"""No framework nests deeper; a limit ends circular references."""

Answer = Any
"""A generation, a framework's message or response, a trace as plain data, or any of these as JSON text."""


def as_generation(answer: Answer) -> Generation:
    """The generation that an answer tells of.

    Args:
        answer: A :class:`Generation`; what :meth:`Generation.to_dict` returned; a LangChain message,
            generation or result; a LlamaIndex response; the plain data of one of these, or of an answer of
            ``cosd serve``; or JSON text.

    Raises:
        TraceError: The answer carries no trace, or several, or a trace that is damaged.
    """
    if isinstance(answer, Generation):
        return answer
    data = _parsed(answer) if isinstance(answer, str | bytes) else answer
    found: list[Generation] = []
    for trace in _traces(data, _MOST_NESTED):
        generation = trace if isinstance(trace, Generation) else Generation.from_dict(trace)
        if generation not in found:  # a result can hold the metadata of its message a second time
            found.append(generation)
    if not found:
        raise TraceError(
            f"{_described(answer)} carries no trace: ask for it by return_trace=True, in the constructor or "
            "in the call; in a stream the last chunk carries it"
        )
    if len(found) > 1:
        raise TraceError(f"{_described(answer)} carries {len(found)} traces: give the one to explain")
    return found[0]


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{quoted(text)} is no JSON: {quoted(error)}") from error


def _traces(answer: Any, depth: int) -> Iterator[Generation | Mapping[str, Any]]:
    """All traces in an answer, in their order."""
    if isinstance(answer, Generation) or _is_trace(answer):
        yield answer
    elif not depth:
        return
    elif isinstance(answer, Mapping):
        for name in _PLACES:
            yield from _traces(answer.get(name), depth - 1)
    elif isinstance(answer, (list, tuple)):
        for each in answer:
            yield from _traces(each, depth - 1)
    elif hasattr(answer, "__dict__"):  # the fields of pydantic models and dataclasses; no property runs
        yield from _traces(vars(answer), depth - 1)


def _is_trace(answer: Any) -> bool:
    """Whether this is a generation as plain data, complete or not."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("tokens"), (list, tuple)):
        return False
    return "verifier" in answer or "models" in answer


def _described(answer: Any) -> str:
    return quoted(answer) if isinstance(answer, str | bytes | Mapping) else f"this {type(answer).__name__}"
