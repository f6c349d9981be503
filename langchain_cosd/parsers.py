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
            OutputParserException: ``max_tokens`` cut it off.
        """
        for generation in result:
            if isinstance(generation, ChatGeneration):
                told = generation.message.response_metadata
                if told.get("finish_reason") == "length":
                    count = told["token_usage"]["completion_tokens"]
                    raise OutputParserException(
                        f"the answer was cut off after max_tokens={count}; allow it more", generation.text
                    )
        return super().parse_result(result, partial=partial)  # type: ignore[misc]


def _whole(parser: type[Runnable[Any, Any]]) -> Any:
    return type(f"Whole{parser.__name__}", (_Whole, parser), {"__module__": __name__})


_WholeJson, _WholePydantic = _whole(JsonOutputParser), _whole(PydanticOutputParser)
_WholeKeyTools, _WholePydanticTools = _whole(JsonOutputKeyToolsParser), _whole(PydanticToolsParser)


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
