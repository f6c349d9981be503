"""Arbitrary prompts and options, of the decoder and of loading."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosd_core import CoSDDecoder, LanguageModel, TreeVerifier
from cosd_core.evaluation import AnswerFile, read_task
from cosd_core.frontend.settings import Settings
from cosd_core.frontend.settings_file import read_settings
from cosd_core.options import GenerationOptions, LoadingOptions
from cosd_core.training.examples import read_examples
from cosd_core.tuning.prediction_log import PredictionLog
from cosd_core.verifiers import make_verifier
from tests.chats import chat_model
from tests.fuzz.survival import fuzzed, survive
from tests.fuzz.values import nests, texts, values

OPTIONS = st.dictionaries(
    st.sampled_from([*GenerationOptions.model_fields, "timeout", "share_batches", "typo"]), values, max_size=3
)


@pytest.fixture(scope="module")
def decoder() -> CoSDDecoder:
    return CoSDDecoder(chat_model("chatml"), chat_model("hermes", seed=1))


@fuzzed
@given(
    prompt=texts | nests | values | st.lists(texts, max_size=3) | st.lists(st.integers(-2, 300), max_size=9)
)
def test_prompts(decoder: CoSDDecoder, prompt: Any) -> None:
    survive(lambda: decoder.generate(prompt, max_new_tokens=2))


@fuzzed
@given(options=OPTIONS)
def test_options(decoder: CoSDDecoder, options: dict[str, Any]) -> None:
    survive(lambda: decoder.generate("Hello", **{**options, "max_new_tokens": 2}))
    survive(lambda: GenerationOptions(**options))


@fuzzed
@given(stop=st.lists(texts | nests, max_size=6) | values, text=texts)
def test_stop_strings(decoder: CoSDDecoder, stop: Any, text: str) -> None:
    generation = survive(lambda: decoder.generate("Hello", max_new_tokens=8, stop=stop))
    if generation is not None and isinstance(stop, list):
        assert not any(each in generation.text for each in stop)


@fuzzed
@given(options=st.dictionaries(st.sampled_from([*Settings.model_fields, "typo"]), values, max_size=3))
def test_settings(options: dict[str, Any]) -> None:
    settings = survive(lambda: Settings(**{"draft_model": "a", "assistant_model": "b", **options}))
    if settings is not None:
        survive(
            lambda: (settings.method(), settings.model_name, settings.generation_options(), repr(settings))
        )


@fuzzed
@given(
    options=st.dictionaries(st.sampled_from([*LoadingOptions.model_fields]), values, max_size=2), name=values
)
def test_loading(options: dict[str, Any], name: Any) -> None:
    survive(lambda: LanguageModel.from_pretrained(name, **{**options, "local_files_only": True}))


@fuzzed
@given(
    verifier=values
    | st.fixed_dictionaries(
        {"name": st.sampled_from(["rule", "tree", "panel", "average"])},
        optional={"alpha": values, "members": values, "nodes": values},
    )
)
def test_verifiers(verifier: Any) -> None:
    survive(lambda: make_verifier(verifier))


@fuzzed
@given(name=texts | values)
def test_names_of_files(name: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    for path in (name, folder / name if isinstance(name, str) else folder, Path()):
        for read in (read_settings, read_task, TreeVerifier.load, AnswerFile, PredictionLog):
            survive(lambda read=read, path=path: read(path))
        survive(lambda path=path: list(read_examples(path)))
