"""How a chat model writes tool calls and reasoning, recognised from its tokenizer."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jinja2 import Environment, TemplateSyntaxError, meta
from transformers import PreTrainedTokenizerBase

from cosd_core.chat.events import Answer
from cosd_core.chat.parser import AnswerParser, Parser
from cosd_core.chat.readers import CallLog, Reading, llama_calls, mistral_calls, tagged_call
from cosd_core.chat.templated import TemplateParser
from cosd_core.chat.tools import Tool, as_tools
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar import Grammar, guided_schema

ToolDescription = Mapping[str, Any]
_Calls = tuple[str, Callable[[CallLog], Reading[None]]]

_THINKING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
"""A tag of transformers' own, which jinja2 does not know."""


@dataclass(frozen=True)
class AddedToken:
    """A tag that the tokenizer has a token for."""

    id: int
    is_special: bool


@dataclass(frozen=True)
class ToolFormat(ABC):
    """How a model writes calls: it reads them, constrains them and writes them itself.

    Attributes:
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
            bare=bool(offered) and isinstance(self, LlamaFormat),
            strays=self.tags if offered else (),
        )

    def grammar(
        self,
        tools: Sequence[ToolDescription],
        *,
        choice: str,
        parallel: bool,
        answer_schema: Mapping[str, Any] | None = None,
        reasoning: bool = False,
        opened: bool = False,
    ) -> Grammar:
        """The answers that are calls as they should be.

        Args:
            tools: The tools on offer.
            choice: ``"any"`` for a call of any tool, the name of a tool for a call of that one, ``"auto"``
                for text that may contain calls, ``"none"`` for an answer without calls.
            parallel: Whether there may be more than one call.
            answer_schema: What an answer without calls must be, instead of any text.
            reasoning: Whether the model may think before.
            opened: Whether the prompt ends inside of the thinking tag.

        Raises:
            InvalidOptionError: No tool has that name, or a schema cannot be enforced.
        """
        offered = as_tools(tools)
        chosen = {"auto": offered, "any": offered, "none": ()}.get(
            choice, tuple(tool for tool in offered if tool.name == choice)
        )
        if not chosen and choice != "none":
            names = ", ".join(["auto", "any", "none", *(tool.name for tool in offered)])
            raise InvalidOptionError(f"choice={quoted(choice)} should be one of the tools on offer ({names})")
        if chosen and self.response_template is not None and not self.takes_tools:
            raise InvalidOptionError(
                f"choice={quoted(choice)} cannot be enforced: how this model writes calls is known to its "
                "response_template only; leave the choice to the model"
            )
        rules = {"TEXT": "/(?s:.*)/", **(self._rules(chosen, parallel) if chosen else {})}
        if choice not in ("auto", "none"):
            body = "calls"
        elif answer_schema is not None:
            rules["answer"] = _json(answer_schema)
            body = "calls | answer" if chosen else "answer"
        else:
            body = "free" if chosen else "TEXT"
        rules["body"] = body
        if (reasoning or opened) and self.thinking is not None:
            rules |= {"GAP": r"/\n{0,2}/", "thoughts": _up_to(self.thinking[1], self.tokens)}
            rules["start"] = (
                "thoughts GAP body" if opened else f"body | {self._tag(self.thinking[0])} thoughts GAP body"
            )
            if self.thinking[1] not in self.tokens:
                rules["thoughts[lazy]"] = rules.pop("thoughts")
        else:
            rules["start"] = "body"
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
    def _calls(self, tools: Sequence[Tool]) -> _Calls:
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


class HermesFormat(ToolFormat):
    """``<tool_call>{"name": ..., "arguments": ...}</tool_call>``: Hermes, Qwen 2.5, Qwen 3."""

    name = "hermes"
    tags = ("<tool_call>", "</tool_call>")

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, by name and arguments, as the model would write them."""
        written = [
            json.dumps({"name": name, "arguments": values}, ensure_ascii=False) for name, values in calls
        ]
        return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in written)

    def _calls(self, tools: Sequence[Tool]) -> _Calls:
        return self.tags[0], lambda log: tagged_call(log, self.tags[1], tools)

    def _rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        opener, closer = map(self._tag, self.tags)
        return {
            **self._inner(tools),
            "rest": rf'"\n" inner "\n" {closer}',
            "calls": f"{opener} rest" + (rf' ("\n" {opener} rest)*' if parallel else ""),
            **self._free(self.tags[0], parallel),
        }

    def _inner(self, tools: Sequence[Tool]) -> dict[str, str]:
        return {"inner": _json(_any_call(tools, "arguments"))}


