"""Structured output: a chat model that is bound to a schema, and a parser of its complete answers."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ValidationError

from cosd_core import InvalidOptionError
from cosd_core.errors import quoted
from langchain_cosd.tools import described_tools, is_not_object, schema_format

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
        options = {"ls_structured_output_format": {"kwargs": arguments, "schema": schema}, **options}
    if method != "function_calling":
        response_format = {"type": "json_object"} if method == "json_mode" else schema_format(schema)
        return chat.bind(response_format=response_format, **options), json_parser(schema)
    if is_not_object(schema):
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
            return super().parse_result(result, partial=partial)  # type: ignore[misc]
        except RecursionError as error:
            raise OutputParserException("the answer is nested too deeply") from error
        except ValidationError as error:  # of LangChain's parsers, only some convert it
            raise OutputParserException(
                f"{error.title} refuses the answer: {quoted(error, 240)}", result[0].text
            ) from error


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


def _checked(name: str, parser: type[Runnable[Any, Any]]) -> Any:
    return type(name, (_CheckedParser, parser), {"__module__": __name__})


_JsonParser = _checked("_JsonParser", JsonOutputParser)
_PydanticParser = _checked("_PydanticParser", PydanticOutputParser)
_KeyToolsParser = _checked("_KeyToolsParser", JsonOutputKeyToolsParser)
_PydanticToolsParser = _checked("_PydanticToolsParser", PydanticToolsParser)


def json_parser(schema: Any) -> Any:
    """A parser of JSON answers: to an instance if the schema is a pydantic class, else to a dictionary."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return _PydanticParser(pydantic_object=schema)
    return _JsonParser()


def tool_parser(schema: Any, name: str) -> Any:
    """A parser of one call's arguments: to an instance of a pydantic class, else to a dictionary."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return _PydanticToolsParser(tools=[schema], first_tool_only=True)
    return _KeyToolsParser(key_name=name, first_tool_only=True)
