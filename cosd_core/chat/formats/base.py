"""How a chat model writes tool calls and reasoning: the contract, and what its families share."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cosd_core.chat.parser import AnswerParser, Calls, Parser
from cosd_core.chat.response_template import TemplateParser
from cosd_core.chat.tools import Tool, as_tools
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar import Grammar, guided_schema

ToolDescription = Mapping[str, Any]


@dataclass(frozen=True)
class AddedToken:
    """A tag that the tokenizer has a token for."""

    id: int
    is_special: bool


@dataclass(frozen=True)
class ToolFormat(ABC):
    """How a model writes calls: it reads them, constrains them and writes them itself.

    Attributes:
        calls_may_be_bare: Whether an answer that is JSON as a whole is calls, without any tag.
        call_ids_have_nine_characters: Whether the templates want call ids of nine letters and digits.
        takes_tools: Whether the chat template shows the tools and writes calls and results. If it does not,
            the model must be taught with ``instructions``, ``render_calls`` and ``render_result``.
        thinking: The tags around reasoning, if the template knows any.
        tokens: The tags that are tokens of their own.
        response_template: The tokenizer's own rules for reading answers, which go first.
        more_visible: Special tokens that those rules need to see.
        spelt: Tags that a grammar matches by their letters, because the models' tokens for them differ.
    """

    name: ClassVar[str]
    tags: ClassVar[tuple[str, ...]] = ()
    calls_may_be_bare: ClassVar[bool] = False
    call_ids_have_nine_characters: ClassVar[bool] = False

    takes_tools: bool
    thinking: tuple[str, str] | None = None
    tokens: Mapping[str, AddedToken] = field(default_factory=dict)
    response_template: Mapping[str, Any] | None = None
    more_visible: frozenset[int] = frozenset()
    spelt: frozenset[str] = frozenset()

    @property
    def reasoning(self) -> bool:
        """Whether the template knows of reasoning."""
        return self.thinking is not None

    @property
    def visible_tokens(self) -> frozenset[int]:
        """Special tokens that must appear in the text, for the parser looks for them."""
        tags = [self.tokens[tag] for tag in (*self.tags, *(self.thinking or ())) if tag in self.tokens]
        return self.more_visible | {token.id for token in tags if token.is_special}

    def opens_reasoning(self, prompt_tail: str) -> bool:
        """Whether a rendered prompt ends in an open thinking tag.

        Only its very end counts: a user may have written the tag, too.
        """
        return self.thinking is not None and prompt_tail.rstrip().endswith(self.thinking[0])

    def parser(self, tools: Sequence[ToolDescription] | None = None, *, prompt: str = "") -> Parser:
        """A parser of one answer to this prompt. Without tools, nothing is a call.

        Raises:
            InvalidOptionError: A tool is not described as it should be.
        """
        offered = as_tools(tools)
        if self.response_template is not None:
            return TemplateParser(self.response_template, prompt, offered)
        return AnswerParser(
            thinking=self.thinking,
            thinks=self.opens_reasoning(prompt),
            calls=self._calls(offered) if offered else None,
            bare=bool(offered) and self.calls_may_be_bare,
            strays=self.tags if offered else (),
        )

    def grammar(
        self,
        tools: Sequence[ToolDescription],
        *,
        choice: str,
        parallel: bool,
        answer_schema: Mapping[str, Any] | None = None,
        opened: bool = False,
    ) -> Grammar:
        """The answers that are calls as they should be, after thoughts if the template knows any.

        Args:
            tools: The tools on offer.
            choice: ``"any"`` for a call of any tool, the name of a tool for a call of that one, ``"auto"``
                for text that may contain calls, ``"none"`` for an answer without calls.
            parallel: Whether there may be more than one call.
            answer_schema: What an answer without calls must be, instead of any text.
            opened: Whether the prompt ends inside of the thinking tag.

        Raises:
            InvalidOptionError: A schema cannot be enforced, or calls of this model cannot.
        """
        offered = as_tools(tools)
        chosen = {"auto": offered, "any": offered, "none": ()}.get(
            choice, tuple(tool for tool in offered if tool.name == choice)
        )
        assert chosen or choice == "none", "Turn refuses other choices"
        if chosen and self.response_template is not None and not self.takes_tools:
            raise InvalidOptionError(
                f"choice={quoted(choice)} cannot be enforced: how this model writes calls is known to its "
                "response_template only; leave the choice to the model"
            )
        rules = {"TEXT": "/(?s:.*)/", **(self._rules(chosen, parallel) if chosen else {})}
        if choice not in ("auto", "none"):
            body = "calls"
        elif answer_schema is not None:
            rules["answer"] = json_rule(answer_schema)
            body = "calls | answer" if chosen else "answer"
        else:
            body = "free" if chosen else "TEXT"
        rules["body"] = body
        rules["start"] = "body"
        if self.thinking is not None:
            opener, closer = map(self._tag, self.thinking)
            thoughts = "thoughts" if self.thinking[1] in self.tokens else "thoughts[lazy]"
            rules |= {"GAP": r"/\n{0,2}/", thoughts: f"TEXT {closer}"}
            rules["start"] = "thoughts GAP body" if opened else f"body | {opener} thoughts GAP body"
        written = "\n".join(f"{name}: {rule}" for name, rule in rules.items())
        return Grammar.lark(written, spelt=self.spelt)

    def instructions(self, tools: Sequence[ToolDescription]) -> str:
        """What tells a model, that was not shown any by its template, of its tools."""
        as_tools(tools)
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        example = self.render_calls([("tool_name", {"argument": "value"})])
        return (
            f"You can call these tools, one JSON object per line:\n{listed}\n\n"
            f"To call a tool, write exactly this, with its name and arguments:\n{example}\n\n"
            "Then stop: the result is given to you in the next message. If you need no tool, just answer."
        )

    def render_result(self, name: str, content: str, call_id: str | None = None) -> str:
        """A tool's result as the text of a message."""
        result = {"name": name, **({"id": call_id} if call_id else {}), "content": content}
        return f"<tool_response>\n{json.dumps(result, ensure_ascii=False)}\n</tool_response>"

    @abstractmethod
    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, by name and arguments, as the model would write them."""

    @abstractmethod
    def _calls(self, tools: Sequence[Tool]) -> Calls:
        """The tag that begins calls, and what reads them."""

    @abstractmethod
    def _rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        """Rules for ``calls`` alone and for ``free`` text that may contain them."""

    def _tag(self, tag: str) -> str:
        """A tag in a grammar: a token that stands for it matches by its number only."""
        return f"<[{self.tokens[tag].id}]>" if tag in self.tokens else json.dumps(tag)

    def _free(self, opener: str, parallel: bool) -> dict[str, str]:
        """Free text in which every opening tag begins a ``rest``."""
        if opener in self.tokens:  # text cannot contain the token
            repeated = "*" if parallel else "?"
            return {"free": f"TEXT ({self._tag(opener)} rest TEXT){repeated}"}
        head = {"head[lazy]": f"TEXT {json.dumps(opener)}"}  # lazy: ends at the first tag, so text has none
        return {**head, "free": "(head rest)* TEXT" if parallel else "TEXT | head rest"}


def any_call(tools: Sequence[Tool], arguments: str) -> dict[str, Any]:
    """The schema of a call of any of these tools."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, arguments: {"$ref": f"#/$defs/{at}"}},
            "required": ["name", arguments],
        }
        for at, tool in enumerate(tools)
    ]
    definitions = {str(at): _moved(tool.parameters, f"#/$defs/{at}") for at, tool in enumerate(tools)}
    return {"anyOf": calls, "$defs": definitions}


def _moved(schema: Any, to: str) -> Any:
    """A schema whose references to its own parts hold where it is put."""
    if isinstance(schema, Mapping):
        return {
            key: to + value[1:] if key == "$ref" and isinstance(value, str) else _moved(value, to)
            for key, value in schema.items()
        }
    return [_moved(each, to) for each in schema] if isinstance(schema, (list, tuple)) else schema


def json_rule(schema: Mapping[str, Any]) -> str:
    """JSON that a schema admits, as a rule of a grammar."""
    return f"%json {json.dumps(guided_schema(schema))}"