class XmlFormat(HermesFormat):
    """``<tool_call><function=name><parameter=key>value</parameter></function></tool_call>``: Qwen3-Coder."""

    name = "xml"

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, by name and arguments, as the model would write them."""
        written = []
        for name, arguments in calls:
            values = "".join(
                f"<parameter={key}>\n{_as_text(value)}\n</parameter>\n" for key, value in arguments.items()
            )
            written.append(f"<tool_call>\n<function={name}>\n{values}</function>\n</tool_call>")
        return "\n".join(written)

    def _inner(self, tools: Sequence[Tool]) -> dict[str, str]:
        rules = {"inner": " | ".join(f"call_{at}" for at in range(len(tools)))}
        for at, tool in enumerate(tools):
            parts = [json.dumps(f"<function={tool.name}>\n")]
            for place, (key, schema) in enumerate(tool.properties.items()):
                rule = f"p_{at}_{place}"
                rules |= self._parameter(rule, tool, key, schema)
                parts.append(rule if key in tool.required else f"{rule}?")
            rules[f"call_{at}"] = " ".join([*parts, '"</function>"'])
        return rules

    def _parameter(self, rule: str, tool: Tool, key: str, schema: Any) -> dict[str, str]:
        opening = json.dumps(f"<parameter={key}>\n")
        kinds = tool.kinds(schema)
        if kinds and "string" not in kinds:
            return {rule: rf'{opening} {_json({**schema, **tool.shared})} "\n</parameter>\n"'}
        said = schema if isinstance(schema, Mapping) else {}  # true is a schema, too
        words = said.get("enum") or ([said["const"]] if "const" in said else [])
        if words:
            values = " | ".join(json.dumps(_as_text(word)) for word in words)
            return {rule: rf'{opening} ({values}) "\n</parameter>\n"'}
        return {f"{rule}_text[lazy]": 'TEXT "</parameter>"', rule: rf'{opening} {rule}_text "\n"'}


class LlamaFormat(ToolFormat):
    """``{"name": ..., "parameters": ...}`` as the whole answer, or after ``<|python_tag|>``: Llama 3."""

    name = "llama3"
    tags = ("<|python_tag|>",)

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, by name and arguments, as the model would write them."""
        return "; ".join(
            json.dumps({"name": name, "parameters": values}, ensure_ascii=False) for name, values in calls
        )

    def _calls(self, tools: Sequence[Tool]) -> _Calls:  # noqa: ARG002 (needed by others)
        return self.tags[0], llama_calls

    def _rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        marked = f"{self._tag(self.tags[0])} objects"
        return {
            "object": _json(_any_call(tools, "parameters")),
            "objects": 'object ("; " object)*' if parallel else "object",
            "calls": f"objects | {marked}" if self.tags[0] in self.tokens else "objects",
            "PROSE": r"/(\s*[^\s{](?s:.*))?/",
            "free": f"PROSE | calls | PROSE {marked}" if self.tags[0] in self.tokens else "PROSE | calls",
        }


