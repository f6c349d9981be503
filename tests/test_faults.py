"""When a model or a logits processor fails, the user keeps the text so far and the decoder."""

from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessor,
    MinLengthLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from transformers.generation import SynthIDTextWatermarkLogitsProcessor

from cosd_core import (
    CoSDDecoder,
    CoSDError,
    GenerationError,
    InvalidOptionError,
    LanguageModel,
    LogitsProcessorError,
    ModelOutputError,
)
from cosd_core.models.prefix_cache import free_prefix_caches
from tests.grids import covering
from tests.models import on_pass

FROM = {"draft": 12, "assistant": 4}
"""From which pass on a model fails in these tests: some text is out by then."""


@pytest.fixture(autouse=True)
def no_cached_prefixes() -> None:
    """Those of other tests' models: a pass without memory is repeated when they are gone."""
    free_prefix_caches()


@pytest.fixture(scope="module")
def decoder(draft: LanguageModel, assistant: LanguageModel) -> CoSDDecoder:
    return CoSDDecoder(draft, assistant, draft_length=3)


@pytest.fixture(scope="module")
def answer(decoder: CoSDDecoder) -> str:
    return decoder.generate("The capital", max_new_tokens=40, eos_token_id=[]).text


def read_until_error(decoder: CoSDDecoder, error: type[BaseException], **options: Any) -> tuple[str, str]:
    """What was streamed before the error, and its message."""
    text = ""
    with pytest.raises(error) as caught:  # noqa: PT012
        for chunk in decoder.stream("The capital", **{"max_new_tokens": 40, "eos_token_id": [], **options}):
            text += chunk.text
    return text, str(caught.value)


def assert_good_message(message: str, *needed: str) -> None:
    assert len(message.splitlines()) == 1, message
    assert len(message) < 400, message
    for part in needed:
        assert part in message, message


def replaced(logits: Any) -> SimpleNamespace:
    return SimpleNamespace(logits=logits)


def _nan(logits: torch.Tensor) -> torch.Tensor:
    return torch.full_like(logits, torch.nan)


def _one_nan(logits: torch.Tensor) -> torch.Tensor:
    return logits.index_fill(-1, torch.tensor([7]), torch.nan)


def _infinite(logits: torch.Tensor) -> torch.Tensor:
    return logits.index_fill(-1, torch.tensor([7]), torch.inf)


def _nothing_possible(logits: torch.Tensor) -> torch.Tensor:
    return torch.full_like(logits, -torch.inf)


BAD_VALUES = [_nan, _one_nan, _infinite, _nothing_possible]
BAD_SHAPES = {
    "no-positions": lambda logits: logits[:, :0],
    "a-row-too-many": lambda logits: torch.cat([logits, logits]),
    "too-few-tokens": lambda logits: logits[..., :100],
    "flat": lambda logits: logits[:, -1],
    "one-number": lambda logits: logits.sum(),
    "none": lambda _: None,
    "a-list": lambda logits: logits.tolist(),
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("role", ["draft", "assistant"])
@pytest.mark.parametrize("spoil", BAD_VALUES, ids=lambda spoil: spoil.__name__.strip("_"))
def test_logits_without_a_meaning_are_an_error_of_that_model(decoder, answer, spoil, role, temperature):
    model = decoder.draft if role == "draft" else decoder.assistants[0]

    def act(number: int, output: Any) -> Any:
        return replaced(spoil(output.logits)) if number >= FROM[role] else None

    with on_pass(model, act):
        text, message = read_until_error(decoder, ModelOutputError, temperature=temperature, seed=1)
    assert text
    assert_good_message(message, role)
    assert decoder.generate("The capital", max_new_tokens=40, eos_token_id=[]).text == answer


@pytest.mark.parametrize("role", ["draft", "assistant"])
@pytest.mark.parametrize("shape", BAD_SHAPES)
def test_logits_of_another_shape_are_an_error_of_that_model(decoder, answer, shape, role):
    model = decoder.draft if role == "draft" else decoder.assistants[0]

    def act(number: int, output: Any) -> Any:
        return replaced(BAD_SHAPES[shape](output.logits)) if number >= FROM[role] else None

    with on_pass(model, act):
        text, message = read_until_error(decoder, GenerationError)
    assert answer.startswith(text)
    assert text
    assert_good_message(message, model.name)
    assert decoder.generate("The capital", max_new_tokens=40, eos_token_id=[]).text == answer


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory.\nTried to"), StopIteration(), KeyError("x")]
)
@pytest.mark.parametrize("role", ["draft", "assistant"])
@pytest.mark.parametrize("n", [1, 5])
def test_a_failing_pass_names_the_model_and_keeps_what_was_streamed(decoder, answer, role, n, error):
    model = decoder.draft if role == "draft" else decoder.assistants[0]

    def act(number: int, output: Any) -> None:
        if number == n:
            raise error

    with on_pass(model, act):
        text, message = read_until_error(decoder, GenerationError)
        assert answer.startswith(text)
        assert bool(text) == (n > 1)
        assert_good_message(message, model.name, type(error).__name__)
        # The fault has passed: the very same decoder goes on, with the hook still in place.
        assert decoder.generate("The capital", max_new_tokens=40, eos_token_id=[]).text == answer


