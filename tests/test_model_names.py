"""Local models go by the names of their folders wherever people read names; keys and files keep the path."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cosd_core import CoSDDecoder, LanguageModel
from cosd_core.frontend.model_names import model_names, model_sources, settings_of_names
from cosd_core.frontend.settings import Settings
from cosd_core.models.loading import display_name
from langchain_cosd import ChatCoSD
from langchain_cosd import CoSDLLM as LangChainLLM
from llama_index_cosd import CoSDLLM as LlamaIndexLLM
from tests.models import ascii_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two models, whose folders have one name, and a third."""
    top = tmp_path_factory.mktemp("secret-place")
    paths = [top / "one/final", top / "two/final", top / "third"]
    for seed, path in enumerate(paths):
        model = ascii_model(seed=seed, eos_token_id=None)
        model.model.save_pretrained(path)
        model.tokenizer.save_pretrained(path)
    return [*map(str, paths)]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("org/model", "org/model"), ("model", "model"), ("/home/me/models/tiny", "tiny"), ("./tiny/", "tiny"),
        ("~/models/tiny", "tiny"), ("a/b/c", "c"), ("", ""), ("x\0y", "x\0y"), ("x" * 5000, "x" * 5000),
        ("/home/me/.cache/huggingface/hub/models--org--tiny-v2/snapshots/5fd3a9", "org/tiny-v2"),
    ],
)  # fmt: skip
def test_the_name_of_a_path_is_its_last_part(source: str, name: str) -> None:
    assert display_name(source) == name


def test_a_relative_folder_goes_by_its_own_name(folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders[2])
    assert (display_name("."), display_name("../third")) == ("third", "third")
    model = LanguageModel.from_pretrained(".")
    assert (model.name, model.source) == ("third", os.path.realpath(folders[2]))
    assert model is LanguageModel.from_pretrained(folders[2])


def test_traces_metadata_and_usage_hold_no_path(folders: list[str]) -> None:
    models: Any = {"draft_model": folders[0], "assistant_model": folders[2], "max_tokens": 4}
    options: Any = {"return_trace": True}
    told = [
        CoSDDecoder.from_pretrained(folders[0], folders[2]).generate("Hello", max_new_tokens=4).to_dict(),
        LangChainLLM(**models).generate(["Hello"], **options).model_dump(),
        ChatCoSD(**models).invoke("Hello", **options).model_dump(),
        ChatCoSD(**models)._get_ls_params(),
        LlamaIndexLLM(**models).complete("Hello", **options).model_dump(),
        LlamaIndexLLM(**models).metadata.model_dump(),
        LlamaIndexLLM(**models).to_payload(),
    ]
    for each in told:
        assert "secret-place" not in str(each)
        assert "final" in str(each)
    assert told[0]["models"] == ["final", "third"]
    assert ChatCoSD(**models).model_name == "final+third"


def test_keys_keep_the_path(folders: list[str]) -> None:
    one, two = (LanguageModel.from_pretrained(folder) for folder in folders[:2])
    assert one.name == two.name == "final"
    assert one is not two
    assert one.fingerprint != two.fingerprint
    identities = [
        json.dumps(ChatCoSD(draft_model=folder, assistant_model=folders[2])._identifying_params)
        for folder in folders[:2]
    ]
    assert identities[0] != identities[1]
    assert folders[0] in identities[0]


def test_settings_name_the_models_by_their_sources_again(folders: list[str]) -> None:
    given = {"draft_model": folders[0], "assistant_model": LanguageModel.from_pretrained(folders[1])}
    assert model_names(given) == ["final", "final"]
    assert model_sources(given) == folders[:2]
    assert settings_of_names(*model_sources(given)) == {
        "draft_model": folders[0],
        "assistant_model": folders[1],
    }
    assert Settings(**given).model_name == "final+final"
    assert Path(model_sources({"draft_model": folders[2]})[0]).is_absolute()
