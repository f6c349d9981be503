"""Structured output: a chat model that is bound to a schema, and a parser of its complete answers."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from cosd_core import InvalidOptionError
from cosd_core.errors import quoted
from langchain_cosd.tools import described_tools, is_json_schema, schema_format

Method = Literal["json_schema", "function_calling", "json_mode"]


def structured_output(
    chat: BaseChatModel, schema: Any, method: Method, strict: bool | None, options: dict[str, Any]
) -> tuple[Runnable[Any, Any], Runnable[Any, Any]]:
    """The chat model, bound to the schema and the options of its calls, and the parser of its answers."""
    if method not in ("json_schema", "function_calling", "json_mode"):
        raise InvalidOptionError(
            f'method={quoted(method)} should be "json_schema", "function_calling" or "json_mode"'
        )
    if schema is None and method != "json_mode":
        raise InvalidOptionError(f'method="{method}" needs a schema')
    if schema is not None:  # for LangSmith
        arguments = {"method": method, **({} if strict is None else {"strict": strict})}
        form = schema
        if is_json_schema(schema):  # LangChain takes some of them only where they are those of a function
            form = {"name": "answer", "description": "", "parameters": schema}
        options = {"ls_structured_output_format": {"kwargs": arguments, "schema": form}, **options}
    if method != "function_calling":
        response_format = {"type": "json_object"} if method == "json_mode" else schema_format(schema)
        return chat.bind(response_format=response_format, **options), json_parser(schema)
    if is_json_schema(schema) and schema.get("type", "object") != "object":
        raise InvalidOptionError(
            f'schema={quoted(schema)}: functions take objects; method="json_schema" takes any schema'
        )
    (tool,) = described_tools([schema])
    name = tool["function"]["name"]
    llm = chat.bind_tools([tool], tool_choice=name, parallel_tool_calls=False, **options)
    return llm, tool_parser(schema, name)


def with_raw(llm: Runnable[Any, Any], parser: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """A chain that returns the message, its parsed value, and the error of the parser instead of raising."""

    def parsed(message: Any) -> AddableDict:
        try:
            return AddableDict(parsed=parser.invoke(message), parsing_error=None)
        except Exception as error:  # a validator of the user's class may raise anything
            return AddableDict(parsed=None, parsing_error=error)

    # LangChain's fallbacks raise in streams: they only act until the first chunk.
    def transform(chunks: Iterator[Any]) -> Iterator[AddableDict]:
        message: Any = None
        for chunk in chunks:
            message = chunk["raw"] if message is None else message + chunk["raw"]
            yield AddableDict(raw=chunk["raw"])
        yield parsed(message)

    async def atransform(chunks: AsyncIterator[Any]) -> AsyncIterator[AddableDict]:
        message: Any = None
        async for chunk in chunks:
            message = chunk["raw"] if message is None else message + chunk["raw"]
            yield AddableDict(raw=chunk["raw"])
        yield parsed(message)

    return RunnableMap(raw=llm) | RunnableGenerator(transform, atransform)


class _CheckedParser:
    """Checks the answer before it is parsed: LangChain's parsers complete JSON that was cut off."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse an answer; one that was cut or does not match the schema raises ``OutputParserException``."""
        for generation in result:
            if isinstance(generation, ChatGeneration):
                _check(generation)
        try:
            return self._parse_answer(result, partial=partial)
        except RecursionError as error:
            raise OutputParserException("the answer is nested too deeply") from error
        except (ValidationError, ValidationErrorV1) as error:
            if partial:
                return None
            title = getattr(error, "title", "the class")
            raise OutputParserException(
                f"{title} refuses the answer: {quoted(error, 240)}", result[0].text
            ) from error

    def _parse_answer(self, result: list[Generation], *, partial: bool) -> Any:
        return super().parse_result(result, partial=partial)  # type: ignore[misc]


def _check(generation: ChatGeneration) -> None:
    info = generation.message.response_metadata
    if info.get("finish_reason") == "length":
        count = info["token_usage"]["completion_tokens"]
        raise OutputParserException(
            f"the answer was cut off after max_tokens={count}; allow it more", generation.text
        )
    stop, calls = info.get("stop_sequence"), getattr(generation.message, "tool_calls", [])
    if stop is not None and not calls:
        raise OutputParserException(f"the answer was cut off by stop={stop!r}", generation.text)
    if (error := info.get("schema_error")) is not None:
        raise OutputParserException(f"the answer is not valid: {error}", generation.text)


_Json: Any = JsonOutputParser  # whose annotations mypy's plugin for pydantic would evaluate in this file


class _JsonParser(_CheckedParser, _Json):  # type: ignore[misc]
    pass


class _PydanticParser(_JsonParser):
    pydantic_object: type[Any]

    @property
    def OutputType(self) -> type[Any]:  # noqa: N802 - LangChain's name
        """The class."""
        return self.pydantic_object

    def _parse_answer(self, result: list[Generation], *, partial: bool) -> Any:
        value = super()._parse_answer(result, partial=partial)
        return None if value is None and partial else _instance(self.pydantic_object, value)


class _ToolParser(_CheckedParser, JsonOutputKeyToolsParser):
    pass


class _PydanticToolParser(_ToolParser):
    pydantic_object: type[Any]

    def _parse_answer(self, result: list[Generation], *, partial: bool) -> Any:
        arguments = super()._parse_answer(result, partial=partial)
        return None if arguments is None else _instance(self.pydantic_object, arguments)


def _instance(schema: type[Any], value: Any) -> Any:
    """An instance of a pydantic class from JSON: a strict class takes a string for a date there."""
    if issubclass(schema, BaseModel):
        return schema.model_validate_json(json.dumps(value))
    return schema.parse_obj(value)


def json_parser(schema: Any) -> Any:
    """A parser of JSON answers: to an instance if the schema is a pydantic class, else to a dictionary."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return _PydanticParser(pydantic_object=schema)
    return _JsonParser()


def tool_parser(schema: Any, name: str) -> Any:
    """A parser of one call's arguments: to an instance of a pydantic class, else to a dictionary."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return _PydanticToolParser(key_name=name, first_tool_only=True, pydantic_object=schema)
    return _ToolParser(key_name=name, first_tool_only=True)