def test_the_cause_of_a_failed_pass_is_kept(decoder):
    fault = RuntimeError("CUDA out of memory")

    def act(number: int, output: Any) -> None:
        raise fault

    with on_pass(decoder.draft, act), pytest.raises(GenerationError) as caught:
        decoder.generate("a")
    assert caught.value.__cause__ is fault


async def test_a_failing_pass_reaches_the_task_and_the_worker_goes_on(decoder, answer):
    def act(number: int, output: Any) -> None:
        if number == 5:
            raise RuntimeError("CUDA out of memory")

    text = ""
    with on_pass(decoder.draft, act):
        with pytest.raises(GenerationError):  # noqa: PT012
            async for chunk in decoder.astream("The capital", max_new_tokens=40, eos_token_id=[]):
                text += chunk.text
        assert text
        assert answer.startswith(text)
        result = await decoder.agenerate("The capital", max_new_tokens=40, eos_token_id=[])
    assert result.text == answer


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("role", ["draft", "assistant"])
def test_ctrl_c_in_a_round_arrives_unchanged_and_the_decoder_goes_on(decoder, answer, role, stop):
    model = decoder.draft if role == "draft" else decoder.assistants[0]
    interrupt = stop("now")

    def act(number: int, output: Any) -> None:
        if number == 4:
            raise interrupt

    with on_pass(model, act):
        with pytest.raises(stop) as caught:
            decoder.generate("The capital", max_new_tokens=40, eos_token_id=[])
        assert caught.value is interrupt
        assert not torch.is_inference_mode_enabled()
        assert decoder.generate("The capital", max_new_tokens=40, eos_token_id=[]).text == answer


# Logits processors


class AfterSome(LogitsProcessor):
    """Does ``act`` once the text has this many tokens; a function of its arguments alone."""

    def __init__(self, act: Any, length: int = 20) -> None:
        self.act, self.length = act, length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        return self.act(scores) if input_ids.shape[1] >= self.length else scores


def _raise(scores: torch.Tensor) -> torch.Tensor:
    raise ValueError("mine\nnot yours")


BAD_ANSWERS = {
    "raises": _raise,
    "none": lambda _: None,
    "a-number": lambda _: 3.0,
    "flat": lambda scores: scores[0],
    "too-short": lambda scores: scores[:, 1:],
    "nan": lambda scores: scores * torch.nan,
    "one-nan": lambda scores: scores.index_fill(-1, torch.tensor([7]), torch.nan),
    "nothing-allowed": lambda scores: scores - torch.inf,
    "infinite": lambda scores: scores.index_fill(-1, torch.tensor([7]), torch.inf),
    "whole-numbers": lambda scores: scores.long(),
    "yes-or-no": lambda scores: scores > 0,
    "complex-numbers": lambda scores: scores + 0j,
}


@pytest.mark.parametrize(("bad", "temperature"), covering(product(BAD_ANSWERS, [0.0, 1.0])))
def test_a_processor_that_fails_mid_stream_is_named_and_the_text_so_far_stands(
    decoder, answer, bad, temperature
):
    if bad == "infinite" and temperature == 0:
        pytest.skip("the most probable token is well defined")
    processor = AfterSome(BAD_ANSWERS[bad])
    options = {"temperature": temperature, "seed": 1}
    expected = decoder.generate("The capital", max_new_tokens=40, eos_token_id=[], **options).text
    text, message = read_until_error(decoder, LogitsProcessorError, logits_processor=[processor], **options)
    assert text
    assert expected.startswith(text)
    assert_good_message(message, "AfterSome")
    assert decoder.generate("The capital", max_new_tokens=40, eos_token_id=[]).text == answer


