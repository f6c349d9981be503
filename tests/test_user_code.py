"""What a user's own verifier, schedule or function raises comes as our error, which names it."""

import asyncio
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from cosd_core import (
    ConfidenceVerifier,
    CoSDDecoder,
    CoSDError,
    GenerationError,
    InvalidOptionError,
    InvalidPromptError,
    LanguageModel,
    OutOfMemoryError,
    PanelVerifier,
    RuleVerifier,
    Schedule,
    ScheduleError,
    ScheduleState,
    Verifier,
    VerifierError,
    explain,
)
from cosd_core.utils.guarded import guarded
from cosd_core.verifiers.types import Replacement
from langchain_cosd import ChatCoSD
from langchain_cosd import CoSDLLM as LangChainLLM
from llama_index_cosd import CoSDLLM as LlamaIndexLLM
from tests.models import ascii_model
from tests.test_translated import ascii_over
from tests.tokenizers import llama2, llama3


@pytest.fixture(scope="module")
def pair() -> tuple[LanguageModel, LanguageModel]:
    return ascii_model(seed=0, eos_token_id=None), ascii_model(seed=1, eos_token_id=None)


@pytest.fixture(scope="module")
def other_tokens() -> tuple[LanguageModel, LanguageModel]:
    return ascii_over(llama2(), seed=0), ascii_over(llama3(), seed=1)


class Failing(Verifier):
    """Fails in one of its methods, once there are so many calls."""

    name: ClassVar[str] = "failing"

    def __init__(self, method: str, error: Any = None, after: int = 0) -> None:
        self.method, self.left = method, after
        self.error = KeyError("boo") if error is None else error

    def _meet(self, method: str) -> None:
        if method == self.method:
            self.left -= 1
            if self.left < 0:
                raise self.error

    @property
    def calibration(self) -> None:
        self._meet("calibration")

    def check(self, assistants: int) -> None:
        self._meet("check")

    def judge(self, position: Any) -> Replacement | None:
        self._meet("judge")
        return Replacement(position.opinions[0].id, 0)

    def can_replace(self, p: float) -> bool:
        self._meet("can_replace")
        return True

    def reason(self, p: float, q: float, *, replaced: bool, assistant: int = 0) -> str:
        self._meet("reason")
        return "why"

    def to_dict(self) -> dict[str, Any]:
        self._meet("to_dict")
        return super().to_dict()


def write(pair: Any, verifier: Any, schedule: Any = "adaptive") -> str:
    """Everything that is done with a verifier and a schedule."""
    decoder = CoSDDecoder(*pair, verifier=verifier, schedule=schedule)
    generation = decoder.generate("Hello", max_new_tokens=24)
    generation.to_dict()
    explain.to_html(generation)
    return generation.text


# Verifiers


@pytest.mark.parametrize("kind", ["pair", "other_tokens"])
@pytest.mark.parametrize("method", ["calibration", "check", "judge", "can_replace", "reason", "to_dict"])
def test_an_error_in_a_verifier_names_its_class(
    method: str, kind: str, request: pytest.FixtureRequest
) -> None:
    models = request.getfixturevalue(kind)
    with pytest.raises(VerifierError, match=r"Failing failed: KeyError: 'boo'") as caught:
        write(models, Failing(method))
    assert isinstance(caught.value.__cause__, KeyError)
    assert isinstance(caught.value, GenerationError)
    assert write(models, Failing("")), "the same models still write"


