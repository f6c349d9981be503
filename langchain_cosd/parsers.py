"""LangChain's parsers of structured answers, which raise on an answer that was cut off."""

from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable
from langchain_core.utils.pydantic import is_basemodel_subclass


class _CheckedParser:
    """A parser that first checks that the answer is complete, since LangChain's own complete cut-off JSON."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse an answer.

        Raises:
            OutputParserException: A token limit or a stop string cut it, or it does not match the schema.
        """
        for generation in result:
            if isinstance(generation, ChatGeneration):
                _check_complete(generation)
        try:
            return super().parse_result(result, partial=partial)  # type: ignore[misc]
        except RecursionError as error:
            raise OutputParserException("the answer is nested too deeply") from error


def _check_complete(generation: ChatGeneration) -> None:
    info = generation.message.response_metadata
    if info.get("finish_reason") == "length":
        count = info["token_usage"]["completion_tokens"]
        raise OutputParserException(
            f"the answer was cut off after max_tokens={count}; allow it more", generation.text
        )
    stop, calls = info.get("stop_sequence"), getattr(generation.message, "tool_calls", [])
    if stop is not None and not calls:
        raise OutputParserException(f"the answer was cut off by stop={stop!r}", generation.text)


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
