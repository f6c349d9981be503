"""The assistant's next turn in a chat: what the models are shown, what they may write, and how it is read."""

from collections.abc import Mapping, Sequence
from typing import Any

from cosd_core.chat.events import Event
from cosd_core.chat.messages import Chat
from cosd_core.chat.rendering import ChatPrompt, render
from cosd_core.chat.tools import as_tools
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar import Grammar
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
        prompt: What the models are shown.
        grammar: What they may write, or None where they may write anything.
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
    ) -> None:
        """Prepare the turn.

        Args:
            chat: The conversation so far, with the tools on offer.
            models: The draft, then the assistants.
            tool_choice: ``"auto"`` leaves it to the models whether they call a tool, ``"none"`` keeps them
                from it, ``"any"`` makes them call one, the name of a tool that one.
            parallel_tool_calls: Whether one turn may hold several calls. None: where the models are free to
                call or not.
            strict: Whether arguments are held to the tools' schemas where the models are free to call or
                not. None: where a grammar can do that. A call that must be made always is.
            answer_schema: The JSON schema of an answer that is no call.
            grammar: What the whole answer may be, if you know better than the above.

        Raises:
            InvalidOptionError: No tool has that name, a schema cannot be enforced, or a grammar is given
                together with what needs another.
            InvalidPromptError: A model's template does not take the messages.
        """
        names = ["auto", "none", "any", *(tool.name for tool in as_tools(chat.tools))]
        if tool_choice not in names:
            raise InvalidOptionError(f"tool_choice={quoted(tool_choice)} should be one of {', '.join(names)}")
        for name, value in (("parallel_tool_calls", parallel_tool_calls), ("strict", strict)):
            if not isinstance(value, bool | None):
                raise InvalidOptionError(f"{name}={quoted(value)} should be True or False")
        callable_tools = () if tool_choice == "none" else chat.tools
        self.prompt: ChatPrompt = render(chat if answer_schema is None else chat.told(answer_schema), models)
        self._parser = self.prompt.format.parser(callable_tools, prompt=self.prompt.text)
        is_free = tool_choice in ("auto", "none")
        if grammar is not None and (answer_schema is not None or not is_free):
            raise InvalidOptionError(
                f"grammar={quoted(grammar)} contradicts tool_choice={quoted(tool_choice)} and an answer's "
                "schema: give one"
            )
        parallel = is_free if parallel_tool_calls is None else parallel_tool_calls
        self.grammar = grammar or self._grammar(callable_tools, tool_choice, parallel, strict, answer_schema)

    def read(self, piece: Chunk | Generation) -> list[Event]:
        """What has become certain with a chunk of the answer, the last of which ends it, or with all."""
        events = self._parser.feed(piece.text)
        is_last = isinstance(piece, Generation) or piece.generation is not None
        return [*events, *self._parser.finish()] if is_last else events

    def _grammar(
        self,
        tools: Sequence[Mapping[str, Any]],
        choice: str,
        parallel: bool,
        strict: bool | None,
        answer_schema: Mapping[str, Any] | None,
    ) -> Grammar | None:
        is_free = choice == "none" or (choice == "auto" and (strict is False or not tools))
        if is_free and answer_schema is None:
            return None
        if not tools and choice not in ("auto", "none"):
            raise InvalidOptionError(f"tool_choice={quoted(choice)}, but there are no tools")
        writing = self.prompt.format
        try:
            return writing.grammar(
                tools,
                choice=choice if tools else "none",
                parallel=parallel,
                answer_schema=answer_schema,
                opened=writing.opens_reasoning(self.prompt.text),
            )
        except InvalidOptionError:
            if choice != "auto" or strict or answer_schema is not None:
                raise
            return None  # the models are free here; what they call is checked by whoever runs the tool