def test_an_error_of_ours_and_a_lack_of_memory_pass_unchanged(pair: Any) -> None:
    for error in (InvalidOptionError("two assistants, please"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            write(pair, Failing("judge", error))
        assert caught.value is error
    with pytest.raises(OutOfMemoryError) as caught:  # the driver has split the batch in vain
        write(pair, Failing("judge", MemoryError("full")))
    assert isinstance(caught.value.__cause__, MemoryError)


@pytest.mark.parametrize(
    "wrong", [True, "token", (1, 0), Replacement(1, 7), Replacement(1, -1), Replacement(1, None)]
)
def test_what_is_no_replacement_is_refused_before_anything_is_written(wrong: Any, pair: Any) -> None:
    class Wrong(Failing):
        def judge(self, position: Any) -> Any:
            return wrong

    words = r"Wrong\.judge returned .*Replacement by an assistant from 0 to 0"
    with pytest.raises(VerifierError, match=words):
        write(pair, Wrong(""))


def test_the_member_of_a_panel_is_named(pair: Any) -> None:
    class Moody(ConfidenceVerifier):
        name: ClassVar[str] = "moody"

        def replaces(self, p: float, q: float) -> bool:
            raise ZeroDivisionError("no")

    for verifier in (Moody(), PanelVerifier((Moody(),))):
        with pytest.raises(VerifierError, match="Moody failed: ZeroDivisionError"):
            write(pair, verifier)


@pytest.mark.parametrize("missing", ["name", "lazy"])
def test_a_class_that_lacks_what_its_base_describes_is_refused(missing: str, pair: Any) -> None:
    class Half(Verifier):
        def judge(self, position: Any) -> None: ...

    class HalfSchedule(Schedule):
        if missing == "lazy":
            name = "half"
        else:
            lazy = True

        def start(self, rows: int, can_replace: Any) -> ScheduleState:
            raise AssertionError

    with pytest.raises(InvalidOptionError, match=rf"HalfSchedule\.{missing} should be"):
        CoSDDecoder(*pair, schedule=HalfSchedule())
    with pytest.raises(InvalidOptionError, match=r"Half\.name should be"):
        CoSDDecoder(*pair, verifier=Half())


# Schedules


class Clumsy(Schedule):
    """Its state fails in one of its methods."""

    name: ClassVar[str] = "clumsy"
    lazy: ClassVar[bool] = True

    def __init__(self, method: str) -> None:
        self.method = method

    def start(self, rows: int, can_replace: Any) -> Any:
        if self.method == "start":
            raise OSError("no disk")
        return None if self.method == "none" else ClumsyState(self.method)


class ClumsyState(ScheduleState):
    def __init__(self, method: str) -> None:
        self.method = method

    def _meet(self, method: str) -> None:
        if method == self.method:
            raise OSError("no disk")

    def should_draft(self, num_replaceable: Any) -> bool:
        self._meet("should_draft")
        return True

    def begin_round(self, rows: int, joined: int, steps: Any) -> None:
        self._meet("begin_round")

    def drafted(self, seconds: float) -> None:
        self._meet("drafted")

    def verified(self, seconds: float) -> None:
        self._meet("verified")


@pytest.mark.parametrize("method", ["start", "should_draft", "begin_round", "drafted", "verified"])
def test_an_error_in_a_schedule_names_its_class(method: str, pair: Any) -> None:
    rule = RuleVerifier(alpha=1.0, beta=0.0)
    with pytest.raises(ScheduleError, match="Clumsy failed: OSError: no disk") as caught:
        write(pair, rule, Clumsy(method))
    assert isinstance(caught.value.__cause__, OSError)
    assert write(pair, rule, Clumsy("")) == write(pair, rule)


def test_a_schedule_that_returns_no_state_is_refused(pair: Any) -> None:
    with pytest.raises(ScheduleError, match=r"Clumsy\.start returned None"):
        write(pair, "rule", Clumsy("none"))


# Other calls


class Picky(Verifier):
    """Fails on a confidence that only one prompt leads to."""

    name: ClassVar[str] = "picky"

    def __init__(self) -> None:
        self.disliked = -1.0

    def judge(self, position: Any) -> Replacement | None:
        if position.draft.confidence == self.disliked:
            raise LookupError("not this one")
        return Replacement(position.opinions[0].id, 0)


async def test_other_calls_of_the_batch_go_on(pair: Any) -> None:
    verifier = Picky()
    decoder = CoSDDecoder(*pair, verifier=verifier)
    prompts = ["Hello", "a", "b 2", "x = 1"]
    before = [decoder.generate(each, max_new_tokens=9) for each in prompts]
    verifier.disliked = before[1].tokens[4].p
    confidences = [{token.p for token in each.tokens} for each in before]
    assert [verifier.disliked in each for each in confidences] == [False, True, False, False]
    results = await asyncio.gather(
        *(decoder.agenerate(each, max_new_tokens=9) for each in prompts), return_exceptions=True
    )
    failed = results.pop(1)
    assert isinstance(failed, VerifierError)
    assert "Picky failed: LookupError: not this one" in str(failed)
    assert [each.text for each in results] == [before[at].text for at in (0, 2, 3)]
    chat = ChatCoSD(draft_model=pair[0], assistant_model=pair[1], max_tokens=9, verifier=Failing("judge"))
    answers = chat.batch(["a", "b"], return_exceptions=True)
    assert all(isinstance(each, VerifierError) for each in answers)


# Front ends


@pytest.mark.parametrize("kind", [ChatCoSD, LangChainLLM, LlamaIndexLLM])
@pytest.mark.parametrize("method", ["to_dict", "check", "judge"])
def test_frameworks_raise_the_same_errors(method: str, kind: Any, pair: Any) -> None:
    def ask(**settings: Any) -> Any:
        model = kind(draft_model=pair[0], assistant_model=pair[1], max_tokens=4, **settings)
        return model.complete("x") if kind is LlamaIndexLLM else model.invoke("x")

    with pytest.raises(VerifierError, match="Failing failed"):
        ask(verifier=Failing(method))
    with pytest.raises(ScheduleError, match="Clumsy failed"):
        ask(schedule=Clumsy("drafted"))


@pytest.mark.parametrize("name", ["messages_to_prompt", "completion_to_prompt"])
def test_an_error_in_a_prompt_function_of_llama_index_names_it(name: str, pair: Any) -> None:
    def my_format(_: Any) -> Any:
        return None if silent else 1 / 0

    models: Any = {"draft_model": pair[0], "assistant_model": pair[1], name: my_format}
    ask: Callable[[Any], Any] = lambda llm: llm.complete("x") if "completion" in name else llm.chat([])  # noqa: E731
    silent = False
    with pytest.raises(InvalidPromptError, match="my_format failed: ZeroDivisionError"):
        ask(LlamaIndexLLM(**models))
    silent = True
    with pytest.raises(InvalidPromptError, match=r"my_format.* returned None"):
        ask(LlamaIndexLLM(**models))


def test_the_errors_can_be_sent_to_another_process() -> None:
    with pytest.raises(CoSDError) as caught, guarded(VerifierError, Failing("")):
        raise ValueError("x")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (VerifierError, str(caught.value))