@pytest.mark.parametrize("bad", sorted(set(BAD_ANSWERS) - {"infinite"}))
def test_a_processor_that_fails_at_once_fails_before_any_work(decoder, bad):
    with pytest.raises(CoSDError) as caught:
        decoder.steps("The capital", logits_processor=[AfterSome(BAD_ANSWERS[bad], length=0)])
    assert_good_message(str(caught.value), "AfterSome")


class Counter(LogitsProcessor):
    """Counts its calls: a rejected token could not be taken back."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return scores


class CounterBehindALock(Counter):
    """The same, with an attribute that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = lambda: None


class CounterInSlots:
    """The same, without an attribute dictionary."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return scores


class Alternating(LogitsProcessor):
    """Answers differently each time, from a state outside itself."""

    state = iter(range(10**9))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + next(Alternating.state)


def _synth_id(decoder: CoSDDecoder) -> LogitsProcessor:
    return SynthIDTextWatermarkLogitsProcessor(
        ngram_len=5, keys=[1, 2, 3], sampling_table_size=2**8, sampling_table_seed=0, context_history_size=8,
        device=torch.device("cpu"),
    )  # fmt: skip


def _guidance(decoder: CoSDDecoder) -> LogitsProcessor:
    return UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, decoder.draft.model)


STATEFUL = [
    pytest.param(_synth_id, "SynthIDTextWatermarkLogitsProcessor", id="synth-id"),
    pytest.param(_guidance, "UnbatchedClassifierFreeGuidanceLogitsProcessor", id="guidance"),
    pytest.param(lambda _: Counter(), "Counter", id="counter"),
    pytest.param(lambda _: CounterBehindALock(), "CounterBehindALock", id="counter-unpicklable"),
    pytest.param(lambda _: CounterInSlots(), "CounterInSlots", id="counter-slots"),
    pytest.param(lambda _: Alternating(), "Alternating", id="changes-its-answer"),
]


@pytest.mark.parametrize(("make", "name"), STATEFUL)
def test_a_processor_that_keeps_state_is_refused_by_name(decoder, answer, make, name):
    with pytest.raises(InvalidOptionError) as caught:
        decoder.steps("The capital", logits_processor=[make(decoder)])
    assert_good_message(str(caught.value), name, "rolled back")
    assert decoder.generate("The capital", max_new_tokens=40, eos_token_id=[]).text == answer


def even_only(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """A pure function of the user's."""
    odd = torch.arange(scores.shape[-1]) % 2 == 1
    return scores.masked_fill(odd, -torch.inf)


class Caching(LogitsProcessor):
    """Remembers what it worked out, and says that this is all."""

    stateless = True

    def __init__(self) -> None:
        self.cache: dict[int, torch.Tensor] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        size = scores.shape[-1]
        if size not in self.cache:
            self.cache[size] = torch.arange(size) % 2 == 1
        return scores.masked_fill(self.cache[size], -torch.inf)


class InPlace(LogitsProcessor):
    """Changes the scores it is given, as transformers' own processors sometimes do."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, 1::2] = -torch.inf
        return scores


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "make", [lambda: even_only, Caching, InPlace], ids=["function", "caching", "in-place"]
)
def test_a_processor_without_state_takes_part_in_every_model(decoder, make, temperature):
    options = {"max_new_tokens": 60, "eos_token_id": [], "temperature": temperature, "seed": 2}
    free = decoder.generate("The capital", **options)
    held = decoder.generate("The capital", logits_processor=[make()], **options)
    assert {token.draft_id % 2 for token in free.tokens} == {0, 1}
    assert {token.draft_id % 2 for token in held.tokens} == {0}
    assert {token.assistant_id % 2 for token in held.tokens if token.q is not None} == {0}


def louder(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return scores * 3


def louder_in_place(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return scores.mul_(3)


def test_a_processor_may_work_in_place_and_shapes_the_pick_not_the_confidence(decoder):
    options = {"max_new_tokens": 30, "eos_token_id": []}
    plain = decoder.generate("The capital", **options)
    for processor in (louder, louder_in_place):
        shaped = decoder.generate("The capital", logits_processor=[processor], **options)
        assert shaped.token_ids == plain.token_ids
        assert [token.p for token in shaped.tokens] == [token.p for token in plain.tokens]


def test_transformers_own_processors_are_trusted(decoder):
    free = decoder.generate("a", max_new_tokens=40, eos_token_id=[])
    end = free.token_ids[3]
    processor = MinLengthLogitsProcessor(30, eos_token_id=[end], device="cpu")
    held = decoder.generate("a", max_new_tokens=40, logits_processor=processor, eos_token_id=[])
    assert end not in held.token_ids[:29]
