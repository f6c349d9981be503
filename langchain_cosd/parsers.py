"""LangChain's parsers of structured answers, which do not take an answer that was cut off for whole."""

from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable
from langchain_core.utils.pydantic import is_basemodel_subclass


class _Whole:
    """A parser that first asks whether the answer is whole.

    LangChain's own read JSON that ends in the middle as if its end were there.
    """

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse an answer.

        Raises:
            OutputParserException: ``max_tokens`` or a stop string cut it off, or it is no such value.
        """
        for generation in result:
            if isinstance(generation, ChatGeneration):
                self._check(generation)
        try:
            return super().parse_result(result, partial=partial)  # type: ignore[misc]
        except RecursionError as error:
            raise OutputParserException("the answer is nested too deeply") from error

    def _check(self, generation: ChatGeneration) -> None:
        message = generation.message
        told = message.response_metadata
        if told.get("finish_reason") == "length":
            count = told["token_usage"]["completion_tokens"]
            raise OutputParserException(
                f"the answer was cut off after max_tokens={count}; allow it more", generation.text
            )
        stop, calls = told.get("stop_sequence"), getattr(message, "tool_calls", [])
        if stop is not None and not calls:
            raise OutputParserException(f"the answer was cut off by stop={stop!r}", generation.text)


def _whole(name: str, parser: type[Runnable[Any, Any]]) -> Any:
    return type(name, (_Whole, parser), {"__module__": __name__})


_WholeJson = _whole("_WholeJson", JsonOutputParser)
_WholePydantic = _whole("_WholePydantic", PydanticOutputParser)
_WholeKeyTools = _whole("_WholeKeyTools", JsonOutputKeyToolsParser)
_WholePydanticTools = _whole("_WholePydanticTools", PydanticToolsParser)


def json_parser(schema: Any) -> Any:
    """A parser of answers that are JSON: an instance of a pydantic class, else a dictionary."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return _WholePydantic(pydantic_object=schema)
    return _WholeJson()


def tool_parser(schema: Any, name: str) -> Any:
    """A parser of the arguments of one call: an instance of a pydantic class, else a dictionary."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return _WholePydanticTools(tools=[schema], first_tool_only=True)
    return _WholeKeyTools(key_name=name, first_tool_only=True)
