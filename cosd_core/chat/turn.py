"""The assistant's next turn in a chat: its prompt, its grammar, and the parser of its answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from cosd_core.chat.events import CallEvent, Event, InvalidAnswer, ReasoningDelta, TextDelta
from cosd_core.chat.messages import Chat
from cosd_core.chat.rendering import ChatPrompt, render
from cosd_core.chat.tools import parse_tools
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar import Grammar
from cosd_core.grammar.enforced_schema import schema_source
from cosd_core.grammar.schema_validation import text_error
from cosd_core.models.base import BaseLanguageModel
from cosd_core.outputs import Chunk, Generation


class Turn:
    """One turn, from the chat to the events of its answer.

    ::

        turn = Turn(chat, [decoder.draft, *decoder.assistants], tool_choice="any")
        for chunk in decoder.stream(turn.prompt, grammar=turn.grammar):
            for event in turn.read(chunk):
                ...

    Attributes:
        prompt: The chat, rendered for every model.
        grammar: The grammar of the answer; None admits any text.
    """

    def __init__(
        self,
        chat: Chat,
        models: Sequence[BaseLanguageModel],
        *,
        tool_choice: str = "auto",
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        answer_schema: Mapping[str, Any] | None = None,
        grammar: Grammar | None = None,
        truncation: bool = False,
    ) -> None:
        """Prepare the turn.

        Args:
            chat: The conversation so far, with the available tools.
            models: The draft, then the assistants.
            tool_choice: ``"auto"`` allows calls, ``"none"`` forbids them, ``"any"`` forces a call, the name
                of a tool forces a call of that tool.
            parallel_tool_calls: Whether one turn may have several calls. None: only if no call is forced.
            strict: Whether the arguments of calls must match the tools' schemas: a grammar enforces most
                keywords, the others are checked, and a call that does not match is an :class:`InvalidCall`.
                False: only those of forced calls must.
            answer_schema: The JSON Schema of an answer without calls. If the answer does not match it, the
                last event is an :class:`InvalidAnswer`.
            grammar: The grammar of the whole answer, instead of one made from the above.
            truncation: Whether the prompt may be longer than the context windows, because the call that
                decodes it has this option, too.

        With ``continue_final_message`` the answer is what the models add to the final message: grammar,
        schema and parser see nothing else.

        Raises:
            InvalidOptionError: No tool has that name, a schema is not valid or too large, ``grammar``
                contradicts another option, or calls or JSON cannot follow the final message.
            InvalidPromptError: A model's template does not accept the messages, or does not end.
            ContextOverflowError: The chat is too long.
        """
        _check_options(chat, tool_choice, parallel_tool_calls=parallel_tool_calls, strict=strict)
        shown = chat if answer_schema is None else chat.with_schema_instruction(answer_schema)
        self.prompt: ChatPrompt = render(shown, models, truncation=truncation)
        if chat.continue_final_message:
            self._check_continued(chat, () if tool_choice == "none" else chat.tools, answer_schema)
        is_forced = tool_choice not in ("auto", "none")
        self._drops_calls = tool_choice == "none"
        self._answer = _Answer(answer_schema)
        self._parser = self.prompt.format.parser(
            () if self._drops_calls and answer_schema is not None else chat.tools,
            prompt=self.prompt.text,
            allows_bare_calls=not self._drops_calls,
            needs_tags=answer_schema is not None
            or chat.continue_final_message
            or parallel_tool_calls is False,
            checks_arguments=is_forced or strict is not False,
        )
        if grammar is not None and (answer_schema is not None or is_forced):
            raise InvalidOptionError(
                f"grammar={quoted(grammar)} contradicts tool_choice={quoted(tool_choice)} and an answer's "
                "schema: give one"
            )
        parallel = not is_forced if parallel_tool_calls is None else parallel_tool_calls
        self.grammar = grammar or self._make_grammar(chat.tools, tool_choice, parallel, strict, answer_schema)

    def read(self, piece: Chunk | Generation) -> list[Event]:
        """The events that are certain after the next chunk, or all events of a finished generation."""
        events = self._parser.feed(piece.text)
        is_last = isinstance(piece, Generation) or piece.generation is not None
        if is_last:
            events += self._parser.finish()
        if self._drops_calls:
            events = [event for event in events if isinstance(event, (TextDelta, ReasoningDelta))]
        return self._answer.checked(events, is_last=is_last)

    def _check_continued(
        self, chat: Chat, tools: Sequence[Mapping[str, Any]], answer_schema: Mapping[str, Any] | None
    ) -> None:
        """Refuse calls and JSON that the text of the final message makes impossible."""
        text, call_format = chat.messages[-1]["content"], self.prompt.format
        if tools and call_format.calls_are_whole_answers:
            raise InvalidOptionError(
                f"continue_final_message=True excludes tools here: a call in format {call_format.name} is "
                f'a whole answer and cannot follow the text {quoted(text)}; tool_choice="none" forbids calls'
            )
        if answer_schema is not None and text.lstrip().startswith(("{", "[")):
            raise InvalidOptionError(
                "continue_final_message=True: an answer for a schema is JSON that is complete by itself, so "
                f"the final message should not begin it: {quoted(text)}"
            )

    def _make_grammar(
        self,
        tools: Sequence[Mapping[str, Any]],
        choice: str,
        parallel: bool,
        strict: bool | None,
        answer_schema: Mapping[str, Any] | None,
    ) -> Grammar | None:
        is_free = not tools or (choice == "auto" and strict is False)
        if is_free and answer_schema is None and choice in ("auto", "none"):
            return None
        if not tools and choice not in ("auto", "none"):
            raise InvalidOptionError(f"tool_choice={quoted(choice)}, but there are no tools")
        if self.prompt.format.calls_are_unknown and choice in ("auto", "none") and answer_schema is None:
            return None
        return self.prompt.format.grammar(
            tools,
            choice=choice if tools else "none",
            parallel=parallel,
            answer_schema=answer_schema,
            prompt=self.prompt.text,
        )


def _check_options(chat: Chat, tool_choice: str, **flags: bool | None) -> None:
    names = ["auto", "none", "any", *(tool.name for tool in parse_tools(chat.tools))]
    if tool_choice not in names:
        raise InvalidOptionError(f"tool_choice={quoted(tool_choice)} should be one of {', '.join(names)}")
    for name, value in flags.items():
        if not isinstance(value, bool | None):
            raise InvalidOptionError(f"{name}={quoted(value)} should be True or False")


class _Answer:
    """The text of an answer, and whether it is JSON of a schema."""

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self._source = None if schema is None else schema_source(schema)
        self._text: list[str] = []
        self._has_calls = False

    def checked(self, events: list[Event], *, is_last: bool) -> list[Event]:
        """The events, and at the end one more if the answer does not match the schema."""
        if self._source is None:
            return events
        self._text += [event.text for event in events if isinstance(event, TextDelta)]
        self._has_calls = self._has_calls or any(isinstance(event, CallEvent) for event in events)
        if not is_last or self._has_calls:
            return events
        error = text_error(self._source, "".join(self._text))
        return events if error is None else [*events, InvalidAnswer(error)]
