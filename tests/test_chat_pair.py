"""The bundled chat pair on held-out dialogues: each model has a field of its own, together they have both."""

import pytest

from cosd_core import CoSDDecoder, RuleVerifier
from examples.bundled_pairs import load_chat_pair
from examples.bundled_pairs.chat.mixture import ACTING, dialogue, holds_excluded, training
from examples.bundled_pairs.chat.score import exam, score
from examples.bundled_pairs.chat.words import EXCLUDED, is_held_out
from tests.grids import exhaustive


@pytest.fixture(scope="module")
def dialogues():
    return list(exam(0, 60))


@exhaustive
def test_together_they_call_and_read(dialogues) -> None:
    pair = load_chat_pair()
    caller = score(CoSDDecoder(*pair, verifier="draft"), dialogues)
    talker = score(CoSDDecoder(*pair, verifier="assistant"), dialogues)
    together = score(CoSDDecoder(*pair, verifier=RuleVerifier(0.9, 0.5)), dialogues)

    def share(table, skill) -> float:
        right, asked = table[skill]
        return right / asked

    assert share(talker, "call") < 0.2 < 0.65 < share(together, "call")
    assert share(caller, "read") < 0.2 < 0.5 < share(together, "read")
    assert share(together, "result") > 0.8
    right = [sum(correct for correct, _ in table.values()) for table in (caller, talker, together)]
    assert right[2] > max(right[:2])


@exhaustive
def test_the_actor_takes_the_steps_of_a_react_agent() -> None:
    steps = list(exam(0, 40, ACTING))
    right, asked = score(CoSDDecoder(*load_chat_pair("actor"), verifier=RuleVerifier(0.9, 0.5)), steps)["act"]
    none, _ = score(CoSDDecoder(*load_chat_pair("caller"), verifier=RuleVerifier(0.9, 0.5)), steps)["act"]
    assert asked == 40
    assert none < 4 < 24 < right


def test_no_training_dialogue_holds_what_the_standard_suite_asks() -> None:
    def asks_so(draw, made) -> None:
        made.user(f"Call {draw.one(EXCLUDED)}.")

    def asks_else(draw, made) -> None:
        made.user("Call something.")

    draw = training(7)
    made = [dialogue(draw, ((0.5, asks_so), (0.5, asks_else))) for _ in range(50)]
    assert {each.messages[0]["content"] for each in made} == {"Call something."}
    assert not any(holds_excluded(dialogue(draw)) for _ in range(500))
    assert {"magic_function", "get_weather", "San Francisco"} <= set(EXCLUDED)


def test_words_of_the_exam_are_not_drawn_for_training() -> None:
    draw = training(3)
    assert not any(is_held_out(draw.verb()) for _ in range(2_000))
