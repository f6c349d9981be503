"""The syntax in which a chat model writes tool calls and reasoning: the contract and the shared parts."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cosd_core.chat.call_parsers import CallSyntax
from cosd_core.chat.parser import AnswerParser, Parser
from cosd_core.chat.response_template import TemplateParser
from cosd_core.chat.tools import Tool, as_json, parse_tools
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar import Grammar
from cosd_core.grammar.enforced_schema import enforced_schema, schema_source

ToolDescription = Mapping[str, Any]


@dataclass(frozen=True)
class AddedToken:
    """A single token of the tokenizer, such as that of a tag."""

    id: int
    is_special: bool


@dataclass(frozen=True)
class ToolFormat(ABC):
    """Parses the calls of a model family, constrains them by a grammar, and renders them for prompts.

    Attributes:
        call_ids_have_nine_characters: Whether the templates demand call ids of nine letters and digits.
        calls_are_whole_answers: Whether calls are an answer of their own, so that none can follow text.
        takes_tools: Whether the chat template renders tools, calls and results. If not, the prompt must
            contain the texts of ``instructions``, ``render_calls`` and ``render_result``.
        reasoning_tags: The opening and closing tag of reasoning, if the template contains any.
        tokens: The tokenizer's added tokens, with every tag that is a single token.
        response_template: The tokenizer's own template for parsing answers; it overrides the family's parser.
        extra_visible_tokens: Special tokens that ``response_template`` mentions.
        spelt: Tags that a grammar matches as characters, because the models' tokens for them differ.
    """

    name: ClassVar[str]
    tags: ClassVar[tuple[str, ...]] = ()
    call_ids_have_nine_characters: ClassVar[bool] = False
    calls_are_whole_answers: ClassVar[bool] = False

    takes_tools: bool
    reasoning_tags: tuple[str, str] | None = None
    tokens: Mapping[str, AddedToken] = field(default_factory=dict)
    response_template: Mapping[str, Any] | None = None
    extra_visible_tokens: frozenset[int] = frozenset()
    spelt: frozenset[str] = frozenset()

    @property
    def visible_tokens(self) -> frozenset[int]:
        """Special tokens that decoding must keep in the text, because the parser looks for them."""
        tags = [self.tokens[tag] for tag in (*self.tags, *(self.reasoning_tags or ())) if tag in self.tokens]
        return self.extra_visible_tokens | {token.id for token in tags if token.is_special}

    @property
    def calls_are_unknown(self) -> bool:
        """Whether only the response template knows how calls are written, so that no grammar can be made."""
        return self.response_template is not None and not self.takes_tools

    def opens_reasoning(self, prompt_tail: str) -> bool:
        """Whether a prompt ends with an opening reasoning tag; elsewhere it may be of a user's message."""
        return self.reasoning_tags is not None and prompt_tail.rstrip().endswith(self.reasoning_tags[0])

    def parser(
        self,
        tools: Sequence[ToolDescription] | None = None,
        *,
        prompt: str = "",
        allows_bare_calls: bool = True,
        needs_tags: bool = False,
        checks_arguments: bool = True,
    ) -> Parser:
        """A parser of one answer to a prompt. Without tools, nothing is parsed as a call.

        Args:
            tools: The tools.
            prompt: The prompt.
            allows_bare_calls: Whether JSON without a tag may be a call.
            needs_tags: Whether it may be a call only if the family writes calls without tags.
            checks_arguments: Whether calls whose arguments do not match the tool's schema are invalid.
        """
        offered = parse_tools(tools)
        by_name = {tool.name: tool for tool in offered if checks_arguments}

        def find_error(name: str, arguments: Mapping[str, Any]) -> str | None:
            return by_name[name].error(arguments) if name in by_name else None

        if self.response_template is not None:
            return TemplateParser(self.response_template, prompt, offered, find_error)
        syntax = self._call_syntax(offered) if offered else None
        if syntax and (not allows_bare_calls or (needs_tags and syntax.bare_names is not None)):
            syntax = syntax._replace(allows_bare_calls=False)
        return AnswerParser(
            self.reasoning_tags,
            self.opens_reasoning(prompt),
            syntax,
            self.tags if offered else (),
            find_error,
        )

    def grammar(
        self,
        tools: Sequence[ToolDescription],
        *,
        choice: str,
        parallel: bool,
        answer_schema: Mapping[str, Any] | None = None,
        prompt: str = "",
    ) -> Grammar:
        """The grammar of valid answers to a prompt, after reasoning if the template contains any.

        ``choice`` and ``answer_schema`` are those of :class:`Turn`; ``parallel`` allows more than one call.
        :class:`InvalidOptionError` is raised if ``answer_schema`` is not valid or admits no value, or if no
        grammar of calls of this model can be made.
        """
        offered = parse_tools(tools)
        chosen = {"auto": offered, "any": offered, "none": ()}.get(
            choice, tuple(tool for tool in offered if tool.name == choice)
        )
        assert chosen or choice == "none", "Turn refuses other choices"
        if chosen and self.calls_are_unknown:
            raise InvalidOptionError(
                f"choice={quoted(choice)} cannot be enforced: how this model writes calls is known to its "
                "response_template only; leave the choice to the model"
            )
        rules = {"TEXT": "/(?s:.*)/", **(self._grammar_rules(chosen, parallel) if chosen else {})}
        if choice not in ("auto", "none"):
            body = "calls"
        elif answer_schema is not None:
            rules["answer"] = f"%json {enforced_schema(schema_source(answer_schema))}"
            body = "calls | answer" if chosen else "answer"
        else:
            body = "free" if chosen else "PLAIN"
            rules |= {} if chosen else {"PLAIN": self._plain_text(offered)}
        rules |= {"body": body, "start": "body", **self._reasoning_rules(prompt)}
        return Grammar.lark("\n".join(f"{name}: {rule}" for name, rule in rules.items()), spelt=self.spelt)

    def instructions(self, tools: Sequence[ToolDescription]) -> str:
        """A description of the tools and their calls, for models whose template does not render tools."""
        parse_tools(tools)
        listed = "\n".join(as_json(tool) for tool in tools)
        example = self.render_calls([("tool_name", {"argument": "value"})])
        return (
            f"You can call these tools, one JSON object per line:\n{listed}\n\n"
            f"To call a tool, write exactly this, with its name and arguments:\n{example}\n\n"
            "Then stop: the result is given to you in the next message. If you need no tool, just answer."
        )

    def render_result(self, name: str, content: str, call_id: str | None = None) -> str:
        """The text of a message with a tool's result."""
        result = {"name": name, **({"id": call_id} if call_id else {}), "content": content}
        return f"<tool_response>\n{as_json(result)}\n</tool_response>"

    @abstractmethod
    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, by name and arguments, in the syntax of the model."""

    @abstractmethod
    def _call_syntax(self, tools: Sequence[Tool]) -> CallSyntax:
        """The syntax of calls of these tools."""

    @abstractmethod
    def _grammar_rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        """Grammar rules for ``calls`` alone and for ``free`` text that may contain them."""

    def _reasoning_rules(self, prompt: str) -> dict[str, str]:
        """Grammar rules for reasoning before the body of an answer, if the model writes any."""
        if self.reasoning_tags is None:
            return {}
        opener, closer = map(self._grammar_tag, self.reasoning_tags)
        reasoning = "reasoning" if self.reasoning_tags[1] in self.tokens else "reasoning[lazy]"
        after_opener = "reasoning GAP body"
        start = after_opener if self.opens_reasoning(prompt) else f"body | {opener} {after_opener}"
        return {"GAP": r"/\n{0,2}/", reasoning: f"TEXT {closer}", "start": start}

    def _plain_text(self, tools: Sequence[Tool]) -> str:
        """The terminal of text that holds no calls of these tools, not even spelt in characters."""
        if not tools:
            return "TEXT"
        # A model that is kept from the tag tends to go on with the call itself.
        names = "|".join(_escaped(as_json(tool.name)) for tool in tools)
        begun = [_escaped(self.tags[0][:-1]), rf'\{{\s*"name"\s*:\s*({names})', "<function="]
        return " & ".join(["/(?s:.*)/", *(f"~/(?s:.*){each}(?s:.*)/" for each in begun)])

    def _grammar_tag(self, tag: str) -> str:
        """A tag in a grammar. A tag that is a single token can be matched only by its id."""
        return f"<[{self.tokens[tag].id}]>" if tag in self.tokens else json.dumps(tag)

    def _free_text_rules(self, opener: str, parallel: bool) -> dict[str, str]:
        """Grammar rules for free text in which every opening tag is followed by ``rest``."""
        if opener in self.tokens:  # text cannot contain the token
            repeated = "*" if parallel else "?"
            return {"free": f"TEXT ({self._grammar_tag(opener)} rest TEXT){repeated}"}
        head = {"head[lazy]": f"TEXT {json.dumps(opener)}"}  # lazy: ends at the first tag, so text has none
        return {**head, "free": "(head rest)* TEXT" if parallel else "TEXT | head rest"}


def _escaped(text: str) -> str:
    """A regular expression of a text, between slashes."""
    return re.escape(text).replace("/", r"\/")


def call_rules(rule: str, tools: Sequence[Tool], arguments: str) -> dict[str, str]:
    """Grammar rules of a call of one of the tools as a JSON object.

    Every tool has a rule and a schema of its own, so that no schema changes what another tool may get.
    """
    rules = {rule: " | ".join(f"{rule}_{at}" for at in range(len(tools)))}
    for at, tool in enumerate(tools):
        # The same lexemes as in %json: an answer may be any JSON object that begins like a call.
        parts = "{", '"name"', ": ", as_json(tool.name), ", ", f'"{arguments}"', ": "
        rules[f"{rule}_{at}"] = f'{" ".join(map(json.dumps, parts))} %json {tool.enforced_parameters()} "}}"'
    return rules
