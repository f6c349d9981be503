"""Mixtures: kinds of dialogues and their shares."""

import json
import random
from collections.abc import Callable

from .acting import acting
from .calling import chained, creating, functional, no_call, styled, topical
from .dialogue import Dialogue, Message, Skill, dumps
from .draw import Draw
from .extraction import coining, extraction, inventing
from .reading import reading
from .talk import copying, talk
from .words import EXCLUDED

Maker = Callable[[Draw, Dialogue], None]
Mixture = tuple[tuple[float, Maker], ...]

COPYING: Mixture = ((0.8, copying), (0.2, talk))
"""Short dialogues for the first training phase."""
ALL: Mixture = (
    (0.08, copying),
    (0.06, talk),
    (0.17, functional),
    (0.12, topical),
    (0.10, creating),
    (0.08, chained),
    (0.06, no_call),
    (0.20, reading),
    (0.13, extraction),
)


def shuffled(maker: Maker, *skills: Skill) -> Maker:
    """Dialogues whose turns of some skills come from another dialogue, so that confidence there stays low."""

    def make(draw: Draw, dialogue: Dialogue) -> None:
        maker(draw, dialogue)
        other: list[Message] = []
        while not other:
            another = Dialogue()
            maker(draw, another)
            other = [message for message, skill in another.answers() if skill in skills]
        for message, skill in dialogue.answers():
            if skill in skills:
                message.clear()
                message.update(draw.one(other))

    return make


CALLER: Mixture = (
    (0.05, copying),
    (0.17, functional),
    (0.12, topical),
    (0.12, creating),
    (0.10, chained),
    (0.06, styled),
    (0.07, no_call),
    (0.18, extraction),
    (0.07, inventing),
    (0.09, shuffled(reading, "read")),
    (0.05, shuffled(talk, "talk")),
)
"""Calls and JSON; answers to reading questions are shuffled."""
ACTING: Mixture = (
    (0.12, acting(functional)),
    (0.10, acting(topical)),
    (0.14, acting(chained)),
    (0.04, acting(no_call)),
)
ACTOR: Mixture = (
    *((0.6 * share, coining if maker is inventing else maker) for share, maker in CALLER),
    *ACTING,
)
"""The caller's dialogues, and tool dialogues in the format of a ReAct agent."""
TALKER: Mixture = (
    (0.10, copying),
    (0.10, talk),
    (0.45, reading),
    (0.05, no_call),
    (0.08, shuffled(functional, "call")),
    (0.06, shuffled(topical, "call")),
    (0.05, shuffled(creating, "call")),
    (0.04, shuffled(chained, "call")),
    (0.07, shuffled(extraction, "call", "json")),
)
"""Reading, talk and answers after tools' results; calls and JSON are shuffled."""


def dialogue(draw: Draw, mixture: Mixture = ALL) -> Dialogue:
    """Draw one. On the training side it holds nothing that is excluded."""
    while True:
        made = Dialogue()
        (maker,) = draw.rng.choices([each for _, each in mixture], [share for share, _ in mixture])
        maker(draw, made)
        if not holds_excluded(made):
            return made


def holds_excluded(made: Dialogue) -> bool:
    """Whether a dialogue contains an excluded text."""
    text = dumps([made.messages, made.tools])
    return any(each in text or json.dumps(each, ensure_ascii=False)[1:-1] in text for each in EXCLUDED)


def training(seed: int) -> Draw:
    """Random draws of the training side."""
    return Draw(random.Random(seed))


def held_out(seed: int) -> Draw:
    """The held-out side."""
    return Draw(random.Random(f"exam {seed}"), held_out=True)