@dataclass(frozen=True)
class MistralFormat(ToolFormat):
    """``[TOOL_CALLS]`` and a list of calls, or a name, ``[ARGS]`` and arguments: Mistral.

    Attributes:
        named: Whether the template writes the newer form, with a name.
        numbered: Whether it writes ``[CALL_ID]`` after the name.
    """

    name = "mistral"
    tags = ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")

    named: bool = False
    numbered: bool = False

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, by name and arguments, as the model would write them."""
        if self.named:
            written = [
                f"[TOOL_CALLS]{name}[ARGS]{json.dumps(values, ensure_ascii=False)}" for name, values in calls
            ]
            return "".join(written)
        listed = [{"name": name, "arguments": values} for name, values in calls]
        return f"[TOOL_CALLS] {json.dumps(listed, ensure_ascii=False)}"

    def _calls(self, tools: Sequence[Tool]) -> _Calls:  # noqa: ARG002 (needed by others)
        return self.tags[0], lambda log: mistral_calls(log, self.tags[0])

    def _rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        opener, number, arguments = map(self._tag, self.tags)
        if not self.named:
            rest = {"rest": f'" "? {_json(_list_of(_any_call(tools, "arguments"), parallel))}'}
            return {**rest, "calls": f"{opener} rest", **self._free(self.tags[0], False)}
        number = f" {number} /[a-zA-Z0-9]{{9}}/" if self.numbered else ""
        named = [f"{json.dumps(tool.name)}{number} {arguments} {_json(tool.parameters)}" for tool in tools]
        return {
            "rest": " | ".join(named),
            "calls": f"({opener} rest)+" if parallel else f"{opener} rest",
            **self._free(self.tags[0], parallel),
        }


def tool_format(tokenizer: PreTrainedTokenizerBase, chat_template: Any = None) -> ToolFormat:
    """The format of a model, by its chat template; Hermes, to be taught, if that knows no tools.

    Args:
        tokenizer: The model's tokenizer.
        chat_template: A template instead of its own.
    """
    template = _template(chat_template or tokenizer.chat_template)
    added = {
        token.content: AddedToken(at, token.special) for at, token in tokenizer.added_tokens_decoder.items()
    }
    own = getattr(tokenizer, "response_template", None)
    shared: dict[str, Any] = {
        "thinking": next((tags for tags in _THINKING if tags[1] in template or tags[0] in template), None),
        "tokens": {text: token for text, token in added.items() if text in _TAGS},
        "response_template": own,
        "more_visible": _named_in(own, added, tokenizer.eos_token_id) if own is not None else frozenset(),
    }
    takes_tools = _takes_tools(template)
    if takes_tools and "[TOOL_CALLS]" in template:
        return MistralFormat(True, named="[ARGS]" in template, numbered="[CALL_ID]" in template, **shared)
    if takes_tools and "<tool_call>" in template:
        return (XmlFormat if "<function=" in template else HermesFormat)(True, **shared)
    if takes_tools and ("<|python_tag|>" in template or _LLAMA.search(template)):
        return LlamaFormat(True, **shared)
    return HermesFormat(False, **shared)


def parse_answer(
    text: str,
    writing: ToolFormat,
    tools: Sequence[ToolDescription] | None = None,
    *,
    prompt: str = "",
) -> Answer:
    """Read an answer that has been written to its end.

    Raises:
        InvalidOptionError: A tool is not described as it should be.
    """
    parser = writing.parser(tools, prompt=prompt)
    return Answer.of([*parser.feed(text), *parser.finish()])


_TAGS = frozenset(
    [tag for each in (HermesFormat, LlamaFormat, MistralFormat) for tag in each.tags]
    + [tag for tags in _THINKING for tag in tags]
)
_LLAMA = re.compile(r'\{\\?"name\\?": .{0,80}\\?"parameters\\?": ', re.DOTALL)


def _template(template: Any) -> str:
    """The template for tools, where there are several."""
    if isinstance(template, (list, tuple)):
        template = {each["name"]: each["template"] for each in template}
    if isinstance(template, Mapping):
        template = template.get("tool_use") or template.get("default")
    return template if isinstance(template, str) else ""


def _takes_tools(template: str) -> bool:
    environment = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False)
    try:
        return "tools" in meta.find_undeclared_variables(environment.parse(_GENERATION.sub("", template)))
    except TemplateSyntaxError:  # transformers cannot render it either
        return False


def _named_in(rules: Any, added: Mapping[str, AddedToken], end: int | None) -> frozenset[int]:
    """The special tokens that a response template mentions, less the one that never is part of a text."""
    said = json.dumps(rules, ensure_ascii=False).replace("\\", "")  # patterns have their brackets escaped
    return frozenset(
        token.id for text, token in added.items() if token.is_special and token.id != end and text in said
    )


def _any_call(tools: Sequence[Tool], arguments: str) -> dict[str, Any]:
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


def _list_of(schema: dict[str, Any], several: bool) -> dict[str, Any]:
    definitions = schema.pop("$defs")
    at_most = {} if several else {"maxItems": 1}
    return {"type": "array", "items": schema, "minItems": 1, **at_most, "$defs": definitions}


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps(guided_schema(schema))}"


def _up_to(tag: str, tokens: Mapping[str, AddedToken]) -> str:
    return f"TEXT <[{tokens[tag].id}]>" if tag in tokens else f"TEXT {json.dumps(tag)}"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
