"""A loaded transformers model with its tokenizer stands where a name may; None means the default."""

import copy
from typing import Any

import pytest
from transformers import pipeline

from cosd_core import CoSDDecoder, CoSDError, GenerationOptions, InvalidOptionError, LanguageModel
from cosd_core.frontend.settings import Settings
from cosd_core.options import LoadingOptions
from langchain_cosd import ChatCoSD
from langchain_cosd import CoSDLLM as LangChainLLM
from llama_index_cosd import CoSDLLM as LlamaIndexLLM
from tests.models import ascii_model

OPTIONS = {"max_new_tokens": 12, "seed": 3}


def text(kind: Any, models: dict[str, Any], **options: Any) -> str:
    """What a front end writes."""
    if kind is CoSDDecoder:
        names = {name.removesuffix("_model"): value for name, value in models.items()}
        return CoSDDecoder.from_pretrained(**names).generate("Hello", **{**OPTIONS, **options}).text
    if kind is Settings:
        return Settings(**models).decoder().generate("Hello", **{**OPTIONS, **options}).text
    made = kind(**models, **OPTIONS)
    if kind is LlamaIndexLLM:
        return made.complete("Hello", formatted=True, **options).text
    answer = made.invoke("Hello", **options)
    return answer if isinstance(answer, str) else answer.content


@pytest.fixture(scope="module")
def pair() -> tuple[LanguageModel, LanguageModel]:
    return ascii_model(seed=0, eos_token_id=None), ascii_model(seed=1, eos_token_id=None)


KINDS = [CoSDDecoder, Settings, ChatCoSD, LangChainLLM, LlamaIndexLLM]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


# Loaded models


def test_a_model_with_its_tokenizer_is_taken_as_it_is(kind: Any, pair: Any) -> None:
    expected = text(kind, {"draft_model": pair[0], "assistant_model": pair[1]})
    loaded = [(each.model, each.tokenizer) for each in pair]
    pipes = [pipeline("text-generation", model=each.model, tokenizer=each.tokenizer) for each in pair]
    for draft, assistant in (
        loaded,
        pipes,
        (loaded[0], pair[1]),
        (pair[0], [loaded[1]]),
        (pipes[0], [pipes[1]]),
    ):
        assert text(kind, {"draft_model": draft, "assistant_model": assistant}) == expected
    both = {"draft_model": loaded[0], "assistant_model": [loaded[1], pair[0]]}
    assert text(kind, both) == text(kind, {**both, "assistant_model": [pair[1], pair[0]]})


def test_a_model_without_its_tokenizer_is_refused(kind: Any, pair: Any) -> None:
    for wrong in (pair[0].model, pair[0].tokenizer):
        for models in (
            {"draft_model": wrong, "assistant_model": pair[1]},
            {"draft_model": pair[1], "assistant_model": wrong},
            {"draft_model": pair[1], "assistant_model": [pair[1], wrong]},
        ):
            with pytest.raises(InvalidOptionError, match=r"give both, \(model, tokenizer\)"):
                text(kind, models)


def test_other_tuples_and_pipelines_are_refused(kind: Any, pair: Any) -> None:
    other = copy.copy(pipeline("text-generation", model=pair[0].model, tokenizer=pair[0].tokenizer))
    other.task = "summarization"
    for wrong, words in (
        ((pair[0].model, "tokenizer"), "tokenizer should be"),
        ((pair[0].model, pair[0].tokenizer, 1), "draft"),
        ((pair[0].tokenizer, pair[0].model), "draft"),
        (other, "summarization"),
    ):
        with pytest.raises(CoSDError, match=words):
            text(kind, {"draft_model": wrong, "assistant_model": pair[1]})


def test_loading_options_for_loaded_models_are_refused(pair: Any) -> None:
    loaded = (pair[0].model, pair[0].tokenizer)
    with pytest.raises(InvalidOptionError, match="loaded already"):
        CoSDDecoder.from_pretrained(draft=loaded, assistant=pair[1], dtype="float16")


# None


NATURAL = [
    "max_new_tokens", "min_new_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
    "stop", "seed", "eos_token_id", "logits_processor", "grammar", "truncation", "add_special_tokens",
]  # fmt: skip


def test_none_means_the_default_of_every_option() -> None:
    assert GenerationOptions.model_fields.keys() == set(NATURAL)
    assert GenerationOptions(**dict.fromkeys(NATURAL)) == GenerationOptions()
    assert LoadingOptions(**dict.fromkeys(LoadingOptions.model_fields)) == LoadingOptions()
    fields = [name for name, field in Settings.model_fields.items() if not field.is_required()]
    settings = Settings(draft_model="a", assistant_model="b", **dict.fromkeys(fields))
    assert settings == Settings(draft_model="a", assistant_model="b")
    assert "temperature" not in settings.model_fields_set


@pytest.mark.parametrize("kind", KINDS[2:])
def test_none_means_the_default_in_constructors(kind: Any) -> None:
    names: Any = {"draft_model": "a", "assistant_model": "b"}
    made = kind(
        **names, **dict.fromkeys((*NATURAL[1:], "max_tokens", "verifier", "alpha", "batch_size", "timeout"))
    )
    assert made._settings == kind(**names)._settings
    assert (made.temperature, made.top_p, made.max_tokens) == (0.0, 1.0, 128)
    made.temperature, made.top_k = 0.5, 3
    made.temperature = made.top_k = None
    assert (made.temperature, made.top_k) == (0.0, 0)
    for required in names:
        with pytest.raises(InvalidOptionError, match=required):
            kind(**{**names, required: None})


def test_none_in_a_call_keeps_the_setting(kind: Any, pair: Any) -> None:
    models = {"draft_model": pair[0], "assistant_model": pair[1]}
    nothing = dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop"))
    assert text(kind, models, **nothing) == text(kind, models)
    if kind not in (CoSDDecoder, Settings):
        warm = kind(**models, **OPTIONS, temperature=1.0, stop=["w"])
        assert warm._with_options({**nothing, "max_tokens": None})._settings == warm._settings
        assert warm._with_options({"seed": None}).seed is None, "None is a value of its own here"
