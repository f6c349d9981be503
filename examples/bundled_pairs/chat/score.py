"""Accuracy of the chat pair on held-out dialogues: `python -m examples.bundled_pairs.chat.score`.

Every turn of the assistant is generated greedily after the true turns before it. It counts as right if the
text and every call with its arguments are.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from cosd_core.chat import Chat, Turn
from cosd_core.chat.events import ParsedAnswer
from cosd_core.decoder import CoSDDecoder
from cosd_core.models.language_model import LanguageModel
from cosd_core.verifiers import RuleVerifier, Verifier

from .. import load_chat_pair
from .dialogue import SKILLS, Dialogue, Message, Skill
from .mixture import ACTING, ALL, Mixture, dialogue, held_out

LONGEST_ANSWER = 256


def exam(seed: int, count: int, mixture: Mixture = ALL) -> Iterator[Dialogue]:
    """Held-out dialogues."""
    draw = held_out(seed)
    for _ in range(count):
        yield dialogue(draw, mixture)


def turns(made: Dialogue) -> Iterator[tuple[list[Message], Message, Skill]]:
    """(messages before it, the turn, its skill) for every scored turn of the assistant."""
    places = [at for at, message in enumerate(made.messages) if message["role"] == "assistant"]
    for at, skill in list(zip(places, made.skills, strict=True))[made.known :]:
        yield made.messages[:at], made.messages[at], skill


def answer(decoder: CoSDDecoder, messages: list[Message], tools: list[Message]) -> ParsedAnswer:
    """Generate the next turn."""
    turn = Turn(Chat(messages, tools), decoder.models)
    chunks = decoder.stream(turn.prompt, grammar=turn.grammar, max_new_tokens=LONGEST_ANSWER, truncation=True)
    return ParsedAnswer.of([event for chunk in chunks for event in turn.read(chunk)])


def is_right(found: ParsedAnswer, expected: Message) -> bool:
    """Whether an answer is the expected one."""
    calls = [each["function"] for each in expected.get("tool_calls", ())]
    return found.text == expected["content"] and [(each.name, each.arguments) for each in found.calls] == [
        (each["name"], each["arguments"]) for each in calls
    ]


def score(decoder: CoSDDecoder, dialogues: list[Dialogue]) -> dict[Skill, tuple[int, int]]:
    """Per skill, how many turns are right, of how many."""
    right: Counter[Skill] = Counter()
    total: Counter[Skill] = Counter()
    for made in dialogues:
        for before, expected, skill in turns(made):
            total[skill] += 1
            right[skill] += is_right(answer(decoder, before, made.tools), expected)
    return {skill: (right[skill], total[skill]) for skill in SKILLS}


def methods(draft: LanguageModel, assistant: LanguageModel) -> Iterator[tuple[str, CoSDDecoder]]:
    """Both models alone, and together."""
    ways: list[tuple[str, str | Verifier]] = [
        ("draft alone", "draft"), ("talker alone", "assistant"), ("average", "average"),
        ("rule (0.5, 0.5)", "rule"), ("rule (0.9, 0.5)", RuleVerifier(0.9, 0.5)),
    ]  # fmt: skip
    for name, verifier in ways:
        yield name, CoSDDecoder(draft, assistant, verifier=verifier)


def main(arguments: list[str] | None = None) -> None:
    """Print a table: a row per method, a column per skill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pair", type=Path, nargs=2, help="folders of a draft and an assistant")
    parser.add_argument("--acting", action="store_true", help="the actor, as a ReAct agent")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.pair:
        pair = [LanguageModel.from_pretrained(each, dtype="float32", device="cpu") for each in options.pair]
    else:
        pair = list(load_chat_pair("actor" if options.acting else "caller"))
    dialogues = list(exam(options.seed, options.dialogues, ACTING if options.acting else ALL))
    print(f"{'':16}" + "".join(f"{skill:>14}" for skill in SKILLS))
    for name, decoder in methods(*pair):
        cells = [f"{right:>5}/{total:<3}{right / max(total, 1):>5.0%}" for right, total in
                 score(decoder, dialogues).values()]  # fmt: skip
        print(f"{name:16}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
