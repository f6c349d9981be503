"""A conversation: its messages, and the stream of the next answer."""

from collections.abc import Generator, Mapping
from contextlib import closing
from math import inf
from typing import Any

from cosd_core.chat import Chat, Turn
from cosd_core.chat.events import Event, ParsedAnswer
from cosd_core.chat.messages import Message
from cosd_core.decoder import CoSDDecoder
from cosd_core.options import ANSWER_TOKENS
from cosd_core.outputs import Chunk, Generation


class Conversation:
    """The messages so far, and the models that answer the next one.

    Where the conversation no longer fits the context windows, its oldest messages are left out.

    Attributes:
        messages: The user's messages and the answers, without the system message.
        last: The last finished answer.
        left_out: How many messages were left out for the last answer.
    """

    def __init__(
        self,
        decoder: CoSDDecoder,
        options: Mapping[str, Any],
        *,
        system: str | None = None,
        chat_template: str | None = None,
        remembers: bool = True,
    ) -> None:
        """Begin without messages.

        Args:
            decoder: The models.
            options: Arguments of :meth:`CoSDDecoder.stream`.
            system: The system message.
            chat_template: A Jinja template that overrides the models' own.
            remembers: Whether the models are shown the earlier messages.
        """
        self._decoder = decoder
        self._windows = [model.context_length or inf for model in decoder.models]
        self._options = {"max_new_tokens": int(min(ANSWER_TOKENS, min(self._windows) // 2)), **options}
        self._first: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self._chat_template, self._remembers = chat_template, remembers
        self.messages: list[Message] = []
        self.last: Generation | None = None
        self.left_out = 0

    def reset(self) -> None:
        """Forget all messages but the system message."""
        self.messages.clear()
        self.last = None

    def ask(self, text: str) -> Generator[tuple[Chunk, list[Event]], None, None]:
        """Stream the answer to a message: chunks, and the events that each of them completes.

        The text of an answer that is closed early stays in the conversation; a message without any
        answer does not.

        Raises:
            CoSDError: As :class:`Turn` and :meth:`CoSDDecoder.stream`. The conversation can go on.
        """
        if not self._remembers:
            self.messages.clear()
        self.messages.append({"role": "user", "content": text})
        events: list[Event] = []
        try:
            turn = self._fitting_turn()
            with closing(self._decoder.stream(turn.prompt, **self._options)) as chunks:
                for chunk in chunks:
                    new = turn.read(chunk)
                    events += new
                    self.last = chunk.generation or self.last
                    yield chunk, new
        finally:
            answer = ParsedAnswer.of(events).text
            if answer.strip():
                self.messages.append({"role": "assistant", "content": answer})
            else:
                self.messages.pop()

    def _fitting_turn(self) -> Turn:
        """The next turn, after leaving out the oldest questions and answers that do not fit."""
        models, self.left_out = self._decoder.models, 0
        while True:
            chat = Chat([*self._first, *self.messages], chat_template=self._chat_template)
            turn = Turn(chat, models, truncation=len(self.messages) >= 3)
            needed = [len(ids) + self._options["max_new_tokens"] for ids in turn.prompt.ids]
            fits = all(length <= window for length, window in zip(needed, self._windows, strict=True))
            if fits or len(self.messages) < 3:
                return turn
            del self.messages[:2]
            self.left_out += 2
